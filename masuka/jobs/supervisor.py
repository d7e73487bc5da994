"""The supervisor: one thread that gives queued jobs to workers and follows them to their end.

One per workspace: a second app on the same workspace waits until the first has gone. It
decides nothing about states (`endings`) and applies nothing itself (`events`).
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from filelock import FileLock, Timeout

from masuka.config import Settings
from masuka.errors import MasukaError, NotFound
from masuka.jobs import failures
from masuka.jobs.endings import Lost, fail_job, settle
from masuka.jobs.events import apply_events
from masuka.jobs.executors.processes import Process, WorkerProcess
from masuka.jobs.files import AttemptFiles
from masuka.jobs.kinds import KINDS, Kind, Lane, where_lent
from masuka.jobs.queue import SYSTEM, claim
from masuka.jobs.recovery import lock_of, recover, sweep_left_files
from masuka.jobs.secrets import keys_for
from masuka.jobs.slots import SLOTS, Attempt, Slot, slots_of
from masuka.jobs.thinning import thin
from masuka.jobs.worker import Assignment
from masuka.store import jobs as rows
from masuka.store.connect import Store
from masuka.store.jobs import Job

BUSY_POLL_S = 0.2
IDLE_POLL_S = 1.0
"""While idle it only looks whether another process has queued something."""
FAMILY_EVERY_S = 2.0

log = logging.getLogger("masuka.jobs")


class Supervisor:
    """Runs the jobs of a workspace in worker processes from `start` to `stop`.

    `flag_s` is how long a job that was cancelled may take to notice, `term_s` how long it
    then has after SIGTERM before it is killed. With `lent`, jobs that borrow a GPU are
    left to the events that ask for them. `after_job` is called with each job that ended here.
    """

    after_job: Callable[[Job], None] | None = None

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        kinds: Mapping[str, Kind] = KINDS,
        slots: Mapping[Lane, int] = SLOTS,
        flag_s: float = 5.0,
        term_s: float = 20.0,
        lent: bool = False,
    ) -> None:
        self._store = store
        self._settings = settings
        self._kinds = where_lent(kinds) if lent else kinds
        self._left = [kind.name for kind in kinds.values() if lent and kind.lent_s]
        self._flag_s = flag_s
        self._term_s = term_s
        self._slots = slots_of(slots)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._end_workers = False
        self._emptied: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begins: adopts what still runs, settles what died, then works the queue."""
        self._settings.workspace.create()
        self._thread.start()

    def wake(self) -> None:
        """Looks at the queue now instead of at the next second."""
        self._wake.set()

    def empty(self, lane: Lane) -> bool:
        """Whether a worker of the lane that only kept models loaded is told to leave.

        One that runs a job is left alone.
        """
        idle = [s for s in self._slots if s.lane == lane and s.attempt is None and s.worker is not None]
        self._emptied.add(lane)
        self._wake.set()
        return bool(idle)

    def stop(self, *, end_workers: bool = False) -> None:
        """Ends the thread. Running workers finish alone and are adopted at the next start.

        With `end_workers` they end too: trainings keep a checkpoint and go on at the next
        start, other jobs are interrupted.
        """
        self._end_workers = end_workers
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        lock = lock_of(self._settings.workspace)
        try:
            if self._wait_for_turn(lock):
                self._guard(None, self._first_look)
                while not self._stopping.is_set():
                    self._look()
                    self._wake.wait(BUSY_POLL_S if any(s.busy() for s in self._slots) else IDLE_POLL_S)
                    self._wake.clear()
                self._leave()
        finally:
            lock.release()

    def _wait_for_turn(self, lock: FileLock) -> bool:
        while not self._stopping.is_set():
            try:
                lock.acquire(timeout=0)
                return True
            except Timeout:
                self._stopping.wait(IDLE_POLL_S)
        return False

    def _first_look(self) -> None:
        recover(self._store, self._settings, kinds=self._kinds, locked=True)
        sweep_left_files(self._store, self._settings.workspace)
        thin(self._store, self._settings.workspace)

    def _look(self) -> None:
        self._guard(None, self._adopt)
        for slot in list(self._slots):
            if slot.attempt is not None:
                self._guard(slot, partial(self._follow, slot))
        for slot in list(self._slots):
            if slot.lane in self._emptied and slot.attempt is None and slot.worker is not None:
                slot.retire(slot.worker)
        self._emptied.clear()
        for slot in list(self._slots):
            if slot.attempt is None and not slot.lent:
                self._guard(slot, partial(self._start_next, slot))
        for slot in self._slots:
            slot.vacant()
        self._slots = [s for s in self._slots if s.busy() or not s.lent]

    def _guard(self, slot: Slot | None, act: Callable[[], None]) -> None:
        """Does it; one job's trouble never stops the others.

        A database that cannot be written now, a full disk: the next look tries again.
        """
        try:
            act()
        except (MasukaError, OSError) as error:
            log.warning("the supervisor tries again: %s", error)
        except Exception:
            reference = secrets.token_hex(4)
            log.exception("the supervisor failed, reference %s", reference)
            if slot is not None and slot.attempt is not None:
                self._guard(None, partial(self._give_up, slot, slot.attempt, failures.bug(reference)))

    def _give_up(self, slot: Slot, attempt: Attempt, error: MasukaError) -> None:
        if attempt.process is not None:
            attempt.process.kill()
        fail_job(self._store, self._settings.workspace, attempt.job_id, attempt.files, error)
        slot.free()

    def _adopt(self) -> None:
        """Follows jobs that run without us: left by an app that died, or begun in a notebook."""
        mine = {s.attempt.job_id for s in self._slots if s.attempt is not None}
        if all(job.id in mine for job in rows.list_running(self._store)):
            return
        recover(self._store, self._settings, kinds=self._kinds, locked=True, mine=mine)
        for job in rows.list_running(self._store):
            if job.id in mine or job.pid is None or job.pid_started is None:
                continue
            free = next((s for s in self._slots if s.lane == job.lane and s.attempt is None), None)
            if free is None:
                free = Slot(job.lane, lent=True)
                self._slots.append(free)
            files = AttemptFiles(self._settings.workspace.jobs / str(job.id), job.fence)
            process = Process(job.pid, job.pid_started)
            free.attempt = Attempt(job.id, self._kinds.get(job.kind), files, process)

    def _start_next(self, slot: Slot) -> None:
        if not slot.vacant() or not rows.has_queued_job(self._store, lane=slot.lane, but=self._left):
            return
        job = claim(self._store, lane=slot.lane, but=self._left)
        if job is None:
            return
        files = AttemptFiles(self._settings.workspace.jobs / str(job.id), job.fence)
        slot.attempt = Attempt(job.id, self._kinds.get(job.kind), files)
        files.prepare()
        if slot.attempt.kind is None:
            error = NotFound(f"This MASUKA knows no job of the kind {job.kind!r}.", "Update MASUKA.")
            self._give_up(slot, slot.attempt, error)
            return
        self._begin(slot, slot.attempt, job)

    def _begin(self, slot: Slot, attempt: Attempt, job: Job) -> None:
        """Hands the job to a worker, unless a warm one has to leave the device first."""
        assert attempt.kind is not None
        if slot.worker is not None and not slot.worker.alive():
            slot.worker = None
        if slot.worker is not None and slot.worker.used and not attempt.kind.warm:
            slot.retire(slot.worker)
        if not slot.vacant():
            return
        worker = slot.worker = slot.worker or self._started_worker(slot, attempt)
        if worker is None:
            return
        rows.set_job(self._store, id=job.id, fence=job.fence, pid=worker.pid, pid_started=worker.started_s)
        attempt.process = worker
        worker.assign(self._assignment(job, attempt), last=not attempt.kind.warm)

    def _started_worker(self, slot: Slot, attempt: Attempt) -> WorkerProcess | None:
        try:
            return WorkerProcess.start(self._settings, attempt.files.log, slot.environment)
        except OSError as error:
            log.warning("a worker could not be started: %s", error)
            told = MasukaError(
                f"No worker could be started ({error.strerror}).", "Close programs, then retry."
            )
            self._give_up(slot, attempt, told)
            return None

    def _assignment(self, job: Job, attempt: Attempt) -> Assignment:
        assert attempt.kind is not None
        secrets = keys_for(self._store, self._settings, job.user_id, attempt.kind)
        return Assignment.of(attempt.kind, attempt.files, job_id=job.id, params=job.params, secrets=secrets)

    def _follow(self, slot: Slot) -> None:
        attempt = slot.attempt
        assert attempt is not None
        job = rows.get_pulse(self._store, id=attempt.job_id)
        if job is None or job.state != "running" or job.fence != attempt.files.fence:
            # Settled elsewhere (a notebook's own job), or the database was exchanged.
            slot.free()
            return
        if attempt.process is None:
            self._go_on_beginning(slot, attempt, job.asked)
            return
        # First whether it lives, then what it said: nothing is said between the two.
        alive = attempt.process.alive()
        store, workspace = self._store, self._settings.workspace
        end = apply_events(store, workspace, job.id, job.fence, attempt.files.events)
        if end is not None and alive and not end.said:
            attempt.terminated_s = time.monotonic()
            attempt.process.kill()
        elif end is not None:
            settled = settle(store, workspace, job.id, attempt.files, end, attempt.kind)
            if end.event.get("leaving"):
                slot.retire(attempt.process)
            slot.free()
            if settled is not None and self.after_job is not None:
                self.after_job(settled)
        elif not alive:
            # Ended by us it was no crash, whatever the code says.
            code = attempt.process.exit_code() if attempt.terminated_s is None else None
            settle(store, workspace, job.id, attempt.files, Lost(code), attempt.kind)
            slot.free()
        else:
            self._push(attempt, job.asked)

    def _go_on_beginning(self, slot: Slot, attempt: Attempt, asked: str) -> None:
        if asked:
            settle(self._store, self._settings.workspace, attempt.job_id, attempt.files, Lost(), attempt.kind)
            slot.free()
        else:
            self._begin(slot, attempt, rows.get_job(self._store, actor=SYSTEM, id=attempt.job_id))

    def _push(self, attempt: Attempt, asked: str) -> None:
        """Passes on what a person asked, ever more firmly if it is a cancel."""
        assert attempt.process is not None
        now_s = time.monotonic()
        alone = attempt.kind is not None and not attempt.kind.warm
        if alone and (asked or now_s - attempt.family_s > FAMILY_EVERY_S):
            attempt.family_s = now_s
            attempt.process.remember_family()
        if asked:
            attempt.files.ask(asked)
        if asked == "cancel":
            self._press(attempt, now_s)

    def _press(self, attempt: Attempt, now_s: float) -> None:
        assert attempt.process is not None
        attempt.asked_s = attempt.asked_s or now_s
        if attempt.terminated_s is None:
            if now_s - attempt.asked_s >= self._flag_s:
                attempt.terminated_s = now_s
                attempt.process.terminate()
        elif now_s - attempt.terminated_s >= self._term_s:
            attempt.process.kill()

    def _leave(self) -> None:
        if self._end_workers:
            self._end_all()
        for slot in self._slots:
            for process in {slot.worker, slot.attempt.process if slot.attempt else None}:
                if isinstance(process, WorkerProcess):
                    process.release()

    def _end_all(self) -> None:
        """Ends our own workers: a checkpoint where there can be one, then firmly."""
        begun_s = time.monotonic()
        ours = [s for s in self._slots if s.attempt and isinstance(s.attempt.process, WorkerProcess)]
        for slot in ours:
            assert slot.attempt is not None
            slot.attempt.files.ask("pause")
            slot.attempt.asked_s = begun_s
        while (
            any(slot.attempt for slot in ours)
            and time.monotonic() - begun_s < 2 * self._term_s + self._flag_s
        ):
            for slot in ours:
                if slot.attempt is not None:
                    self._press(slot.attempt, time.monotonic())
                    self._guard(slot, partial(self._follow, slot))
            time.sleep(BUSY_POLL_S / 4)
