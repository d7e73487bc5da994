"""Jobs in the caller's own process: same events, same ends, no second process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from masuka.jobs import queue
from masuka.jobs.executors.inline import run_inline
from masuka.jobs.files import log_tail
from masuka.store import datasets, pictures
from masuka.store import settings as preferences
from masuka.store.jobs import Job
from tests.worker.desk import Desk, workers_of
from tests.worker.jobs_for_tests import KINDS


def run(desk: Desk, job: Job, **options: Any) -> Job:
    return run_inline(desk.store, desk.settings, job.id, kinds=KINDS, **options)


def test_a_job_runs_here_and_tells_as_it_goes(desk: Desk) -> None:
    seen: list[dict[str, Any]] = []
    done = run(desk, desk.add("count", total=5), on_event=seen.append)
    assert done.state == "done"
    assert done.result == {"counted": 5, "pid": os.getpid()}
    assert [event["type"] for event in seen][:2] == ["started", "stage"]
    assert seen[-1]["type"] == "done"
    assert desk.states(done) == ["queued", "running", "done"]
    assert desk.left(done) == []
    assert workers_of(desk.settings) == []


def test_a_stage_shows_at_once_although_nothing_follows_it(desk: Desk) -> None:
    job = desk.add("count", total=5)
    shown: list[str] = []

    def look(event: dict[str, Any]) -> None:
        shown.append(desk.get(job).stage)

    run(desk, job, on_event=look)
    assert shown[0] == ""
    assert shown[2] == "Counting", "the event after the stage finds it written"


@pytest.mark.parametrize(
    ("kind", "words"),
    [("refuse", "There are 0 pictures."), ("raise_bug", "Something went wrong"), ("run_out_of_gpu", "GPU")],
)
def test_a_failure_is_told_and_leaves_nothing(desk: Desk, kind: str, words: str) -> None:
    output = desk.settings.workspace.adapters / "unfinished"
    failed = run(desk, desk.add(kind, output=str(output)))
    assert failed.state == "failed"
    assert failed.error is not None
    assert words in failed.error["message"]
    assert failed.error.get("reference", "") in log_tail(desk.folder(failed))
    assert not output.exists()
    assert desk.left(failed) == []


def test_a_cancel_from_another_thread_is_heeded(desk: Desk) -> None:
    job = desk.add("count", total=100_000, seconds=0.01)

    def cancel_soon(event: dict[str, Any]) -> None:
        if event["type"] == "progress" and event["step"] > 1:
            queue.ask_cancel(desk.store, actor=desk.actor, job_id=job.id)

    assert run(desk, job, on_event=cancel_soon).state == "cancelled"


def test_an_interrupt_from_the_keyboard_cancels_and_goes_on_up(desk: Desk) -> None:
    job = desk.add("count", total=10)

    def press(event: dict[str, Any]) -> None:
        if event["type"] == "stage":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(desk, job, on_event=press)
    assert desk.get(job).state == "cancelled"
    assert desk.left(job) == []


def test_a_training_pauses_and_goes_on(desk: Desk) -> None:
    job = desk.training(total=100, seconds=0.02, every=1000)

    def pause(event: dict[str, Any]) -> None:
        if event["type"] == "progress" and event["step"] > 3:
            queue.ask_pause(desk.store, actor=desk.actor, job_id=job.id, kinds=KINDS)

    paused = run(desk, job, on_event=pause)
    assert paused.state == "paused"
    assert run(desk, job).state == "paused", "a paused job is not run"
    queue.resume(desk.store, actor=desk.actor, job_id=job.id)
    assert run(desk, job).state == "done"
    steps = (Path(job.params["run_folder"]) / "steps.txt").read_text().split()
    assert [int(step) for step in steps] == list(range(1, 101))


def test_what_cannot_be_recorded_stops_the_job(desk: Desk) -> None:
    folder = desk.settings.workspace.datasets / "gone"
    job = desk.add("import", dataset_id=999, folder=str(folder), total=2000, seconds=0.005)
    failed = run(desk, job)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["type"] == "NotFound"
    assert len(list(folder.iterdir())) < 2000


def test_pictures_are_added(desk: Desk) -> None:
    dataset = datasets.add_dataset(desk.store, actor=desk.actor, name="Robots", trigger_word="rbt")
    folder = desk.settings.workspace.datasets / "1"
    job = run(desk, desk.add("import", dataset_id=dataset.id, folder=str(folder), total=4))
    assert job.result == {"added": 4}
    assert len(pictures.list_pictures(desk.store, actor=desk.actor, dataset_id=dataset.id)) == 4


def test_a_stored_key_is_lent_for_the_job_only(desk: Desk) -> None:
    preferences.set_setting(
        desk.store, actor=desk.actor, key="HF_TOKEN", value="hf_canary123456", encrypted=True
    )
    job = run(desk, desk.add("who"))
    assert job.result is not None
    assert job.result["token"] == "hf_canary123456"
    assert "HF_TOKEN" not in os.environ


@pytest.mark.parametrize("place", ["the page", "a .env file"])
def test_a_key_reaches_the_job_and_no_log(desk: Desk, place: str) -> None:
    key = f"canary without a shape from {place}"
    if place == "the page":
        preferences.set_setting(desk.store, actor=desk.actor, key="HF_TOKEN", value=key, encrypted=True)
    else:
        desk.settings = replace(desk.settings, secrets={"HF_TOKEN": key})
    who = run(desk, desk.add("who"))
    assert who.result is not None
    assert who.result["token"] == key
    told = run(desk, desk.add("tell_key"))
    log = (desk.folder(told) / "log.txt").read_text()
    assert "asking with [secret]" in log
    assert key not in log
    assert "HF_TOKEN" not in os.environ


def test_the_app_runs_what_is_asked_for_beside_it(desk: Desk) -> None:
    desk.supervise()
    training = desk.training(total=60, seconds=0.02)
    desk.wait(training, "running")
    drawn = run(desk, desk.add("draw", total=2))
    assert drawn.result is not None
    assert drawn.result["pid"] != os.getpid()
    assert drawn.started_at is not None
    assert drawn.started_at >= str(desk.wait(training).finished_at), "never two jobs on one device"


def test_a_full_lane_is_waited_for(desk: Desk) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        started_s = psutil.Process(other.pid).create_time()
        claimed = queue.claim(desk.store, job_id=desk.training().id, pid=other.pid, pid_started=started_s)
        assert claimed is not None
        job = desk.add("draw")
        assert run(desk, job, timeout_s=0.3).state == "queued"
        assert run(desk, desk.add("count")).state == "done", "another lane is free"
        other.kill()
    assert run(desk, job).state == "done"


def test_a_job_that_somebody_else_runs_is_waited_for_so_long(desk: Desk) -> None:
    other = psutil.Process()
    job = desk.add("count")
    queue.claim(desk.store, job_id=job.id, pid=other.pid, pid_started=other.create_time())
    assert run(desk, job, timeout_s=0.3).state == "running"


def test_a_job_that_a_worker_runs_is_waited_for(desk: Desk) -> None:
    desk.supervise()
    job = desk.add("count", total=20, seconds=0.02)
    desk.wait(job, "running")
    done = run(desk, job)
    assert done.state == "done"
    assert done.result is not None
    assert done.result["pid"] != os.getpid()


def test_two_cells_run_a_job_once(desk: Desk) -> None:
    job = desk.add("count", total=20, seconds=0.02)
    ends: list[Job] = []
    cells = [threading.Thread(target=lambda: ends.append(run(desk, job))) for _ in range(3)]
    for cell in cells:
        cell.start()
    for cell in cells:
        cell.join()
    assert [end.state for end in ends] == ["done"] * 3
    assert desk.states(job) == ["queued", "running", "done"]


def test_an_unknown_kind_fails_with_a_sentence(desk: Desk) -> None:
    job = desk.add("count")
    failed = run_inline(desk.store, desk.settings, job.id, kinds={})
    assert failed.error is not None
    assert "knows no job" in failed.error["message"]
