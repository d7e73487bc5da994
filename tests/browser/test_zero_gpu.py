"""A Space on ZeroGPU, as its visitor uses it: a picture is drawn on a GPU that is lent to one request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from masuka.pocket import FOLDER
from masuka.studio import Studio
from tests.browser.conftest import PATIENCE_MS, ROOT, App, start, stop

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not (FOLDER / "model_index.json").exists(), reason="Pocket's weights are not built"),
]
Visit = Callable[..., Page]
DRAWN_MS = 5 * PATIENCE_MS
"""Two processes load torch and the model beside all the others of a busy machine."""
PROMPTS = ("a happy blue robot in the snow", "a red robot on a beach")


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
    # The second is asked for while the first is drawn: its own event borrows for it.
    for prompt in PROMPTS:
        page.locator("#images-form-prompt").fill(prompt)
        page.get_by_role("button", name="Draw 1 picture").click()
        expect(page.locator("#images-now [data-job]").first).to_be_visible()
    expect(page.locator("#images-earlier .tile")).to_have_count(2, timeout=DRAWN_MS)

    mode, *asked = plan.read_text().splitlines()
    assert mode == "ok"
    told = {"seconds": 80, "in_event": True, "token": "of-this-visitor", "pid": zero.process.pid}
    assert [json.loads(line) for line in asked] == [told, told]

    plan.write_text("quota\n")
    page.get_by_role("button", name="Draw 1 picture").click()
    expect(page.locator("#images-now .job.failed")).to_contain_text("ZeroGPU lends no more time now")
    with Studio.open(zero.settings) as studio:
        assert [job.state for job in studio.jobs.list()] == ["failed", "done", "done"]
        assert sorted(item.prompt for item in studio.library.items()) == sorted(PROMPTS)
