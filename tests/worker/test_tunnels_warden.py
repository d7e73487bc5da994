"""An agent does not outlive its app, however the app ends; nor does one that did by chance."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from masuka.config import Workspace
from masuka.hosting.sharing import Rules, Sharing
from masuka.hosting.tunnels import agents, marks
from masuka.hosting.tunnels.budget import Budget
from masuka.hosting.tunnels.warden import end_left
from tests.tunnel_stand_in import Program
from tests.unit.test_tunnels_sharing import until
from tests.worker.test_tunnels_ngrok import TOKEN

ROOT = Path(__file__).parents[2]
AGENT = "import sys, time; time.sleep(600)"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "agent")


@pytest.fixture(autouse=True)
def nothing_is_left(workspace: Workspace) -> Iterator[None]:
    yield
    for known in marks.of_workspace(workspace.secrets):
        agents.end(known)


def killed_app(workspace: Workspace, program: Program, *, guarded: bool) -> None:
    """Kills an app whose agent runs."""
    code = (
        "import time; from pathlib import Path; from masuka.hosting.tunnels.ngrok import Ngrok\n"
        f"from masuka.hosting.tunnels.warden import Warden\nsecrets = Path({str(workspace.secrets)!r})\n"
        + ("warden = Warden(secrets); warden.start()\n" if guarded else "")
        + f"Ngrok(token={TOKEN!r}, folder=secrets, program=Path({str(program.path)!r})).open('127.0.0.1', 7861)\n"
        "print('open', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as app:
        assert app.stdout is not None and app.stdout.readline() == "open\n"
        found = agents.find(marks.of_ngrok(workspace.secrets / marks.NGROK_FILE))
        app.send_signal(signal.SIGKILL)
        app.wait()
    assert len(found) == 1


def test_the_agent_of_a_killed_app_ends_with_it(program: Program, workspace: Workspace) -> None:
    killed_app(workspace, program, guarded=True)
    until(lambda: agents.find(marks.of_ngrok(workspace.secrets / marks.NGROK_FILE)) == [])


def test_an_app_ends_every_kind_of_agent_that_was_left_even_with_links_off(
    program: Program, workspace: Workspace
) -> None:
    killed_app(workspace, program, guarded=False)
    (workspace.secrets / marks.GRADIO_FILE).write_text("a-name-that-nobody-guesses")
    others = [marks.of_cloudflared(workspace.secrets), marks.of_gradio("a-name-that-nobody-guesses")]
    started = [subprocess.Popen([sys.executable, "-c", AGENT, *each]) for each in others]
    known = marks.of_workspace(workspace.secrets)
    until(lambda: sum(len(agents.find(each)) for each in known) == 3)
    rules = Rules(
        may_open=lambda: None, allow_host=lambda link: None, forget_host=lambda link: None, tunnels=list,
        budget=Budget(lambda: "", lambda text: None), share="off",
    )  # fmt: skip
    sharing = Sharing(workspace, "http://127.0.0.1:7861", rules)
    sharing.start(open_now=False)
    until(lambda: not any(agents.find(each) for each in known))
    sharing.stop()
    for process in started:
        process.wait()


def test_the_agent_of_another_running_app_is_left_alone(workspace: Workspace) -> None:
    known = marks.of_cloudflared(workspace.secrets)
    with subprocess.Popen([sys.executable, "-c", AGENT, *known]) as agent:
        until(lambda: bool(agents.find(known)))
        assert end_left(workspace.secrets, before_s=psutil.Process(agent.pid).create_time() - 1) == 0
        assert agent.poll() is None
        assert end_left(workspace.secrets) == 1
