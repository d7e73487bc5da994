"""The whole app with a link: real pyngrok, an agent that forwards, TLS, the real gate."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from masuka.config import SECRET_NAMES, Workspace
from masuka.hosting import addresses
from masuka.hosting.tunnels import agents
from tests.tunnel_stand_in import MACHINE, Program, certificate

ROOT = Path(__file__).parents[2]
TOKEN = "2canary7tokenForNgrokAgents_4Qx9LmN2pRs5TuVwXyZ1"
PASSWORD = "calm otters draw 7 robots"
PATIENCE_S = 120.0
pytestmark = pytest.mark.slow


class Host:
    """A machine with an ngrok program, on which the app is started again and again."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder / "home")
        self.pem = certificate(folder)
        self.program = Program(folder / "agent", certificate=self.pem)
        self.said = folder / "said.txt"
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def marks(self) -> tuple[str, ...]:
        return ("start", "--none", "--config", str(self.workspace.secrets / "ngrok.yml"))

    def environment(self, **more: str) -> dict[str, str]:
        given = {
            "MASUKA_HOME": str(self.workspace.root), "MASUKA_PORT": "0", "MASUKA_DEVICE": "cpu", "MASUKA_SHARE": "ngrok",
            "NGROK_AUTHTOKEN": TOKEN, "PYNGROK_NGROK_PATH": str(self.program.path), "SSL_CERT_FILE": str(self.pem),
        }  # fmt: skip
        return {**os.environ, **given, **more}

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        with self.said.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "app.py")], env=self.environment(**more), cwd=ROOT, stdout=out, stderr=out
            )
        self.processes.append(process)
        return process

    def says(self, what: str) -> re.Match[str]:
        """Waits until the app that runs has printed it."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            found = re.search(what, self.said.read_text())
            if found:
                return found
            assert self.processes[-1].poll() is None, self.said.read_text()
            time.sleep(0.1)
        raise AssertionError(f"the app never said {what}: {self.said.read_text()}")

    def masuka(self, *arguments: str) -> dict[str, object]:
        answer = subprocess.run(
            [sys.executable, "-m", "masuka", *arguments, "--json"], env=self.environment(), cwd=ROOT,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found: dict[str, object] = json.loads(answer.stdout)
        return found


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    for process in host.processes:
        process.kill()
        process.wait()
    agents.end(host.marks)


def visitor(host: Host, url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, verify=ssl.create_default_context(cafile=str(host.pem)))


def test_collaborators_reach_the_studio_by_the_link_and_strangers_do_not(host: Host) -> None:
    process = host.start(MASUKA_OWNER_PASSWORD=PASSWORD)
    url = host.says(r"Collaborators reach it at (https://\S+)").group(1)
    told = addresses.read(host.workspace)
    assert (told.state, told.public_url, told.provider) == ("open", url, "ngrok")
    port = f":{httpx.URL(told.address).port}"
    with visitor(host, url) as stranger:
        for path in ("/config", "/media/item/1", "/gradio_api/queue/join", "/no/such"):
            assert stranger.get(path).status_code == 401
        page = stranger.get("/login")
        assert page.status_code == 200 and "127.0.0.1" not in page.text and port not in page.text
        wrong = stranger.post("/login", data={"username": "owner", "password": "x" * 12}, headers={"origin": url})
        assert wrong.status_code == 401
    with visitor(host, url) as friend:
        entered = friend.post("/login", data={"username": "owner", "password": PASSWORD}, headers={"origin": url})
        assert entered.status_code == 303, entered.text
        assert "; secure" in entered.headers["set-cookie"].lower()
        for path in ("/", "/config"):
            answer = friend.get(path)
            assert answer.status_code == 200
            found = MACHINE.search(answer.text)
            # Here the public address itself is one of this machine, by its own port.
            assert found is None or url in found.group(), f"{path} names this machine: {found.group()}"
            assert port not in answer.text, f"{path} names the app's port"
    usage = usage_of(host, lambda: addresses.read(host.workspace).requests >= 8)
    assert usage.bytes > 10_000
    shown = host.masuka("share", "status")
    assert shown["public_url"] == url and "pid" not in shown
    closed = host.masuka("share", "stop")
    assert closed["state"] == "closed" and agents.find(host.marks) == []
    opened = host.masuka("share", "open", "--by", "ngrok")
    assert opened["state"] == "open" and len(agents.find(host.marks)) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    assert agents.find(host.marks) == [] and not host.workspace.address.exists()
    everything = host.said.read_text() + "".join(f.read_text() for f in host.workspace.logs.glob("*.log*"))
    assert TOKEN not in everything and PASSWORD not in everything


def usage_of(host: Host, enough: Callable[[], bool]) -> addresses.Addresses:
    until = time.monotonic() + 30
    while not enough() and time.monotonic() < until:
        time.sleep(0.2)
    return addresses.read(host.workspace)


def test_a_key_of_the_owner_is_nowhere_to_be_seen(host: Host) -> None:
    planted = {name: f"canary-{name.lower()}-7Qx9LmN2pRs5" for name in SECRET_NAMES}
    planted |= {"NGROK_AUTHTOKEN": TOKEN, "MASUKA_OWNER_PASSWORD": PASSWORD}
    process = host.start(**planted)
    url = host.says(r"Collaborators reach it at (https://\S+)").group(1)
    seen = [subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True).stdout]
    with visitor(host, url) as owner:
        entered = owner.post("/login", data={"username": "owner", "password": PASSWORD}, headers={"origin": url})
        seen += [str(entered.headers), *(owner.get(path).text for path in ("/", "/config", "/?tab=settings", "/no/such"))]
        look = {"data": [json.dumps({"tab": "settings", "since": -1})], "fn_index": look_of(owner), "session_hash": "x1"}
        answer = owner.post("/gradio_api/run/predict", json=look, headers={"origin": url})
        assert answer.status_code == 200 and "Keys for outside services" in answer.text
        seen.append(answer.text)
        bundle = owner.get("/download/diagnostics")
        with zipfile.ZipFile(io.BytesIO(bundle.content)) as archive:
            seen += [archive.read(name).decode() for name in archive.namelist()]
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    seen += [host.said.read_text(), *(f.read_text() for f in host.workspace.logs.glob("*.log*"))]
    for name, value in planted.items():
        assert not any(value in text for text in seen), f"{name} can be seen"


def look_of(owner: httpx.Client) -> int:
    """The number of the event by which the page looks when it is opened."""
    found = [d["id"] for d in owner.get("/config").json()["dependencies"] if [t[1] for t in d["targets"]] == ["load"]]
    return int(found[0])


def test_without_an_owners_password_the_agent_is_never_called(host: Host) -> None:
    host.start()
    host.says("No link for collaborators: A link needs an owner's password first")
    assert host.program.calls == []
    assert addresses.read(host.workspace).state == "failed"


def test_a_killed_app_takes_its_tunnel_along_and_the_next_has_one(host: Host) -> None:
    first = host.start(MASUKA_OWNER_PASSWORD=PASSWORD)
    host.says("Collaborators reach it")
    left = agents.find(host.marks)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len(left) == 1
    until = time.monotonic() + PATIENCE_S
    while agents.find(host.marks):
        assert time.monotonic() < until
        time.sleep(0.1)
    host.start(MASUKA_OWNER_PASSWORD=PASSWORD)
    host.says("Collaborators reach it")
    now = agents.find(host.marks)
    assert len(now) == 1 and now[0].pid != left[0].pid
    assert not left[0].is_running() or left[0].status() == psutil.STATUS_ZOMBIE
