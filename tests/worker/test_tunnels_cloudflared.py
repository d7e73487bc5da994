"""A named Cloudflare tunnel, with a program that speaks as cloudflared does."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from masuka.config import Workspace
from masuka.errors import AccessDenied, RemoteUnavailable
from masuka.hosting.tunnels import agents
from masuka.hosting.tunnels.cloudflared import Cloudflared

TOKEN = "eyJhIjoiY2FuYXJ5In0canary"
UP = "print('2026-11-20T10:00:00Z INF Registered tunnel connection connIndex=0', file=sys.stderr, flush=True)"
FOREVER = "while True: time.sleep(1)"
Make = Callable[..., Cloudflared]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "cloudflared"


def says(program: Path, code: str) -> None:
    note = f"json.dump(dict(os.environ), open({str(program.with_name('seen'))!r}, 'w'))"
    program.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{note}\n{code}\n")
    program.chmod(0o700)


@pytest.fixture
def make(workspace: Workspace, program: Path) -> Iterator[Make]:
    made: list[Cloudflared] = []

    def new(deadline_s: float = 20.0) -> Cloudflared:
        made.append(
            Cloudflared(
                token=TOKEN, host_name="studio.example.org", folder=workspace.secrets, program=program,
                deadline_s=deadline_s,
            )
        )  # fmt: skip
        return made[-1]

    yield new
    for tunnel in made:
        tunnel.close()
    assert agents.find((str(program),)) == []


def test_a_named_tunnel_comes_up(make: Make, program: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-of-another-service")
    says(program, f"{UP}\n{FOREVER}")
    tunnel = make()
    link = tunnel.open("127.0.0.1", 7861)
    assert (link.url, link.provider) == ("https://studio.example.org", "cloudflared")
    assert tunnel.alive()
    everywhere = subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True).stdout
    assert str(program) in everywhere and TOKEN not in everywhere
    seen = json.loads(program.with_name("seen").read_text())
    assert seen["TUNNEL_TOKEN"] == TOKEN
    assert "canary-of-another-service" not in seen.values(), "it gets no key of anybody else"
    assert stat.S_IMODE((workspace.secrets / "cloudflared.log").stat().st_mode) == 0o600
    tunnel.close()
    assert not tunnel.alive()


def test_a_token_that_is_refused_is_called_so(make: Make, program: Path) -> None:
    says(program, "print('Provided Tunnel token is not valid.', file=sys.stderr); sys.exit(1)")
    with pytest.raises(AccessDenied, match="does not accept this tunnel's token"):
        make().open("127.0.0.1", 7861)


@pytest.mark.parametrize("code", [FOREVER, "sys.exit(3)", "sys.stderr.buffer.write(b'\\xff\\x00' * 99); sys.exit(0)"])
def test_a_program_that_does_not_come_up_is_ended(code: str, make: Make, program: Path) -> None:
    says(program, code)
    with pytest.raises(RemoteUnavailable, match="did not come up") as refused:
        make(deadline_s=1.0).open("127.0.0.1", 7861)
    assert "http://127.0.0.1:7861" in refused.value.hint


def test_a_program_that_is_not_there_is_said(make: Make, program: Path) -> None:
    with pytest.raises(RemoteUnavailable, match="does not run"):
        make().open("127.0.0.1", 7861)


def test_what_a_killed_app_left_is_ended_first(make: Make, program: Path, workspace: Workspace) -> None:
    says(program, f"{UP}\n{FOREVER}")
    pid_file = str(workspace.secrets / "cloudflared.pid")
    with subprocess.Popen([str(program), "tunnel", "--pidfile", pid_file, "run"], stderr=subprocess.DEVNULL) as left:
        make().open("127.0.0.1", 7861)
        left.wait(10)
    assert len(agents.find((str(program),))) == 1
