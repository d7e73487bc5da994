"""Training against plain loops that do what diffusers' own examples do, and against its goals."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import contest, spine_training, training_losses, training_sdxl
from benchmarks.harness import Bars, Figures, Parts, bar, say

PAIRS = 20
SAME_LOSS = 1e-4
PRECISIONS = ("bf16", "fp32")


def parts() -> Parts:
    """Steps and memory, losses, what is added around a step, Pocket, kills."""
    from benchmarks.hosting import killed_trainings

    return {
        "flux_steps": flux_steps,
        "sdxl_steps": sdxl_steps,
        "losses": losses,
        "overhead": overhead,
        "pocket": pocket_likeness,
        "kills": killed_trainings,
    }


def flux_steps() -> tuple[Figures, Bars]:
    """Seconds a step and peak memory on a FLUX of 512 wide with 4 + 8 blocks."""
    say("FLUX steps against the plain loop")
    with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
        return _steps(partial(spine_training.compare, spine_training.MEDIUM, pairs=PAIRS, root=Path(folder)))


def sdxl_steps() -> tuple[Figures, Bars]:
    """Seconds a step and peak memory on an SDXL whose UNet has 58 million weights."""
    say("SDXL steps against the plain loop")
    with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
        return _steps(partial(training_sdxl.compare, pairs=PAIRS, root=Path(folder)))


def _steps(compare: partial[dict[str, float]]) -> tuple[Figures, Bars]:
    figures: Figures = {}
    for precision in PRECISIONS:
        figures |= compare(precision)
    return figures, contest.bars(figures)


def losses() -> tuple[Figures, Bars]:
    """The largest difference of the first 20 losses, the plain loop without caches."""
    figures: Figures = {}
    for name, (params, plain) in LOOPS.items():
        say(f"the same losses, {name}")
        with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
            asked = params(Path(folder))
            figures[f"{name}_loss_difference"] = training_losses.difference(
                asked, Path(folder), partial(plain, asked, cached=False)
            )
    return figures, {name: bar(value, f"<= {SAME_LOSS}") for name, value in figures.items()}


def overhead() -> tuple[Figures, Bars]:
    """The share of a step that is neither forward, backward nor optimiser."""
    figures: Figures = {}
    for name, (params, _) in LOOPS.items():
        say(f"what is added around a step, {name}")
        with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
            figures[f"{name}_overhead"] = training_losses.overhead(params(Path(folder)), Path(folder))
    return figures, {name: bar(value, "<= 0.05") for name, value in figures.items()}


def pocket_likeness() -> tuple[Figures, Bars]:
    """A LoRA of a robot that Pocket has never seen: seconds, and what it draws."""
    from benchmarks.pocket import learns_a_character
    from masuka import pocket
    from masuka.pocket.judge import Judge

    figures, bars = learns_a_character(Judge.load(pocket.JUDGE_FOLDER))
    return figures, bars | {"lora_training_s": bar(figures["lora_training_s"], "<= 120")}


def _flux(root: Path) -> dict[str, Any]:
    spine_training.build(spine_training.MEDIUM, root / "model")
    params = spine_training.train_params(spine_training.MEDIUM, root, "fp32")
    params["request"] |= {"caption_dropout": 0.0, "lr_warmup_steps": 0, "weight_decay": 1e-4}
    return params


def _sdxl(root: Path) -> dict[str, Any]:
    training_sdxl.build(root / "model")
    return training_sdxl.train_params(root, "fp32")


def _plain_flux(params: dict[str, Any], **values: Any) -> Any:
    return spine_training.plain(params, spine_training.MEDIUM, "fp32", **values)


def _plain_sdxl(params: dict[str, Any], **values: Any) -> Any:
    return training_sdxl.plain(params, "fp32", **values)


LOOPS: dict[str, tuple[Callable[[Path], dict[str, Any]], Callable[..., Any]]] = {
    "flux": (_flux, _plain_flux),
    "sdxl": (_sdxl, _plain_sdxl),
}
"""For each family: what makes a model with its params in fp32, and the plain loop on them."""
