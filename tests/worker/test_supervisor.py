"""The supervisor with real workers: progress, ends and their sentences, cancel, pause, adoption."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from masuka.config import Settings
from masuka.errors import Conflict
from masuka.jobs import endings, queue
from masuka.jobs.files import log_tail
from masuka.requests.actor import Actor
from masuka.store import datasets, pictures, users
from masuka.store import jobs as rows
from masuka.store import settings as preferences
from tests.worker.desk import PATIENCE_S, Desk, until_true, wait_until_no_worker, workers_of
from tests.worker.jobs_for_tests import KINDS


def test_a_job_runs_to_its_result_with_true_progress(desk: Desk) -> None:
    desk.supervise()
    job = desk.add("count", total=40, seconds=0.05)
    half = desk.until(job, lambda now: now.step > 1)
    assert (half.stage, half.total, half.state) == ("Counting", 40, "running")
    assert half.seconds_per_step == pytest.approx(0.05, rel=2)
    left_s = queue.eta_s(half)
    assert left_s is not None
    assert left_s == pytest.approx((40 - half.step) * half.seconds_per_step)
    done = desk.wait(job)
    assert (done.state, done.step, done.error, done.pid) == ("done", 40, None, None)
    assert done.result is not None
    assert done.result["counted"] == 40
    assert desk.states(job) == ["queued", "running", "done"]
    assert desk.left(job) == []


def test_a_lane_keeps_its_worker_and_each_lane_has_its_own(desk: Desk) -> None:
    desk.supervise()
    results = [desk.wait(desk.add(kind)).result for kind in ("count", "count", "draw", "count_net")]
    pids = [result["pid"] for result in results if result is not None]
    assert pids[0] == pids[1]
    assert len(set(pids)) == 3


def test_a_training_gets_the_device_alone(desk: Desk) -> None:
    desk.supervise()
    drawn = desk.wait(desk.add("draw")).result
    assert drawn is not None
    training = desk.training(total=30, seconds=0.02)
    running = desk.until(training, lambda now: now.step > 0)
    assert not psutil.pid_exists(drawn["pid"])
    assert running.pid != drawn["pid"]
    after = desk.add("draw")
    assert desk.wait(training).state == "done"
    again = desk.wait(after).result
    assert again is not None
    assert again["pid"] not in (drawn["pid"], running.pid)
    assert not psutil.pid_exists(running.pid or 0)


def test_a_lane_is_emptied_of_what_only_keeps_models_loaded(desk: Desk) -> None:
    supervisor = desk.supervise()
    warm = desk.wait(desk.add("draw")).result
    other = desk.wait(desk.add("count")).result
    assert warm is not None and other is not None
    # The job's end is written a moment before its worker is idle.
    until_true(lambda: supervisor.empty("gpu"))
    until_true(lambda: not psutil.pid_exists(warm["pid"]))
    assert psutil.pid_exists(other["pid"])
    assert not supervisor.empty("gpu")
    running = desk.until(desk.add("draw", total=40, seconds=0.05), lambda now: now.step > 0)
    assert not supervisor.empty("gpu")  # what runs is left alone
    assert desk.wait(running).state == "done"


@pytest.mark.parametrize(
    ("kind", "error_type", "words"),
    [
        ("refuse", "InvalidInput", "There are 0 pictures."),
        ("run_out_of_gpu", "OutOfMemory", "memory of the GPU"),
        ("run_out_of_ram", "OutOfMemory", "memory (RAM) ran out"),
        ("die", "OutOfMemory", "The system ended the job"),
        ("crash", "MasukaError", "crashed (signal SIGSEGV)"),
        ("exit", "MasukaError", "crashed (exit code 3)"),
    ],
)
def test_every_bad_end_has_its_own_sentence(desk: Desk, kind: str, error_type: str, words: str) -> None:
    desk.supervise()
    output = desk.settings.workspace.adapters / "unfinished"
    failed = desk.wait(desk.add(kind, output=str(output)))
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["type"] == error_type
    assert words in failed.error["message"]
    assert failed.error["hint"]
    assert desk.left(failed) == []
    assert not output.exists()
    # Whatever happened, the lane works on.
    assert desk.wait(desk.add("count")).state == "done"


@pytest.mark.parametrize("kind", ["raise_bug", "missing"])
def test_a_bug_is_logged_under_the_reference_that_the_person_sees(desk: Desk, kind: str) -> None:
    desk.supervise()
    failed = desk.wait(desk.add(kind))
    assert failed.error is not None
    reference = failed.error["reference"]
    assert reference in failed.error["hint"]
    assert "Error" not in failed.error["message"]
    log = log_tail(desk.folder(failed))
    assert reference in log
    assert ("ZeroDivisionError" if kind == "raise_bug" else "ModuleNotFoundError") in log


def test_a_cancel_stops_what_runs_and_leaves_nothing(desk: Desk) -> None:
    desk.supervise()
    job = desk.add("count", total=10_000, seconds=0.02)
    running = desk.until(job, lambda now: now.step > 0)
    assert desk.left(job) != []
    cancelled = desk.cancel(job)
    assert (cancelled.state, cancelled.message, cancelled.error) == ("cancelled", "Cancelled.", None)
    assert desk.left(job) == []
    assert not queue.ask_cancel(desk.store, actor=desk.actor, job_id=job.id)
    result = desk.wait(desk.add("count")).result
    assert result is not None
    assert result["pid"] == running.pid, "the warm worker outlives a cancel that its job heeds"


def test_a_cancel_ends_a_job_that_hangs_in_c(desk: Desk) -> None:
    desk.supervise(flag_s=0.1, term_s=0.3)
    job = desk.add("hang_in_c")
    hanging = desk.until(job, lambda now: now.stage == "Hanging")
    assert desk.cancel(job).state == "cancelled"
    assert not psutil.pid_exists(hanging.pid or 0)
    assert desk.wait(desk.add("count")).state == "done"


def test_a_job_that_never_asks_is_made_to_leave_and_may_tidy_up(desk: Desk, tmp_path: Path) -> None:
    desk.supervise(flag_s=0.1, term_s=60)
    job = desk.add("hang_in_python", tidied=str(tmp_path / "tidied"))
    desk.until(job, lambda now: now.stage == "Hanging")
    assert desk.cancel(job).state == "cancelled"
    assert (tmp_path / "tidied").exists()


@pytest.mark.parametrize("brief", [False, True], ids=["cancelled", "crashed"])
def test_children_end_with_their_worker(desk: Desk, tmp_path: Path, brief: bool) -> None:
    desk.supervise(flag_s=0.05, term_s=0.05)
    job = desk.add("spawn", pids=str(tmp_path / "pids"), brief=brief)
    if brief:
        assert desk.wait(job).state == "failed"
    else:
        desk.until(job, lambda now: now.stage == "Waiting")
        assert desk.cancel(job).state == "cancelled"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    # After a crash, who left the group is known only if it was seen before.
    children = [p for p in psutil.process_iter() if p.pid in (pids[:1] if brief else pids)]
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert alive == []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_waiting_job_is_cancelled_at_once(desk: Desk) -> None:
    job = desk.add("count")
    assert queue.ask_cancel(desk.store, actor=desk.actor, job_id=job.id)
    assert desk.get(job).state == "cancelled"
    desk.supervise()
    assert desk.wait(desk.add("count")).state == "done"
    assert desk.states(job) == ["queued", "cancelled"]


def test_a_training_pauses_with_a_checkpoint_and_goes_on_from_it(desk: Desk) -> None:
    desk.supervise()
    job = desk.training(total=60, seconds=0.02, every=1000)
    desk.until(job, lambda now: now.step > 3)
    assert queue.ask_pause(desk.store, actor=desk.actor, job_id=job.id, kinds=KINDS)
    desk.wake()
    paused = desk.wait(job, "paused")
    run_folder = Path(paused.params["run_folder"])
    assert int((run_folder / "checkpoint.txt").read_text()) >= paused.step > 3
    wait_until_no_worker(desk.settings)
    queue.resume(desk.store, actor=desk.actor, job_id=job.id)
    desk.wake()
    assert desk.wait(job).state == "done"
    assert desk.states(job) == ["queued", "running", "paused", "queued", "running", "done"]
    steps = [int(line) for line in (run_folder / "steps.txt").read_text().split()]
    assert steps == list(range(1, 61))


def test_what_cannot_go_on_later_cannot_be_paused(desk: Desk) -> None:
    desk.supervise()
    job = desk.add("count", total=1000, seconds=0.05)
    desk.wait(job, "running")
    with pytest.raises(Conflict, match="cannot be paused"):
        queue.ask_pause(desk.store, actor=desk.actor, job_id=job.id, kinds=KINDS)
    assert desk.cancel(job).state == "cancelled"


def test_a_lost_training_goes_on_from_its_checkpoint(desk: Desk) -> None:
    desk.supervise()
    job = desk.training(total=60, seconds=0.02, every=5)
    running = desk.until(job, lambda now: now.step > 10)
    os.kill(running.pid or 0, signal.SIGKILL)
    assert desk.wait(job).state == "done"
    assert desk.states(job) == ["queued", "running", "interrupted", "queued", "running", "done"]
    steps = (Path(job.params["run_folder"]) / "steps.txt").read_text().split()
    assert sorted({int(step) for step in steps}) == list(range(1, 61))
    assert len(steps) - 60 < 5, "no more than the steps since the last checkpoint is done twice"


def test_three_losses_without_a_checkpoint_end_a_training(desk: Desk) -> None:
    desk.supervise()
    job = desk.training("doomed_train")
    failed = desk.wait(job)
    assert failed.state == "failed"
    assert desk.states(job).count("running") == 3
    assert failed.error is not None
    assert failed.error["type"] == "OutOfMemory"
    assert "lost 3 times without a new checkpoint" in failed.error["message"]
    assert not Path(job.params["output"]).exists()


def test_workers_outlive_the_app_and_are_adopted(desk: Desk) -> None:
    first = desk.supervise()
    counting = desk.add("count", total=100, seconds=0.05)
    pid = desk.until(counting, lambda now: now.step > 0).pid
    first.stop()
    assert psutil.pid_exists(pid or 0)
    desk.supervise()
    now = desk.until(counting, lambda now: now.step > 30)
    assert (now.pid, now.attempt) == (pid, 1)
    done = desk.wait(counting)
    assert (done.state, done.attempt) == ("done", 1)
    assert desk.states(counting) == ["queued", "running", "done"]
    assert desk.wait(desk.add("count")).state == "done"


def test_an_adopted_job_can_be_cancelled_even_in_c(desk: Desk) -> None:
    first = desk.supervise()
    job = desk.add("hang_in_c")
    pid = desk.until(job, lambda now: now.stage == "Hanging").pid
    first.stop()
    desk.supervise(flag_s=0.05, term_s=0.2)
    assert desk.cancel(job).state == "cancelled"
    assert pid not in [p.pid for p in workers_of(desk.settings)]


def test_what_outlived_its_app_stops_when_it_is_cancelled(desk: Desk) -> None:
    """A share is taken back on the command line while the app is closed and a training goes on."""
    first = desk.supervise()
    training = desk.training(total=100_000, seconds=0.01)
    desk.until(training, lambda now: now.step > 0)
    first.stop()
    assert endings.cancel(desk.store, workspace=desk.settings.workspace, actor=desk.actor, job_id=training.id)
    wait_until_no_worker(desk.settings)
    assert desk.get(training).state == "running", "nobody has settled it yet"
    desk.supervise()
    assert desk.wait(training).state == "cancelled"


def test_what_ended_while_no_app_ran_is_told_at_the_next_start(desk: Desk) -> None:
    first = desk.supervise()
    done, killed = desk.add("count", total=20, seconds=0.02), desk.add("count_net", total=1000, seconds=0.05)
    training = desk.training(total=1000, seconds=0.05)
    pids = [desk.until(job, lambda now: now.step > 0).pid or 0 for job in (done, killed, training)]
    first.stop()
    for pid in pids[1:]:
        os.kill(pid, signal.SIGKILL)
    wait_until_no_worker(desk.settings)
    desk.supervise()
    assert desk.wait(done).state == "done"
    interrupted = desk.wait(killed, "interrupted")
    assert interrupted.message == "Interrupted when MASUKA stopped."
    assert desk.left(killed) == []
    # The training goes on by itself, the other when somebody says so.
    assert desk.until(training, lambda now: now.attempt == 2 and now.step > 0).state == "running"
    queue.resume(desk.store, actor=desk.actor, job_id=killed.id)
    desk.wake()
    assert desk.until(killed, lambda now: now.attempt == 2 and now.step > 0).state == "running"
    assert desk.cancel(killed).state == desk.cancel(training).state == "cancelled"


def test_stop_can_end_the_workers_too(desk: Desk) -> None:
    supervisor = desk.supervise(flag_s=0.5, term_s=0.5)
    training = desk.training(total=1000, seconds=0.02, every=1000)
    hanging = desk.add("hang_in_c")
    desk.until(training, lambda now: now.step > 3)
    desk.until(hanging, lambda now: now.stage == "Hanging")
    supervisor.stop(end_workers=True)
    wait_until_no_worker(desk.settings)
    stopped = desk.get(training)
    assert stopped.state == "queued", "it goes on by itself at the next start"
    assert int((Path(training.params["run_folder"]) / "checkpoint.txt").read_text()) > 3
    assert (desk.get(hanging).state, desk.get(hanging).error) == ("interrupted", None)


def test_a_second_supervisor_waits_for_the_first(desk: Desk) -> None:
    first = desk.supervise()
    desk.wait(desk.add("count"))
    second = desk.supervise()
    job = desk.wait(desk.add("count"))
    assert job.state == "done"
    assert len(workers_of(desk.settings)) == 1
    desk.supervisors.remove(first)
    first.stop()
    assert desk.wait(desk.add("count")).state == "done"
    second.wake()


def test_people_take_turns(desk: Desk) -> None:
    other = users.add_user(desk.store, actor=desk.actor, username="mira", role="editor")
    guest = Actor(user_id=other.id, role="editor", name="mira")
    jobs = [desk.add("count") for _ in range(4)] + [desk.add("count", actor=guest) for _ in range(2)]
    desk.supervise()
    for job in jobs:
        desk.wait(job)
    started = sorted((desk.get(job) for job in jobs), key=lambda job: str(job.started_at))
    assert [job.user_id for job in started] == [1, other.id, 1, other.id, 1, 1]
    assert [job.id for job in started if job.user_id == 1] == [job.id for job in jobs[:4]]


def test_a_worker_is_told_by_pipe_and_knows_no_store(desk: Desk, settings: Settings) -> None:
    preferences.set_setting(
        desk.store, actor=desk.actor, key="HF_TOKEN", value="hf_canary123456", encrypted=True
    )
    desk.supervise()
    job = desk.wait(desk.add("who", secret="params-canary"))
    assert job.result is not None
    assert job.result["token"] == "hf_canary123456"
    assert job.result["job_id"] == job.id
    assert "canary" not in job.result["argv"]
    assert job.result["cwd"] == str(settings.workspace.empty)
    assert job.result["leader"]
    assert not job.result["store"]
    assert not {"sqlite_utils", "gradio", "torch"} & set(job.result["modules"])
    assert "canary" not in log_tail(desk.folder(job))


def test_the_log_keeps_what_python_and_c_print(desk: Desk) -> None:
    desk.supervise()
    job = desk.wait(desk.add("chatter"))
    log = log_tail(desk.folder(job))
    assert "first line\n100%\nfrom C\n" in log
    assert "A note." in log
    quiet = log_tail(desk.folder(desk.wait(desk.add("count"))))
    assert "first line" not in quiet
    assert "Counting" in quiet  # where a job prints nothing, its log still says how far it is
    notes = rows.list_job_events(desk.store, actor=desk.actor, id=job.id, type="note")
    assert [note.data for note in notes] == [{"text": "A note."}]


def test_pictures_become_rows_and_what_cannot_be_recorded_fails_the_job(desk: Desk) -> None:
    dataset = datasets.add_dataset(desk.store, actor=desk.actor, name="Robots", trigger_word="rbt")
    folder = desk.settings.workspace.datasets / "1"
    desk.supervise()
    job = desk.wait(desk.add("import", dataset_id=dataset.id, folder=str(folder), total=5))
    assert (job.state, job.result) == ("done", {"added": 5})
    kept = pictures.list_pictures(desk.store, actor=desk.actor, dataset_id=dataset.id)
    assert [desk.settings.workspace.resolve(p.file).read_bytes()[:7] for p in kept] == [b"picture"] * 5
    lost = desk.wait(desk.add("import", dataset_id=999, folder=str(folder), total=100_000, seconds=0.01))
    assert lost.state == "failed"
    assert lost.error is not None
    assert lost.error["type"] == "NotFound"
    assert desk.wait(desk.add("count")).state == "done"


def test_a_job_that_runs_is_deleted_only_after_it_stopped(desk: Desk) -> None:
    desk.supervise()
    job = desk.add("count", total=1000, seconds=0.05)
    desk.wait(job, "running")
    with pytest.raises(Conflict, match="still runs"):
        queue.delete(desk.store, actor=desk.actor, job_id=job.id)
    desk.cancel(job)
    assert queue.delete(desk.store, actor=desk.actor, job_id=job.id)
    assert rows.get_pulse(desk.store, id=job.id) is None


def test_a_kind_that_this_version_does_not_know_fails_with_a_sentence(desk: Desk) -> None:
    job = rows.add_job(
        desk.store, actor=desk.actor, kind="from_the_future", lane="cpu", title="?", request={}, params={}
    )
    desk.supervise()
    failed = desk.wait(job)
    assert failed.error is not None
    assert "knows no job of the kind 'from_the_future'" in failed.error["message"]


def test_folders_of_jobs_that_are_gone_are_swept_at_the_start(desk: Desk) -> None:
    job = desk.add("count")
    queue.ask_cancel(desk.store, actor=desk.actor, job_id=job.id)
    orphan = desk.settings.workspace.jobs / "4711"
    for folder in (orphan, desk.folder(job)):
        (folder / "scratch-1").mkdir(parents=True)
        (folder / "log.txt").write_text("log")
    desk.supervise()
    desk.wait(desk.add("count"))
    assert not orphan.exists()
    assert [f.name for f in desk.folder(job).iterdir()] == ["log.txt"]
