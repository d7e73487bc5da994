"""The real pyngrok with an agent that behaves in every way one may behave."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from masuka import logs
from masuka.config import Settings, Workspace
from masuka.errors import AccessDenied, Conflict, ExternalError, RemoteUnavailable
from masuka.hosting.tunnels import agents, ngrok_program
from masuka.hosting.tunnels.ngrok import WORDS, Ngrok
from masuka.hosting.ways import LOCK_NAME
from masuka.studio import Studio
from tests.tunnel_stand_in import Program

TOKEN = "2canary7tokenForNgrokAgents_4Qx9LmN2pRs5TuVwXyZ1"
# pyngrok (9.1) leaves the pipe of an agent that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
Make = Callable[..., Ngrok]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "agent")


@pytest.fixture
def make(workspace: Workspace, program: Program) -> Iterator[Make]:
    made: list[Ngrok] = []

    def new(**more: object) -> Ngrok:
        given = {"token": TOKEN, "folder": workspace.secrets, "program": program.path, "deadline_s": 20.0, **more}
        made.append(Ngrok(**given))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for tunnel in made:
        tunnel.close()
    agents.end(marks(workspace))
    assert agents.find(marks(workspace)) == []


def marks(workspace: Workspace) -> tuple[str, ...]:
    return ("start", "--none", "--config", str(workspace.secrets / "ngrok.yml"))


def test_a_link_leads_to_the_apps_own_port(make: Make, program: Program, workspace: Workspace) -> None:
    tunnel = make()
    link = tunnel.open("127.0.0.1", 7861)
    assert (link.url, link.provider) == ("https://calm-otter.ngrok-free.example", "ngrok")
    assert link.host == "calm-otter.ngrok-free.example"
    asked = program.posted[0]
    assert asked["upstream"] == {"url": "http://127.0.0.1:7861"}
    assert "url" not in asked and "basic_auth" not in asked
    assert tunnel.alive()
    tunnel.close()
    assert not tunnel.alive() and agents.find(marks(workspace)) == []


def test_a_domain_of_ones_own_is_asked_for(make: Make, program: Program) -> None:
    assert make(domain="mira.ngrok.app").open("127.0.0.1", 7861).url == "https://mira.ngrok.app"
    assert program.posted[0]["url"] == "https://mira.ngrok.app"


def test_the_authtoken_is_in_no_command_line_and_no_readable_file(
    make: Make, program: Program, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the environment has the token, pyngrok puts it into the command line if it may.
    monkeypatch.setenv("NGROK_AUTHTOKEN", TOKEN)
    tunnel = make()
    tunnel.open("127.0.0.1", 7861)
    everywhere = subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True).stdout
    assert str(program.path) in everywhere and TOKEN not in everywhere
    assert all(TOKEN not in part for call in program.calls for part in call)
    file = workspace.secrets / "ngrok.yml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert TOKEN in file.read_text()
    tunnel.close()
    assert not file.exists()


def test_the_agent_keeps_no_requests_and_is_nobody_elses_to_steer(make: Make, program: Program) -> None:
    make().open("127.0.0.1", 7861)
    assert program.posted[0]["settings"] == {
        "version": "3",
        "agent": {"authtoken": TOKEN, "inspect_db_size": -1, "remote_management": False, "update_check": False},
    }


def test_the_agent_has_a_process_group_of_its_own(make: Make, program: Program) -> None:
    make().open("127.0.0.1", 7861)
    assert program.posted[0]["group"] == program.posted[0]["pid"] != os.getpgrp()


@pytest.mark.parametrize("code", [105, 107, 108, 4018, 334, 725, 727])
def test_each_refusal_of_ngrok_is_a_plain_sentence(
    code: int, make: Make, program: Program, workspace: Workspace
) -> None:
    program.mode = str(code)
    kind, message, hint = WORDS[code]
    with pytest.raises(kind) as refused:
        make().open("127.0.0.1", 7861)
    assert refused.value.message == message
    assert refused.value.hint == f"{hint} (ERR_NGROK_{code})"
    assert TOKEN not in str(refused.value)
    assert agents.find(marks(workspace)) == [] and not (workspace.secrets / "ngrok.yml").exists()


def test_a_number_that_nobody_knows_is_named_with_its_page(make: Make, program: Program) -> None:
    program.mode = "999"
    with pytest.raises(RemoteUnavailable, match=r"ERR_NGROK_999.*err_ngrok_999"):
        make().open("127.0.0.1", 7861)


@pytest.mark.parametrize("mode", ["garbage", "wrong-json", "no-url", "http", "not-found"])
def test_an_agent_that_makes_no_sense_is_one_sentence(
    mode: str, make: Make, program: Program, workspace: Workspace
) -> None:
    program.mode = mode
    with pytest.raises(RemoteUnavailable) as refused:
        make().open("127.0.0.1", 7861)
    assert refused.value.hint
    assert agents.find(marks(workspace)) == []


@pytest.mark.parametrize("mode", ["silent", "babble", "stubborn"])
def test_an_agent_that_never_comes_up_is_ended_at_the_deadline(
    mode: str, make: Make, program: Program, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "TERM_S", 0.3)
    program.mode = mode
    with pytest.raises(RemoteUnavailable, match=r"did not answer within 1 seconds|did not open"):
        make(deadline_s=1.0).open("127.0.0.1", 7861)
    assert agents.find(marks(workspace)) == []
    program.mode = "ok"
    assert make().open("127.0.0.1", 7861).url.startswith("https://")


def test_an_agent_that_dies_is_noticed(make: Make, program: Program) -> None:
    program.mode = "dies"
    tunnel = make()
    tunnel.open("127.0.0.1", 7861)
    until = time.monotonic() + 10
    while tunnel.alive() and time.monotonic() < until:
        time.sleep(0.05)
    assert not tunnel.alive()


@pytest.mark.parametrize(("mode", "says"), [("old", "too old: 2.3.41"), ("broken", "does not run")])
def test_a_program_that_is_of_no_use_is_never_started(mode: str, says: str, make: Make, program: Program) -> None:
    program.mode = mode
    with pytest.raises(RemoteUnavailable, match=says):
        make().open("127.0.0.1", 7861)
    assert program.starts == []


def test_a_program_that_is_not_there_is_said(make: Make, tmp_path: Path) -> None:
    with pytest.raises(RemoteUnavailable, match="no ngrok program at"):
        make(program=tmp_path / "nowhere" / "ngrok").open("127.0.0.1", 7861)


def test_an_authtoken_is_proved_without_opening_anything(
    settings: Settings, program: Program, workspace: Workspace
) -> None:
    with Studio.open(replace(settings, ngrok_program=program.path)) as studio:
        studio.preferences.set_key("NGROK_AUTHTOKEN", TOKEN)
        assert studio.preferences.test_key("NGROK_AUTHTOKEN") == "ngrok accepts the key."
        program.mode = "107"
        with pytest.raises(AccessDenied, match="accepts this authtoken no longer"):
            studio.preferences.test_key("NGROK_AUTHTOKEN")
        assert len(program.starts) == 2 and program.posted == []
        with FileLock(workspace.secrets / LOCK_NAME), pytest.raises(Conflict, match="A link is open"):
            studio.preferences.test_key("NGROK_AUTHTOKEN")
    assert agents.find(("start", "--none", "--config", str(workspace.secrets / "ngrok-test.yml"))) == []
    assert not (workspace.secrets / "ngrok-test.yml").exists()


def test_opening_again_leaves_exactly_one_agent(make: Make, program: Program, workspace: Workspace) -> None:
    tunnel = make()
    tunnel.open("127.0.0.1", 7861)
    first = agents.find(marks(workspace))[0].pid
    tunnel.open("127.0.0.1", 7861)
    running = agents.find(marks(workspace))
    assert len(running) == 1 and running[0].pid != first


def test_the_agent_of_a_killed_app_is_ended_by_the_next(make: Make, program: Program, workspace: Workspace) -> None:
    code = (
        "import sys, time; from pathlib import Path; from masuka.hosting.tunnels.ngrok import Ngrok\n"
        f"t = Ngrok(token={TOKEN!r}, folder=Path({str(workspace.secrets)!r}), program=Path({str(program.path)!r}))\n"
        "t.open('127.0.0.1', 7861); print('open', flush=True); time.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) as app:
        assert app.stdout is not None and app.stdout.readline() == "open\n"
        app.send_signal(signal.SIGKILL)
        app.wait()
    left = agents.find(marks(workspace))
    assert len(left) == 1, "the agent outlives its app; else this test shows nothing"
    make().open("127.0.0.1", 7861)
    assert not psutil.pid_exists(left[0].pid) or left[0].status() == psutil.STATUS_ZOMBIE
    assert len(agents.find(marks(workspace))) == 1


def test_somebody_elses_program_is_left_alone(make: Make, workspace: Workspace) -> None:
    file = str(workspace.secrets / "ngrok.yml")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", file]) as editor:
        make().open("127.0.0.1", 7861)
        assert editor.poll() is None
        editor.kill()


def test_what_an_agent_says_never_shows_the_token_in_the_log(
    make: Make, program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    program.mode = "107"
    with caplog.at_level("DEBUG"), pytest.raises(AccessDenied):
        make().open("127.0.0.1", 7861)
    shown = [logs.SafeFormatter().format(record) for record in caplog.records]
    assert any("ERR_NGROK_107" in line for line in shown)
    assert not any(TOKEN in line for line in shown)


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_the_program_is_fetched_again_and_appears_whole(
    kind: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx
    from pyngrok import conf

    target = tmp_path / "installed" / "ngrok"
    monkeypatch.setattr(conf, "DEFAULT_NGROK_PATH", str(target))
    monkeypatch.setattr(ngrok_program, "WAIT_S", 0.0)
    tries: list[str] = []

    def fetch(source: str) -> bytes:
        tries.append(source)
        if len(tries) < 3:
            raise httpx.ConnectError("no network")
        return packed(program.path, kind)

    # The fake program looks for its mode beside itself, whatever it is called there.
    target.parent.mkdir()
    (target.parent / "mode").write_text("ok")
    assert ngrok_program.program_at(None, fetch=fetch) == target
    assert len(tries) == 3 and tries[0].startswith("https://")
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert [f.name for f in target.parent.iterdir() if f.name.endswith(".part")] == []
    assert ngrok_program.program_at(None, fetch=fetch) == target and len(tries) == 3


def test_a_program_that_never_arrives_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from pyngrok import conf

    from masuka.errors import DownloadFailed

    monkeypatch.setattr(conf, "DEFAULT_NGROK_PATH", str(tmp_path / "ngrok"))
    monkeypatch.setattr(ngrok_program, "WAIT_S", 0.0)

    def offline(source: str) -> bytes:
        raise httpx.ConnectError("no network")

    def damaged(source: str) -> bytes:
        return b"\x1f\x8b not an archive"

    for fetch, says in ((offline, "could not be downloaded"), (damaged, "arrived damaged")):
        with pytest.raises(DownloadFailed, match=says):
            ngrok_program.program_at(None, fetch=fetch)
    assert list(tmp_path.glob("ngrok*")) == []


def packed(file: Path, kind: str) -> bytes:
    import io
    import tarfile
    import zipfile

    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.write(file, "ngrok")
    else:
        with tarfile.open(fileobj=out, mode="w:gz") as archive_tar:
            archive_tar.add(file, "ngrok")
    return out.getvalue()


def test_every_sentence_says_what_to_do() -> None:
    for kind, message, hint in WORDS.values():
        assert issubclass(kind, ExternalError)
        assert message.endswith(".") and hint.endswith((".", "keys.", "Keys."))
