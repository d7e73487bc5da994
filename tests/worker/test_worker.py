"""The worker process by itself: its line in, its events out, its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from masuka.config import Settings
from masuka.jobs import failures
from masuka.jobs.executors.processes import MODULE
from masuka.jobs.files import AttemptFiles
from masuka.jobs.worker import Assignment
from tests.worker.jobs_for_tests import KINDS

ROOT = Path(__file__).parent.parent.parent


def assignment(files: AttemptFiles, kind: str, **params: Any) -> Assignment:
    return Assignment(
        job_id=1, fence=files.fence, kind=kind, run=KINDS[kind].run, params=params, events=str(files.events),
        scratch=str(files.scratch), stop=str(files.stop), log=str(files.log),
    )  # fmt: skip


def worker() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", MODULE], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )


def types_in(files: AttemptFiles) -> list[str]:
    return [json.loads(line)["type"] for line in files.events.read_bytes().splitlines()]


@pytest.fixture
def attempts(settings: Settings) -> list[AttemptFiles]:
    return [AttemptFiles(settings.workspace.jobs / str(number), 1).prepare() for number in (1, 2)]


def test_a_line_parses_back_and_hides_its_secrets(attempts: list[AttemptFiles]) -> None:
    line = assignment(attempts[0], "count", prompt="a\nb\u2028").line()
    assert line.count(b"\n") == 1
    assert Assignment.parse(line).params == {"prompt": "a\nb\u2028"}
    secret = Assignment(**{**json.loads(line), "secrets": {"HF_TOKEN": "hf_canary"}})
    assert "canary" not in repr(secret)


def test_it_works_line_by_line_and_leaves_at_the_end(attempts: list[AttemptFiles]) -> None:
    process = worker()
    lines = [assignment(attempts[0], "raise_bug").line(), assignment(attempts[1], "count", total=2).line()]
    process.communicate(b"".join(lines), timeout=240)
    assert process.returncode == 0
    assert types_in(attempts[0]) == ["started", "failed"]
    assert types_in(attempts[1])[-1] == "done"
    assert "ZeroDivisionError" in attempts[0].log.read_text()
    assert "ZeroDivisionError" not in attempts[1].log.read_text()


def test_after_memory_ran_out_it_takes_no_other_job(attempts: list[AttemptFiles]) -> None:
    process = worker()
    lines = [assignment(attempts[0], "run_out_of_gpu").line(), assignment(attempts[1], "count").line()]
    process.communicate(b"".join(lines), timeout=240)
    assert types_in(attempts[0]) == ["started", "failed"]
    assert json.loads(attempts[0].events.read_bytes().splitlines()[-1])["leaving"]
    assert not attempts[1].events.exists()


def test_on_a_full_disk_the_exit_code_speaks(attempts: list[AttemptFiles]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    process = worker()
    full = Assignment(**{**json.loads(assignment(attempts[0], "count").line()), "events": "/dev/full"})
    process.communicate(full.line(), timeout=240)
    assert process.returncode == failures.EXIT_CANNOT_WRITE
    assert "No space left" in attempts[0].log.read_text()


def test_sigterm_ends_an_idle_worker_at_once(attempts: list[AttemptFiles]) -> None:
    process = worker()
    assert process.stdin is not None
    process.stdin.write(assignment(attempts[0], "count").line())
    process.stdin.flush()
    while not attempts[0].events.exists() or types_in(attempts[0])[-1] != "done":
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=240)
    assert process.returncode == 0


def test_sigterm_from_outside_lets_a_job_go_on_later(attempts: list[AttemptFiles], tmp_path: Path) -> None:
    process = worker()
    assert process.stdin is not None
    process.stdin.write(assignment(attempts[0], "hang_in_python", tidied=str(tmp_path / "tidied")).line())
    process.stdin.flush()
    while not attempts[0].events.exists() or "stage" not in types_in(attempts[0]):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=240)
    last = json.loads(attempts[0].events.read_bytes().splitlines()[-1])
    assert (last["type"], last["why"]) == ("stopped", "pause")
    assert (tmp_path / "tidied").exists()
