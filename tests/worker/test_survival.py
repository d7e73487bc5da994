"""Fifty times SIGKILL, for workers and for the app: no acknowledged job is lost or half done."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from masuka.config import Settings
from masuka.jobs import queue
from masuka.store import datasets, pictures
from masuka.store.jobs import Job
from tests.worker.desk import PATIENCE_S, Desk, wait_until_no_worker, workers_of

KILLS = 25
"""Of each kind: fifty together."""

FAIRLY_FAILED = ("memory (RAM)", "lost 3 times without a new checkpoint")
"""What a job that was killed, or killed again and again, may say."""

pytestmark = pytest.mark.slow


def app(settings: Settings, what: str) -> subprocess.Popen[str]:
    """A running app process on the workspace, past its start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.worker.app_for_tests", what, str(settings.workspace.root)],
        cwd=Path(__file__).parent.parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


class Work:
    """Jobs of every sort that are added over time, and what must be true of them in the end."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self.desk = desk
        self.random = random.Random(seed)
        self.jobs: list[Job] = []
        self.sets: dict[int, int] = {}

    def add(self) -> Job:
        """One more job; once this returns, it is acknowledged."""
        draw = self.random.random
        sort = self.random.choice(["count", "count_net", "draw", "train", "import"])
        if sort == "train":
            job = self.desk.training(total=self.random.randint(5, 25), seconds=0.01, every=3)
        elif sort == "import":
            name = f"Set {len(self.jobs)}"
            dataset = datasets.add_dataset(
                self.desk.store, actor=self.desk.actor, name=name, trigger_word="rbt"
            )
            folder = str(self.desk.settings.workspace.datasets / str(dataset.id))
            job = self.desk.add(
                "import", dataset_id=dataset.id, folder=folder, total=8, seconds=draw() * 0.02
            )
            self.sets[job.id] = dataset.id
        else:
            job = self.desk.add(sort, total=self.random.randint(1, 30), seconds=draw() * 0.02)
        self.jobs.append(job)
        return job

    def finish(self) -> None:
        """Runs all to the end; what was interrupted is resumed, as a person would."""
        self.desk.supervise(flag_s=1, term_s=1)
        deadline_s = time.monotonic() + 3 * PATIENCE_S
        while unfinished := [j for j in map(self.desk.get, self.jobs) if j.state not in queue.ENDED]:
            assert time.monotonic() < deadline_s, [(j.id, j.kind, j.state) for j in unfinished]
            for job in unfinished:
                if job.state == "interrupted":
                    queue.resume(self.desk.store, actor=self.desk.actor, job_id=job.id)
            self.desk.wake()
            time.sleep(0.1)
        for supervisor in self.desk.supervisors:
            supervisor.stop()
        wait_until_no_worker(self.desk.settings)

    def check(self, asked_to_cancel: set[int]) -> dict[str, int]:
        """Every promise about every job; how many ended in which state."""
        ends: dict[str, int] = {}
        for job in map(self.desk.get, self.jobs):
            ends[job.state] = ends.get(job.state, 0) + 1
            self._check_history(job)
            assert (job.state == "cancelled") <= (job.id in asked_to_cancel)
            if job.state == "failed":
                assert job.error is not None
                assert any(words in job.error["message"] for words in FAIRLY_FAILED), job.error
            folder = self.desk.folder(job)
            assert not folder.exists() or {f.name for f in folder.iterdir()} <= {"log.txt"}
            if job.kind == "train":
                self._check_training(job)
            if job.kind == "import":
                self._check_pictures(job)
        return ends

    def _check_history(self, job: Job) -> None:
        states = self.desk.states(job)
        assert states[0] == "queued"
        assert states[-1] == job.state
        for before, after in itertools.pairwise(states):
            assert after in queue.TRANSITIONS[before], (job.kind, states)
        assert sum(state in queue.ENDED for state in states) == 1
        assert states.count("running") == job.attempt

    def _check_training(self, job: Job) -> None:
        output, folder = Path(job.params["output"]), Path(job.params["run_folder"])
        if job.state == "done":
            assert (output / "adapter.safetensors").read_text() == "weights"
            steps = {int(line) for line in (folder / "steps.txt").read_text().split()}
            assert steps == set(range(1, job.params["total"] + 1))
        elif not (folder / "checkpoint.txt").exists():
            assert not output.exists()

    def _check_pictures(self, job: Job) -> None:
        kept = pictures.list_pictures(self.desk.store, actor=self.desk.actor, dataset_id=self.sets[job.id])
        for picture in kept:
            content = self.desk.settings.workspace.resolve(picture.file).read_bytes()
            assert content == b"picture %d" % int(picture.sha256)
        assert len({picture.sha256 for picture in kept}) == len(kept)
        if job.state == "done":
            assert len(kept) == job.params["total"]


def test_workers_killed_at_any_moment_lose_nothing(desk: Desk) -> None:
    work = Work(desk, seed=1)
    desk.supervise(flag_s=1, term_s=1)
    killed = 0
    deadline_s = time.monotonic() + 3 * PATIENCE_S
    while killed < KILLS:
        assert time.monotonic() < deadline_s
        while sum(desk.get(job).state not in queue.ENDED for job in work.jobs[-8:]) < 4:
            work.add()
        time.sleep(work.random.random() * 0.25)
        for worker in work.random.sample(alive := workers_of(desk.settings), min(1, len(alive))):
            worker.kill()
            killed += 1
    work.finish()
    ends = work.check(set())
    assert ends.keys() <= {"done", "failed"}
    assert ends["failed"] > 0
    assert ends["done"] > 0


def test_an_app_killed_at_any_moment_loses_nothing(desk: Desk) -> None:
    work = Work(desk, seed=2)
    asked: set[int] = set()
    for _ in range(KILLS):
        process = app(desk.settings, work.random.choice(["serve", "serve", "serve", "inline"]))
        for _ in range(work.random.randint(1, 3)):
            work.add()
        time.sleep(work.random.random() * 0.5)
        if work.random.random() < 0.3:
            job = work.random.choice(work.jobs)
            if queue.ask_cancel(desk.store, actor=desk.actor, job_id=job.id):
                asked.add(job.id)
            time.sleep(work.random.random() * 0.3)
        # A power cut takes the workers too.
        if work.random.random() < 0.4:
            for worker in workers_of(desk.settings):
                worker.kill()
        end(process)
    work.finish()
    ends = work.check(asked)
    assert ends["done"] > 0


def test_eight_claimants_in_eight_processes_get_every_job_once(desk: Desk) -> None:
    expected = {desk.add("count").id for _ in range(120)}
    claimants = [app(desk.settings, "claim") for _ in range(8)]
    for claimant in claimants:
        assert claimant.stdin is not None
        claimant.stdin.write("go\n")
        claimant.stdin.flush()
    got = [[int(line) for line in claimant.communicate()[0].split()] for claimant in claimants]
    assert sorted(number for numbers in got for number in numbers) == sorted(expected)
    assert all(claimant.returncode == 0 for claimant in claimants)


def test_a_notebook_cell_that_dies_leaves_its_job_to_the_app(desk: Desk) -> None:
    job = desk.add("count", total=1000, seconds=0.05)
    process = app(desk.settings, "inline")
    running = desk.until(job, lambda now: now.step > 0)
    assert running.pid == process.pid
    desk.supervise()
    # The app follows what runs elsewhere, and does not start it a second time.
    other = desk.wait(desk.add("count_net"))
    assert other.state == "done"
    assert desk.get(job).pid == process.pid
    end(process)
    assert desk.wait(job, "interrupted").attempt == 1


def test_a_notebook_is_never_killed_for_a_job_that_does_not_stop(desk: Desk, tmp_path: Path) -> None:
    job = desk.add("hang_in_python", tidied=str(tmp_path / "tidied"))
    process = app(desk.settings, "inline")
    assert desk.until(job, lambda now: now.stage == "Hanging").pid == process.pid
    desk.supervise(flag_s=0, term_s=0)
    queue.ask_cancel(desk.store, actor=desk.actor, job_id=job.id)
    # By the time these are done, the supervisor has looked at the cancel more than once.
    for _ in range(3):
        desk.wait(desk.add("count_net"))
    assert process.poll() is None
    assert desk.get(job).state == "running"
    end(process)
    assert desk.wait(job).state == "cancelled"
