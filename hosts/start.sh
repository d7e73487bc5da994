#!/bin/sh
# The first process of a container: makes the volumes writable, gives up root, runs the app.
set -eu

if [ "$(id -u)" -eq 0 ]; then
    for folder in "${MASUKA_HOME:-/data}" "${MASUKA_VAULT:-}"; do
        [ -n "$folder" ] || continue
        mkdir -p "$folder"
        chown masuka:masuka "$folder"
    done
    # RunPod's volume, which outlives the pod.
    if [ -d /workspace ]; then
        mkdir -p /workspace/masuka
        chown masuka:masuka /workspace/masuka
    fi
    HOME=$(getent passwd masuka | cut -d: -f6)
    export HOME
    exec setpriv --reuid=masuka --regid=masuka --init-groups --no-new-privs "$@"
fi
exec "$@"
