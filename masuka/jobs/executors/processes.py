"""Worker processes: started, given jobs, watched, ended with all that they started.

It knows processes and nothing of the queue.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

import masuka
from masuka.config import Settings, worker_environment
from masuka.jobs.worker import Assignment

MODULE = "masuka.jobs.worker"
CLOCK_TOLERANCE_S = 60.0
"""The start time of a process is told by the wall clock, which is set and slewed meanwhile; a
number does not come to another process so soon."""

log = logging.getLogger("masuka.jobs")


class Process:
    """A process that runs a job, ours or one that an earlier app process left behind."""

    def __init__(self, pid: int, started_s: float) -> None:
        self.pid = pid
        self.started_s = started_s
        self._family: set[psutil.Process] = set()

    def alive(self) -> bool:
        return is_alive(self.pid, self.started_s)

    def is_worker(self) -> bool:
        """Whether it is a worker of ours; a notebook with a job is not ours to end."""
        try:
            return MODULE in psutil.Process(self.pid).cmdline()
        except psutil.Error:
            return False

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None where nobody can know it."""
        return None

    def remember_family(self) -> None:
        """Notes every process that descends from this one, to end those that outlive it.

        A launcher may start its ranks in sessions of their own, out of the group's reach.
        """
        with suppress(psutil.NoSuchProcess):
            now = psutil.Process(self.pid).children(recursive=True)
            self._family = {relative for relative in self._family if relative.is_running()}.union(now)

    def terminate(self) -> None:
        """Asks a worker to leave, as SIGTERM does; does nothing to any other program."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends a worker with its group and family; does nothing to other programs."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if not self.alive() or not self.is_worker():
            return
        self.remember_family()
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.pid, number)
                self.end_family()
            else:
                os.kill(self.pid, number)

    def end_family(self) -> None:
        """Kills what the process left behind; call it when the process itself has ended."""
        for relative in self._family:
            with suppress(psutil.NoSuchProcess):
                relative.kill()
        self._family.clear()


class WorkerProcess(Process):
    """A worker that this process started; it leads a session and a group of its own."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        super().__init__(popen.pid, psutil.Process(popen.pid).create_time())
        self.used = False
        self._popen = popen
        self._swept = False

    @classmethod
    def start(cls, settings: Settings, log_file: Path, extra: Mapping[str, str]) -> WorkerProcess:
        """A worker that waits for its first assignment; its output goes to the log.

        Raises OSError when the system cannot start another process.
        """
        environment = {**worker_environment(settings), **extra}
        # The worker's directory is not ours, so it is told where this package lies.
        package = str(Path(masuka.__file__).parent.parent)
        known = environment.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = package + (os.pathsep + known if known else "")
        with log_file.open("ab") as output:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-u", "-X", "faulthandler", "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=settings.workspace.empty,
                env=environment,
                start_new_session=True,
            )
        return cls(popen)

    def alive(self) -> bool:
        if self._popen.poll() is None:
            return True
        if not self._swept:
            self._swept = True
            self._close_stdin()
            # Nobody left in the group is the usual case; macOS then refuses.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.end_family()
        return False

    def exit_code(self) -> int | None:
        return self._popen.poll()

    def assign(self, assignment: Assignment, *, last: bool = False) -> None:
        """Hands over a job; with `last` the worker leaves after it.

        It writes in the background: a worker that still starts does not hold up its caller,
        and one that died meanwhile is found dead by who watches it.
        """
        self.used = True
        line = assignment.line()
        threading.Thread(
            target=self._write, args=(line, last), name=f"assign-{assignment.job_id}", daemon=True
        ).start()

    def release(self) -> None:
        """Lets the worker leave once its job is done; nothing kills it."""
        self._close_stdin()
        if self._popen.poll() is None:
            threading.Thread(target=self._popen.wait, name=f"reap-{self.pid}", daemon=True).start()

    def _write(self, line: bytes, last: bool) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(line)
            self._popen.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            log.info("worker %d did not take its job: %s", self.pid, error)
        if last:
            self._close_stdin()

    def _close_stdin(self) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.close()
        except BrokenPipeError as error:
            log.info("worker %d left before its job was handed over: %s", self.pid, error)


def is_alive(pid: int | None, started_s: float | None) -> bool:
    """Whether the very process that started then still runs; a zombie does not."""
    if pid is None or started_s is None:
        return False
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started_s) < CLOCK_TOLERANCE_S
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
