"""A program that serves a workspace until it is killed.

python -m tests.worker.app_for_tests serve|inline|claim WORKSPACE
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from masuka.config import Settings, Workspace
from masuka.jobs import queue
from masuka.jobs.executors.inline import run_inline
from masuka.jobs.supervisor import Supervisor
from masuka.store import jobs as rows
from masuka.store.connect import Store
from tests.worker.jobs_for_tests import KINDS


def main(what: str, root: str) -> None:
    settings = Settings(workspace=Workspace(root=Path(root)), device="cpu")
    with Store.open(settings.workspace) as store:
        if what == "serve":
            Supervisor(store, settings, kinds=KINDS, flag_s=1, term_s=1).start()
            print("ready", flush=True)
            threading.Event().wait()
        elif what == "inline":
            print("ready", flush=True)
            waiting = rows.list_jobs(store, actor=queue.SYSTEM, states=["queued"])
            for job in reversed(waiting):
                run_inline(store, settings, job.id, kinds=KINDS)
        else:
            print("ready", flush=True)
            sys.stdin.readline()
            while (job := queue.claim(store, lane="cpu")) is not None:
                print(job.id, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
