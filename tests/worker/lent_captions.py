"""A studio on ZeroGPU, with the stand-in of `spaces`: what needs no GPU, and Pocket's captions.

python -m tests.worker.lent_captions WORKSPACE prints what became of both, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from masuka.config import Settings, Workspace
from masuka.hosting import zero
from masuka.studio import Studio

PATIENCE_S = 240.0


def main(root: Path) -> None:
    settings = Settings(workspace=Workspace(root), device="cpu")
    lend = zero.lender(settings)
    with Studio.open(settings, workers="processes", lend=lend) as studio:
        dataset = studio.datasets.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
        samples = studio.jobs.wait(studio.datasets.add_samples(dataset.id, count=4), timeout_s=PATIENCE_S)
        job = studio.captions.start(dataset.id)
        before = studio.jobs.get(job.id).state
        studio.jobs.run_lent()  # as the page's event does after the action
        after = studio.jobs.get(job.id)
        wrote = [picture.caption_from for picture in studio.datasets.every_picture(dataset.id)]
        told = {"samples": samples.state, "before": before, "after": after.state, "result": after.result}
        if studio._context.supervisor is not None:
            studio._context.supervisor.stop(end_workers=True)
    print(json.dumps({**told, "error": after.error, "from": wrote}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
