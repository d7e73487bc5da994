"""Jobs that borrow a GPU for the length of one request, through a stand-in of `spaces`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from masuka.config import Settings, child_environment
from masuka.errors import NoAccelerator, RemoteUnavailable
from masuka.hosting import zero
from masuka.jobs import queue
from masuka.jobs.executors.lent import Lend, run_lent
from masuka.jobs.kinds import CAPTIONING_S, KINDS, Kind, where_lent
from masuka.jobs.recovery import recover
from masuka.requests import Actor
from masuka.store import users
from masuka.store.jobs import Job
from masuka.studio import Studio
from tests.worker import desk as desks
from tests.worker.desk import Desk
from tests.worker.jobs_for_tests import HERE
from tests.worker.jobs_for_tests import KINDS as TESTED

STAND_IN = Path(__file__).parents[1] / "zero_gpu"
LENT: Mapping[str, Kind] = {
    **TESTED,
    "draw": Kind("draw", "gpu", f"{HERE}:count", "Counting", lent_s=80),
    "caption": Kind("caption", "gpu", f"{HERE}:count", "Counting", lent_s=60),
    "lent_training": Kind("lent_training", "gpu", f"{HERE}:train", "Counting", warm=False, resumes=True, lent_s=80),
    "lent_bug": Kind("lent_bug", "gpu", f"{HERE}:raise_bug", "Raising", lent_s=80),
}
"""Kinds that borrow, as drawing and captions do; the flag is all that they need."""

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stand-in's file: its mode, then what it was asked."""
    file = tmp_path / "plan.jsonl"
    file.write_text("ok\n")
    monkeypatch.setenv("MASUKA_ZERO_GPU_PLAN", str(file))
    monkeypatch.syspath_prepend(str(STAND_IN))
    yield file
    sys.modules.pop("spaces", None)


@pytest.fixture
def lend(plan: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Lend:
    monkeypatch.setattr(zero, "KINDS", {})  # the code of real jobs is not needed here
    return zero.lender(settings)


@pytest.fixture
def lent_desk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(desks, "KINDS", LENT)
    return desk


def asked(plan: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in plan.read_text().splitlines()[1:]]


def run(desk: Desk, job: Job, lend: Lend) -> Job:
    found = run_lent(desk.store, desk.settings, job.id, lend, kinds=LENT)
    assert found is not None
    return found


@pytest.mark.parametrize(("kind", "seconds"), [("draw", 80), ("caption", 60)])
def test_a_job_runs_in_the_process_that_borrows(lent_desk: Desk, lend: Lend, plan: Path, kind: str, seconds: int) -> None:
    done = run(lent_desk, lent_desk.add(kind, total=5), lend)
    assert done.state == "done" and done.result is not None
    assert done.result["counted"] == 5 and done.result["pid"] != os.getpid()
    assert lent_desk.states(done) == ["queued", "running", "done"]
    assert lent_desk.left(done) == []
    (one,) = asked(plan)
    assert (one["seconds"], one["pid"]) == (seconds, os.getpid())


def test_a_supervisor_leaves_it_to_the_event_and_follows_it(lent_desk: Desk, lend: Lend) -> None:
    lent_desk.supervise(lent=True)
    job = lent_desk.add("draw", total=40, seconds=0.05)
    other = lent_desk.add("count")
    assert lent_desk.wait(other).state == "done", "other jobs go on"
    assert lent_desk.get(job).state == "queued"
    thread = threading.Thread(target=run, args=(lent_desk, job, lend))
    thread.start()
    seen = lent_desk.until(job, lambda now: now.step > 2)
    assert (seen.state, seen.pid) == ("running", os.getpid())
    thread.join()
    assert lent_desk.get(job).state == "done"


def test_a_cancel_reaches_the_borrowing_process(lent_desk: Desk, lend: Lend) -> None:
    lent_desk.supervise(lent=True)
    job = lent_desk.add("draw", total=100_000, seconds=0.01)
    thread = threading.Thread(target=run, args=(lent_desk, job, lend))
    thread.start()
    lent_desk.until(job, lambda now: now.step > 2)
    assert lent_desk.cancel(job).state == "cancelled"
    thread.join()
    assert lent_desk.get(job).state == "cancelled"


@pytest.mark.parametrize(
    ("mode", "words"),
    [("quota", "ZeroGPU lends no more time now. You have exceeded"), ("illegal", "does not lend its GPU for so long"),
     ("busy", "ZeroGPU lent no GPU. No GPU was available after 60s. Retry later")],
)  # fmt: skip
def test_a_refusal_is_the_jobs_end_in_words(lent_desk: Desk, lend: Lend, plan: Path, mode: str, words: str) -> None:
    plan.write_text(f"{mode}\n")
    failed = run(lent_desk, lent_desk.add("draw"), lend)
    assert failed.state == "failed" and failed.error is not None
    assert words in failed.error["message"] and failed.error["hint"]
    assert lent_desk.left(failed) == []


def test_a_gpu_that_is_taken_back_is_said(lent_desk: Desk, lend: Lend, plan: Path) -> None:
    plan.write_text("abort\n")
    failed = run(lent_desk, lent_desk.add("draw", total=100_000, seconds=0.01), lend)
    assert failed.state == "failed" and failed.error is not None
    assert "took its GPU back" in failed.error["message"]


def test_a_bug_in_the_job_keeps_its_reference(lent_desk: Desk, lend: Lend) -> None:
    failed = run(lent_desk, lent_desk.add("lent_bug"), lend)
    assert failed.state == "failed" and failed.error is not None and failed.error["reference"]


def test_what_was_run_already_is_not_run_again(lent_desk: Desk, lend: Lend, plan: Path) -> None:
    job = lent_desk.add("draw")
    run(lent_desk, job, lend)
    assert run_lent(lent_desk.store, lent_desk.settings, job.id, lend, kinds=LENT) is None
    assert len(asked(plan)) == 1


@pytest.mark.parametrize(
    ("title", "message", "kind"),
    [("ZeroGPU pending credits exceeded", "too many", NoAccelerator), ("ZeroGPU client error", "Expired", RemoteUnavailable),
     ("ZeroGPU worker error", "PicklingError", RemoteUnavailable), ("", "anything", RemoteUnavailable)],
)  # fmt: skip
def test_every_error_of_the_lender_becomes_a_sentence(title: str, message: str, kind: type[Exception]) -> None:
    class Told(Exception):
        pass

    error = Told(message)
    error.title, error.message = title, message  # type: ignore[attr-defined]
    found = zero.told(error)
    assert type(found) is kind and found.hint and message in found.message


def test_a_person_runs_only_what_is_theirs(settings: Settings) -> None:
    lines: list[bytes] = []
    lend: Callable[[bytes, int], None] = lambda line, seconds: lines.append(line)  # noqa: E731
    with Studio.open(settings) as opened:
        studio = Studio(replace(opened._context, lend=lend))
        second = users.add_user(studio.store, actor=studio.actor, username="second", role="editor")
        theirs = studio.acting_as(Actor(user_id=second.id, role="editor", name="second"))
        mine = [studio.images.draw(prompt="a red robot"), studio.images.draw(prompt="a blue robot")]
        other = theirs.images.draw(prompt="a green robot")
        opened.jobs.run_lent()
        assert lines == [], "nothing is lent on other hosts"
        studio.jobs.run_lent()
        assert [json.loads(line)["job_id"] for line in lines] == [job.id for job in mine]
        assert {json.loads(line)["params"]["device"] for line in lines} == {"auto"}
        assert theirs.jobs.get(other.id).state == "queued"


def test_a_job_that_goes_on_waits_for_its_person_where_a_gpu_is_lent(lent_desk: Desk, lend: Lend, plan: Path) -> None:
    """The time is that person's, and nothing else could run it."""
    supervisor = lent_desk.supervise(lent=True)
    plan.write_text("abort when told\n")
    job = lent_desk.training("lent_training", total=100, seconds=0.05)
    thread = threading.Thread(target=run, args=(lent_desk, job, lend))
    thread.start()
    lent_desk.until(job, lambda now: now.step > 5)
    plan.with_name("take-it-back").touch()
    thread.join()
    broken_off = lent_desk.get(job)
    assert (broken_off.state, broken_off.error) == ("interrupted", None)
    assert "took its GPU back" in broken_off.message
    supervisor.stop()
    recover(lent_desk.store, lent_desk.settings, kinds=where_lent(LENT))
    assert lent_desk.get(job).state == "interrupted"
    plan.write_text("ok\n")
    assert queue.resume(lent_desk.store, actor=lent_desk.actor, job_id=job.id)
    done = run(lent_desk, job, lend)
    assert done.state == "done" and done.attempt == 2
    assert lent_desk.states(job) == ["queued", "running", "interrupted", "queued", "running", "done"]


@pytest.mark.parametrize("kind", ["draw", "lent_training"])
def test_an_app_that_died_in_the_event_leaves_its_job_to_a_click(lent_desk: Desk, kind: str) -> None:
    job = lent_desk.training(kind, total=5, seconds=0.0)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert queue.claim(lent_desk.store, job_id=job.id, pid=gone.pid, pid_started=1.0) is not None
    lent_desk.supervise(lent=True)
    assert lent_desk.wait(job, "interrupted").message == "Interrupted when MASUKA stopped."


@pytest.mark.slow
def test_pocket_captions_on_a_lent_gpu_and_the_rest_needs_none(plan: Path, settings: Settings) -> None:
    """In a process of its own, as an app on ZeroGPU loads torch before it forks."""
    answer = subprocess.run(
        [sys.executable, "-m", "tests.worker.lent_captions", str(settings.workspace.root)],
        cwd=Path(__file__).parents[2], env=child_environment({"PYTHONPATH": str(STAND_IN), "OMP_NUM_THREADS": "1"}),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-3000:]
    told = json.loads(answer.stdout.splitlines()[-1])
    assert told["samples"] == "done", "no GPU is needed for these"
    assert told["before"] == "queued", "no worker may touch it"
    assert told["after"] == "done" and told["result"] == {"captioned": 4, "failed": 0, "skipped": 0}
    assert told["from"] == ["pocket"] * 4
    assert [one["seconds"] for one in asked(plan)] == [CAPTIONING_S]


def test_the_kinds_that_borrow() -> None:
    assert {kind.name for kind in KINDS.values() if kind.lent_s} == {"draw_images", "caption_pictures"}
    for kind in KINDS.values():
        assert not kind.lent_s or kind.lane == "gpu", "where no GPU is needed, none is borrowed"
        assert kind.by_itself
        assert where_lent(KINDS)[kind.name].by_itself == (not kind.lent_s)
