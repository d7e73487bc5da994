"""What a link at gradio.live needs of Gradio: one function, its list of tunnels, their marks.

Gradio documents none of it, so each new version may change it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio import networking, tunneling

from masuka.config import Workspace
from masuka.errors import RemoteUnavailable
from masuka.hosting.tunnels import agents
from masuka.hosting.tunnels.gradio_live import GradioLive
from masuka.ui import live

# Gradio (6.31) leaves the pipes of its program to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_the_function_takes_what_we_give_it() -> None:
    assert list(inspect.signature(networking.setup_tunnel).parameters) == [
        "local_host", "local_port", "share_token", "share_server_address", "share_server_tls_certificate",
    ]  # fmt: skip
    assert inspect.signature(networking.setup_tunnel).return_annotation == "str"


def test_the_program_is_checked_by_gradio_before_it_runs() -> None:
    assert tunneling.BINARY_URL in tunneling.CHECKSUMS
    assert tunneling.BINARY_URL.startswith("https://")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of Gradio's; the share server's address is given, so none is asked."""
    file = tmp_path / "frpc"
    monkeypatch.setattr(tunneling, "BINARY_PATH", str(file))
    monkeypatch.setattr(networking, "GRADIO_SHARE_SERVER_ADDRESS", "127.0.0.1:9")
    return file


def says(program: Path, code: str) -> None:
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{code}\n")
    program.chmod(0o700)


FOREVER = "while True: time.sleep(1)"


@pytest.fixture
def tunnel(workspace: Workspace, program: Path) -> Iterator[GradioLive]:
    tunnel = GradioLive(start=live.start, stop=live.stop, folder=workspace.secrets, deadline_s=20.0)
    yield tunnel
    tunnel.close()
    assert agents.find((str(program),)) == [] and tunneling.CURRENT_TUNNELS == []


def test_a_link_is_opened_on_our_own_port_and_closed(
    tunnel: GradioLive, program: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    says(program, f"print('x start proxy success: http://0a1b2c.gradio.live', flush=True)\n{FOREVER}")
    link = tunnel.open("127.0.0.1", 7861)
    assert (link.url, link.provider) == ("https://0a1b2c.gradio.live", "gradio")
    running = agents.find((str(program),))
    assert len(running) == 1 and tunnel.alive()
    arguments = running[0].cmdline()
    assert arguments[arguments.index("-l") + 1] == "7861" and arguments[arguments.index("-i") + 1] == "127.0.0.1"
    name = (workspace.secrets / "share.name").read_text()
    assert arguments[arguments.index("-n") + 1] == name and len(name) > 30
    tunnel.close()
    assert not tunnel.alive() and agents.find((str(program),)) == []
    assert capsys.readouterr().out == ""


def test_a_server_that_refuses_is_one_sentence(tunnel: GradioLive, program: Path) -> None:
    says(program, f"print('login to server failed: no', flush=True)\n{FOREVER}")
    with pytest.raises(RemoteUnavailable, match=r"gradio\.live did not open a link"):
        tunnel.open("127.0.0.1", 7861)
    assert agents.find((str(program),)) == []


def test_a_program_that_says_nothing_is_ended_at_the_deadline(workspace: Workspace, program: Path) -> None:
    says(program, FOREVER)
    tunnel = GradioLive(start=live.start, stop=live.stop, folder=workspace.secrets, deadline_s=1.0)
    with pytest.raises(RemoteUnavailable, match="did not answer within 1 seconds"):
        tunnel.open("127.0.0.1", 7861)
    assert agents.find((str(program),)) == [] and tunneling.CURRENT_TUNNELS == []


def test_without_a_network_it_is_one_sentence(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networking, "GRADIO_API_SERVER", "http://127.0.0.1:9/")
    tunnel = GradioLive(start=live.start, stop=live.stop, folder=workspace.secrets)
    with pytest.raises(RemoteUnavailable, match=r"gradio\.live did not open a link"):
        tunnel.open("127.0.0.1", 7861)


def test_what_a_killed_app_left_is_ended_first(tunnel: GradioLive, program: Path, workspace: Workspace) -> None:
    import subprocess

    says(program, f"print('x start proxy success: http://0a1b2c.gradio.live', flush=True)\n{FOREVER}")
    (workspace.secrets / "share.name").write_text("the-name-of-this-workspace")
    with subprocess.Popen(
        [str(program), "http", "-n", "the-name-of-this-workspace"], stdout=subprocess.DEVNULL
    ) as left:
        tunnel.open("127.0.0.1", 7861)
        left.wait(10)
    assert len(agents.find((str(program),))) == 1
