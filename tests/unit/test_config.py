"""Settings from the environment, and where files lie."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from masuka.config import (
    SECRET_NAMES,
    Settings,
    Workspace,
    child_environment,
    host_marks,
    quiet_environment,
    worker_environment,
)
from masuka.errors import InvalidInput

ROOT = Path(__file__).parents[2]


def test_defaults_are_private(tmp_path: Path) -> None:
    settings = Settings.from_environment({"MASUKA_HOME": str(tmp_path)})
    assert (settings.host, settings.port) == ("127.0.0.1", 7860)
    assert settings.allowed_hosts == ()
    assert settings.workspace.root == tmp_path
    assert settings.secrets == {}


def test_every_key_is_read_and_never_shown(tmp_path: Path) -> None:
    given = {name: f"canary-{name.lower()}" for name in SECRET_NAMES}
    settings = Settings.from_environment({"MASUKA_HOME": str(tmp_path), **given})
    assert settings.secrets == given
    assert "canary" not in repr(settings)


def test_names_of_masuka_2_are_read(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "DATABASE_URL": f"sqlite:///{tmp_path}/old/masuka.db",
            "MEDIA_DIR": str(tmp_path / "media"),
            "ENABLE_AUTH": "false",
            "ALLOW_REGISTRATION": "true",
            "SECRET_KEY": "the old key",
        }
    )
    assert settings.workspace.database == tmp_path / "old" / "masuka.db"
    assert settings.workspace.media == tmp_path / "media"
    assert settings.secrets["SECRET_KEY"] == "the old key"


def test_a_dotenv_file_fills_the_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("# my keys\nHF_TOKEN=from-the-file\nMASUKA_PORT=7001\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASUKA_PORT", "7002")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    settings = Settings.from_environment()
    assert settings.secrets["HF_TOKEN"] == "from-the-file"
    assert settings.port == 7002


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MASUKA_PORT", "http"),
        ("MASUKA_PORT", "70000"),
        ("MASUKA_PORT", "-1"),
        ("MASUKA_OPEN_BROWSER", "maybe"),
        ("DATABASE_URL", "postgresql://somewhere/masuka"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Settings.from_environment({name: value})
    assert refused.value.field == name
    assert refused.value.hint


def test_hosts_are_a_list(tmp_path: Path) -> None:
    settings = Settings.from_environment({"MASUKA_ALLOWED_HOSTS": " Studio.example.org , ,other.test "})
    assert settings.allowed_hosts == ("studio.example.org", "other.test")


def test_a_relative_path_starts_at_the_workspace(workspace: Workspace) -> None:
    assert workspace.resolve("media/x.png") == workspace.root.resolve() / "media" / "x.png"
    assert workspace.relative(workspace.root / "media" / "x.png") == "media/x.png"
    outside = workspace.root.parent / "elsewhere.png"
    assert workspace.relative(outside) == str(outside.resolve())
    assert workspace.resolve(workspace.relative(outside)) == outside.resolve()


def test_creating_twice_keeps_everything(workspace: Workspace) -> None:
    (workspace.media / "x.png").write_bytes(b"x")
    assert workspace.create() is workspace
    assert (workspace.media / "x.png").read_bytes() == b"x"
    assert stat.S_IMODE(workspace.secrets.stat().st_mode) == 0o700


def test_libraries_do_not_phone_home(settings: Settings) -> None:
    quiet = quiet_environment(settings.workspace)
    assert quiet["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert quiet["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert worker_environment(settings).items() >= quiet.items()


def test_marks_tell_no_value_that_is_not_asked_for() -> None:
    marks = host_marks({"COLAB_RELEASE_TAG": "x", "SPACE_HOST": "a.hf.space", "RUNPOD_API_KEY": "k", "HOME": "z"})
    assert marks == {"COLAB_RELEASE_TAG": "", "SPACE_HOST": "a.hf.space", "RUNPOD_API_KEY": ""}


def test_settings_can_be_imported_before_anything_is_installed() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import masuka.config, masuka.hosting.runtime"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_a_started_program_gets_no_plotting_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    given = child_environment({"MASUKA_PORT": "7861"})
    assert "MPLBACKEND" not in given
    assert given["MASUKA_PORT"] == "7861"
