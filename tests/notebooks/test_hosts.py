"""app.py as a Space starts it, and the container's first script: what each host needs is there."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NAME = "me-masuka.hf.space"
PASSWORD = "a password of the Space"


@pytest.fixture
def space(tmp_path: Path) -> Iterator[int]:
    """The port of an app that runs as in a Space, with the owner's password as its secret."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {
        **os.environ, "SPACE_ID": "me/masuka", "SPACE_HOST": NAME, "MASUKA_PORT": str(port), "MASUKA_DEVICE": "cpu",
        "MASUKA_HOME": str(tmp_path / "home"), "MASUKA_OWNER_PASSWORD": PASSWORD,
    }  # fmt: skip
    said = tmp_path / "said.log"
    with said.open("wb") as out:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=out, stderr=out)
    try:
        while not re.search(r"token=", said.read_text()):
            assert process.poll() is None, said.read_text()
            time.sleep(0.1)
        assert f"https://{NAME}/?token=" in said.read_text()
        assert PASSWORD not in said.read_text()
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ask(
    port: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: str | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        method, path, body, {"Host": NAME, "X-Forwarded-Proto": "https", "Connection": "close", **(headers or {})}
    )
    return connection.getresponse()


@pytest.mark.slow
def test_a_space_lets_its_owner_in_by_its_secret(space: int) -> None:
    assert json.loads(ask(space, "GET", "/healthz").read()) == {"status": "ok"}
    door = ask(space, "GET", "/login")
    policy = str(door.getheader("content-security-policy"))
    assert "frame-ancestors" in policy
    assert "https://huggingface.co" in policy
    assert door.getheader("x-frame-options") is None
    assert ask(space, "GET", "/config").status == 401
    form = {"content-type": "application/x-www-form-urlencoded", "origin": f"https://{NAME}"}
    wrong = ask(space, "POST", "/login", form, urlencode({"username": "owner", "password": "something else"}))
    assert wrong.status in (401, 403)
    entered = ask(space, "POST", "/login", form, urlencode({"username": "owner", "password": PASSWORD}))
    assert entered.status == 303
    cookie = str(entered.getheader("set-cookie"))
    for word in ("HttpOnly", "Secure", "SameSite=None", "Partitioned"):
        assert word.lower() in cookie.lower()
    assert ask(space, "GET", "/config", {"cookie": cookie.partition(";")[0]}).status == 200


def test_the_containers_first_script_runs_what_it_is_given(tmp_path: Path) -> None:
    script = ROOT / "hosts" / "start.sh"
    subprocess.run(["sh", "-n", str(script)], check=True)
    # Without root it changes nothing and becomes the program itself.
    dropped = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    copy = tmp_path / "start.sh"
    copy.write_text(script.read_text())
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    answer = subprocess.run(
        [*dropped, "sh", str(copy), "sh", "-c", "echo $0-$1; exit 7", "x"], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout) == (7, "x-\n")


def test_the_container_asks_and_keeps_what_the_app_needs() -> None:
    file = (ROOT / "Dockerfile").read_text()
    assert "/healthz" in file
    assert "VOLUME /data" in file
    torch = re.search(r'"(torch[^"]+)" --index-url', file)
    assert torch
    assert torch.group(1) in (ROOT / "requirements.txt").read_text()
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) == {"masuka", "masuka-gpu"}
    for service in services.values():
        # This machine alone, everything on the volume, and time to save.
        assert service["ports"] == ["127.0.0.1:7860:7860"]
        assert service["volumes"] == ["masuka-data:/data"]
        assert service["stop_grace_period"] == "2m"
    assert "setpriv" in (ROOT / "hosts" / "start.sh").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".env", ".git", ".venv"} <= set(ignored)
