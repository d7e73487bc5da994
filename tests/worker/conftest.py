"""Real workers on a real database; nothing is left running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from masuka.config import Settings
from masuka.store.connect import Store
from tests.worker.desk import Desk, workers_of


@pytest.fixture(autouse=True)
def _jobs_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the test jobs as they find any module: by the path they inherit."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    with Store.open(settings.workspace) as store:
        desk = Desk(store, settings)
        try:
            yield desk
        finally:
            for supervisor in desk.supervisors:
                supervisor.stop()
            for process in workers_of(settings):
                process.kill()
            psutil.wait_procs(workers_of(settings), timeout=10)
