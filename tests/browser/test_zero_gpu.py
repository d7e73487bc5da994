"""A Space on ZeroGPU, as its visitor uses it: a picture is drawn on a GPU that is lent to one request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from masuka.pocket import FOLDER
from masuka.studio import Studio
from tests.browser.conftest import ROOT, App, start, stop

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not (FOLDER / "model_index.json").exists(), reason="Pocket's weights are not built"),
]
Visit = Callable[..., Page]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.jsonl"
    file.write_text("ok\n")
    return file


@pytest.fixture
def zero(tmp_path: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """An app that finds itself on ZeroGPU, with a stand-in of the package `spaces`."""
    for name, value in {
        "SPACE_ID": "me/masuka", "SPACES_ZERO_GPU": "true", "MASUKA_ZERO_GPU_PLAN": str(plan),
        "PYTHONPATH": str(ROOT / "tests" / "zero_gpu"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    app = start(tmp_path / "home")
    yield app
    stop(app)


def test_pocket_draws_on_a_gpu_that_is_lent(zero: App, plan: Path, visit: Visit) -> None:
    page = visit(zero, tab="images", refused=True)  # a preview that is not there yet
    page.context.set_extra_http_headers({"x-ip-token": "of-this-visitor"})
    page.locator("#images-form-prompt").fill("a happy blue robot in the snow")
    page.get_by_role("button", name="Draw 1 picture").click()
    expect(page.locator("#images-earlier .tile")).to_have_count(1)

    mode, asked = plan.read_text().splitlines()
    assert mode == "ok"
    told = json.loads(asked)
    assert told == {"seconds": 80, "in_event": True, "token": "of-this-visitor", "pid": zero.process.pid}

    plan.write_text("quota\n")
    page.get_by_role("button", name="Draw 1 picture").click()
    expect(page.locator("#images-now .job.failed")).to_contain_text("ZeroGPU lends no more time now")
    with Studio.open(zero.settings) as studio:
        assert [job.state for job in studio.jobs.list()] == ["failed", "done"]
        (item,) = studio.library.items()
        assert item.prompt == "a happy blue robot in the snow"
