"""What every test gets: a home of its own, no network telemetry, repeatable examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from masuka.config import Settings, Workspace

# Slow examples are no failure here: tests run beside each other on two cores.
hypothesis_settings.register_profile(
    "masuka", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("masuka")


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that forgets to name a workspace writes into its own temporary one."""
    monkeypatch.setenv("MASUKA_HOME", str(tmp_path_factory.mktemp("home") / "masuka"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("MEDIA_DIR", raising=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace with its folders."""
    return Workspace(root=tmp_path / "workspace").create()


@pytest.fixture
def settings(workspace: Workspace) -> Settings:
    """Settings as after a plain start, on that workspace, for the CPU."""
    return Settings(workspace=workspace, device="cpu")
