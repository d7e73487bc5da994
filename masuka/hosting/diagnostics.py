"""One zip that says what is wrong here, safe to send: no keys, no pictures, no prompts."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import masuka
from masuka import logs
from masuka.config import Settings
from masuka.hosting.doctor import examine
from masuka.hosting.machine import machine
from masuka.hosting.runtime import detect
from masuka.store.opening import database_file

LOG_BYTES = 200_000
JOB_FIELDS = (
    "id", "kind", "lane", "state", "stage", "step", "total", "seconds_per_step", "error", "attempt",
    "created_at", "started_at", "finished_at",
)  # fmt: skip
"""What is told about a job; its title, request and prompts are not."""


def bundle(settings: Settings, to: Path, *, jobs: Iterable[Any] = ()) -> Path:
    """The zip at `to`: report.json, packages.txt and the end of the log, all redacted.

    `jobs` are rows of recent jobs; only JOB_FIELDS of them are told. The file is readable
    by its owner only and appears whole or not at all.
    """
    logs.redact.learn(settings.secrets.values())
    parts = {
        "report.json": json.dumps(report(settings, jobs), indent=2, default=str),
        "packages.txt": "\n".join(sorted({f"{d.name}=={d.version}" for d in distributions()}, key=str.lower)),
        logs.FILE_NAME: logs.tail(settings.workspace.logs, max_bytes=LOG_BYTES),
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f".{to.name}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, logs.redact(text))
    part.replace(to)
    return to


def report(settings: Settings, jobs: Iterable[Any] = ()) -> dict[str, Any]:
    """Versions, machine, host, findings, settings and recent jobs; names of keys only."""
    return {
        "masuka": masuka.__version__,
        "python": sys.version,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": asdict(detect()),
        "machine": machine(settings.workspace.root, device=settings.device).as_dict(),
        "findings": [finding.as_dict() for finding in examine(settings)],
        "settings": {
            "workspace": str(settings.workspace.root),
            "database": str(database_file(settings.workspace)),
            "media": str(settings.workspace.media),
            "host": settings.host,
            "port": settings.port,
            "allowed_hosts": list(settings.allowed_hosts),
            "log_level": settings.log_level,
            "device": settings.device,
            "keys_given": sorted(settings.secrets),
        },
        "jobs": [_told(job) for job in jobs],
    }


def _told(job: Any) -> dict[str, Any]:
    values: Mapping[str, Any] = job if isinstance(job, Mapping) else asdict(job)
    return {name: values[name] for name in JOB_FIELDS if name in values}
