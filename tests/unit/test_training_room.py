"""Memory that runs out, and compiled blocks: how a step is computed, never what it learns."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from masuka.errors import NoAccelerator, OutOfMemory
from masuka.families import FAMILIES
from masuka.families.abilities import must_be_able
from masuka.models.ladder import rungs
from masuka.requests.training import TrainImage
from masuka.training.compiling import compile_blocks
from masuka.training.image import prepare
from masuka.training.lora import LeanLayers
from masuka.training.memory import plain_errors
from masuka.training.plan import plan_of
from masuka.training.randomness import own_randomness
from tests.tiny_training import Job, train_params
from tests.unit.test_training_lora import denoiser, gradients


class Shortage:
    """Makes a real model run out of memory so many times, at the end of its forward."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, *_: Any) -> None:
        if self.times:
            self.times -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def trained(root: Path, times: int, **request: Any) -> tuple[Job, dict[int, float]]:
    params = train_params(root, steps=3, batch_size=4, **request)
    job, plan = Job(root), plan_of(params)
    with closing(job), plain_errors(), own_randomness(plan.request.seed):
        training = prepare(plan, job)
        training.step()
        training.learner.denoiser.register_forward_hook(Shortage(times))
        training.step()
        training.step()
    return job, job.losses()


def test_a_step_that_ran_out_of_memory_is_done_again_with_less(tmp_path: Path) -> None:
    _, plain = trained(tmp_path / "plain", 0)
    job, losses = trained(tmp_path / "short", 3)
    assert losses == pytest.approx(plain, abs=1e-6)
    said = [event["text"] for event in job.events("note") if "ran short" in event["text"]]
    assert [text.partition(": ")[2].split(",")[0] for text in said] == [
        "from here on activations are computed again instead of kept.",
        "from here on 2 pictures are computed at once",
        "from here on 1 picture is computed at once",
    ]
    told = [event["about"]["adapted"] for event in job.events("told") if "adapted" in event["about"]]
    assert [len(steps) for steps in told] == [1, 2, 3]
    assert all("step 2" in text for text in said)


def test_with_nothing_left_to_give_up_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory):
        trained(tmp_path, 9, precision="bf16")


def test_it_stops_at_once_where_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory):
        trained(tmp_path, 1, when_memory_runs_short="stop")


def test_compiling_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoAccelerator, match="NVIDIA"):
        Job(tmp_path).run(train_params(tmp_path, compile_blocks=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch.compile itself (2.13), about its own doings
def test_compiled_blocks_learn_the_same_and_still_run_as_peft() -> None:
    """Compiled by the whole front half of torch.compile, which is what may misread our layers."""
    module, named = denoiser()
    expected, expected_gradients = gradients(module, named)
    lean = LeanLayers(module, torch.float32)
    lean.on()
    made: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return graph

    assert compile_blocks(module, backend) == 4
    predicted, found = gradients(module, named)
    assert made and torch.allclose(predicted, expected, atol=1e-5)
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected_gradients[name], rtol=1e-3, atol=1e-7), name
    forms = len(made)
    lean.off()
    assert torch.allclose(gradients(module, named)[0], expected, atol=1e-5)
    both = len(made)
    lean.on()
    assert torch.allclose(gradients(module, named)[0], expected, atol=1e-5)
    assert len(made) == both, "what was compiled before holds again"
    assert forms < 12, "blocks of a kind share it"


@pytest.mark.parametrize(
    "asked",
    [{}, {"quantize": "nf4"}, {"blocks_on_host": 0.25}, {"method": "full"}, {"compile_blocks": True}],
)
def test_every_plan_for_short_memory_is_one_that_can_be_carried_out(asked: dict[str, Any]) -> None:
    request = TrainImage.parse({"dataset_id": 1, "batch_size": 4, **asked})
    found = list(rungs(request, recomputes=False, on_cuda=True))
    assert len(found) > 3
    for rung in found:
        must_be_able(FAMILIES["flux"], rung.request)
