"""The job that draws sample pictures: a data set of one little robot nobody has seen."""

from __future__ import annotations

from typing import Any

from masuka.datasets.decoding import Decoded
from masuka.datasets.exchange import forget_asked
from masuka.datasets.intake import intake_of, look
from masuka.datasets.keeping import encode
from masuka.jobs.reporter import Reporter
from masuka.pocket.world import character_set


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Counts of pictures added and known; the same seed draws the same pictures."""
    intake = intake_of(params, reporter)
    seed, count = int(params["seed"]), int(params["count"])
    reporter.stage("Drawing")
    reporter.check()
    drawn = character_set(seed, count)
    reporter.stage("Adding pictures")
    for number, (image, caption) in enumerate(drawn, start=1):
        reporter.check()
        name = f"robot-{seed}-{number:02}.png"
        intake.take(encode(Decoded(image, ".png")), image, name=name, caption=caption)
        reporter.progress(number, count)
    look(intake, params)
    forget_asked(params)
    return intake.result()
