"""The two files by which the app, the page, the notebook and the command line agree."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from masuka.config import Settings, Workspace
from masuka.errors import Conflict, InvalidInput
from masuka.hosting import addresses, doctor
from masuka.hosting.addresses import Addresses


def test_nothing_is_said_while_no_app_runs(workspace: Workspace) -> None:
    assert addresses.read(workspace) == Addresses()
    with pytest.raises(Conflict, match="not running"):
        addresses.ask(workspace, "open")


def test_what_is_written_is_read_by_its_owner_alone(workspace: Workspace) -> None:
    addresses.write(workspace, Addresses(state="open", address="http://127.0.0.1:1/", public_url="https://x.example"))
    found = addresses.read(workspace)
    assert (found.state, found.public_url, found.pid) == ("open", "https://x.example", psutil.Process().pid)
    assert stat.S_IMODE(workspace.address.stat().st_mode) == 0o600
    assert workspace.address.is_relative_to(workspace.secrets)
    addresses.forget(workspace)
    assert addresses.read(workspace) == Addresses()


def test_what_a_dead_app_left_is_not_believed(workspace: Workspace) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    addresses.write(workspace, Addresses(address="http://127.0.0.1:1/"))
    told = json.loads(workspace.address.read_text())
    workspace.address.write_text(json.dumps({**told, "pid": gone.pid}))
    assert addresses.read(workspace) == Addresses()
    # The number of a dead process may come again as another one's.
    workspace.address.write_text(json.dumps({**told, "pid": psutil.Process().ppid(), "pid_started": 5.0}))
    assert addresses.read(workspace) == Addresses()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "open", "more": 1}'])
def test_a_file_that_makes_no_sense_says_nothing(text: str, workspace: Workspace) -> None:
    workspace.address.write_text(text)
    assert addresses.read(workspace) == Addresses()


def test_a_wish_is_found_once_and_the_newest_counts(workspace: Workspace) -> None:
    addresses.write(workspace, Addresses(address="http://127.0.0.1:1/"))
    addresses.ask(workspace, "open", provider="ngrok")
    wish = addresses.ask(workspace, "close")
    assert addresses.take_wish(workspace) == wish
    assert addresses.take_wish(workspace) is None


@pytest.mark.parametrize("text", ["{", '{"want": "shell"}', '{"want": "open", "provider": "../../x"}'])
def test_a_strange_wish_is_no_wish(text: str, workspace: Workspace) -> None:
    (workspace.secrets / "share.json").write_text(text)
    assert addresses.take_wish(workspace) is None
    assert not (workspace.secrets / "share.json").exists()


def test_only_known_ways_can_be_asked_for(workspace: Workspace) -> None:
    addresses.write(workspace, Addresses(address="http://127.0.0.1:1/"))
    with pytest.raises(InvalidInput, match="no way to open"):
        addresses.ask(workspace, "open", provider="localtunnel")


def test_an_answer_is_waited_for(workspace: Workspace) -> None:
    addresses.write(workspace, Addresses(address="http://127.0.0.1:1/"))
    wish = addresses.ask(workspace, "open")
    assert addresses.answer_to(workspace, wish, timeout_s=0).answered == ""
    addresses.write(workspace, Addresses(state="open", address="http://127.0.0.1:1/", answered=wish.id))
    assert addresses.answer_to(workspace, wish, timeout_s=5).state == "open"


def finding(settings: Settings) -> doctor.Finding:
    return next(f for f in doctor.examine(settings) if f.name == "link")


def test_the_doctor_tells_of_the_link(settings: Settings) -> None:
    assert finding(settings).text == "No link for collaborators is open"
    addresses.write(settings.workspace, Addresses(state="open", address="http://x/", public_url="https://x.example"))
    assert finding(settings).text == "Open for collaborators: https://x.example"
    failed = Addresses(state="failed", address="http://x/", message="ngrok says no.", hint="Copy it again.")
    addresses.write(settings.workspace, failed)
    assert (finding(settings).state, finding(settings).remedy) == ("note", "Copy it again.")
    assert finding(replace(settings, share="off")).text == "Links for collaborators are switched off"
    assert finding(replace(settings, share="cloudflared")).state == "note"
    addresses.forget(settings.workspace)
    assert "CLOUDFLARED_HOST" in finding(replace(settings, share="cloudflared")).remedy
