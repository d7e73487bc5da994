"""The notebook runs from top to bottom in a real kernel, and leaves real files."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

import colab_setup
from masuka.config import Settings, Workspace
from masuka.studio import Studio
from tests.notebooks.kernels import STAND_IN

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "masuka_cells.ipynb"


@pytest.mark.parametrize("name", ["masuka_colab.ipynb", "masuka_cells.ipynb"])
def test_a_notebook_names_the_same_repository_and_keeps_no_output(name: str) -> None:
    found = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    source = "\n".join(c.source for c in found.cells)
    assert f'REPOSITORY = "{colab_setup.REPOSITORY}"' in source
    assert f'VERSION = "{colab_setup.VERSION}"' in source
    assert found.metadata.accelerator == "GPU"
    assert found.metadata.colab.gpuType == "T4"
    for cell in found.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    words = " ".join(c.source for c in found.cells if c.cell_type == "markdown")
    assert "without their consent" in words


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jupyter_client's and zmq's own, at start and end
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # jupyter_client leaves its event loop open
def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASUKA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MASUKA_DEVICE", "cpu")
    # The kernel's Python has everything; the setup must find that out, not install.
    monkeypatch.setenv("COLAB_RELEASE_TAG", "a notebook")
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    monkeypatch.setenv("COLAB_STAND_IN_LOG", str(tmp_path / "asked.jsonl"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source = parameters.source.replace("STEPS = 0", "STEPS = 20")
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.execute()
    shown = "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    assert "20 steps, loss" in shown
    assert (tmp_path / "drive" / "MyDrive" / "MASUKA").is_dir()
    assert "Everything written to Drive was sent" in shown
    images = [
        o
        for c in notebook.cells
        if c.cell_type == "code"
        for o in c.outputs
        if "image/png" in o.get("data", {})
    ]
    assert len(images) == 4 + 2
    with Studio.open(Settings(Workspace(tmp_path / "home"), device="cpu")) as studio:
        items = studio.library.items()
        assert len(items) == 2
        with Image.open(studio.media("item", items[0].id)) as drawn:
            assert drawn.size == (128, 128)
        assert len(studio.models.adapters()) == 1
        assert studio.datasets.list()[0].picture_count == 20
