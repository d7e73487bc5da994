"""Where base models lie and when they count as there."""

from __future__ import annotations

import json
from pathlib import Path

from masuka.config import Workspace
from masuka.families.flux import DEV, POCKET, SCHNELL
from masuka.models import catalogue


def half_a_model(folder: Path) -> None:
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "config.json").write_text("{}")
    parts = {
        "_class_name": "FluxPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "image_encoder": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(parts))


def test_a_shipped_base_lies_where_it_is_shipped(workspace: Workspace) -> None:
    assert catalogue.folder_of(POCKET, workspace) == POCKET.folder
    assert catalogue.folder_of(DEV, workspace) == workspace.models / "flux1-dev"


def test_a_download_counts_when_it_was_finished(workspace: Workspace) -> None:
    assert not catalogue.is_installed(SCHNELL, workspace)
    folder = catalogue.folder_of(SCHNELL, workspace)
    half_a_model(folder)
    assert not catalogue.is_installed(SCHNELL, workspace)
    (folder / catalogue.FINISHED).write_text("{}")
    # It learns with an adapter that has not arrived.
    assert not catalogue.is_installed(SCHNELL, workspace)
    adapter = catalogue.training_adapter_of(SCHNELL, workspace)
    assert adapter is not None
    adapter.mkdir()
    (adapter / catalogue.FINISHED).write_text("{}")
    assert catalogue.is_installed(SCHNELL, workspace)
    (folder / "vae" / "config.json").unlink()
    assert not catalogue.is_installed(SCHNELL, workspace)


def test_the_training_adapter_has_a_place(workspace: Workspace) -> None:
    assert catalogue.training_adapter_of(DEV, workspace) is None
    place = catalogue.training_adapter_of(SCHNELL, workspace)
    assert place == workspace.models / "FLUX.1-schnell-training-adapter"


def test_sizes_add_up(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12345")
    (tmp_path / "y").write_bytes(b"123")
    assert catalogue.size_bytes(tmp_path) == 8
    assert catalogue.size_bytes(tmp_path / "none") == 0
