"""The kinds of job: which lane each runs in, what it is asked with, where its code is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from masuka.errors import NotFound

Lane = Literal["gpu", "cpu", "net"]

DRAWING_S = 80
"""ZeroGPU counts half as much again; that is two minutes, all that a visitor without account has."""
CAPTIONING_S = 80
ASKED_WITH = ("OPENAI_API_KEY", "TOGETHER_API_KEY", "HF_TOKEN")
"""The keys of the services that look at pictures; a job asks one of them."""


@dataclass(frozen=True)
class Kind:
    """`run` is 'module:function', called as function(params, reporter) in a worker.

    `params` is a plain JSON dict, complete: a worker asks nobody. The function returns a
    JSON dict, the job's result. `warm` jobs share one long-lived worker per lane, so that
    models stay loaded; the others get a process of their own. `resumes` jobs go on by
    themselves from their last checkpoint after their process was lost. Where a GPU is
    lent to single requests (ZeroGPU), a job with `lent_s` borrows it for at most so many
    seconds, and runs in the event that asked for it; the others never see it. There it goes
    on only when somebody asks again (`by_itself`), for the time is that person's.
    `keys` are the outside services' keys, by their names in the environment, that its code
    gets; of all others a worker knows nothing.
    """

    name: str
    lane: Lane
    run: str
    title: str
    warm: bool = True
    resumes: bool = False
    lent_s: int = 0
    by_itself: bool = True
    keys: tuple[str, ...] = ()


KINDS = {
    kind.name: kind
    for kind in (
        Kind("import_pictures", "cpu", "masuka.datasets.intake:run", "Adding pictures", resumes=True),
        Kind("import_links", "net", "masuka.datasets.links:run", "Fetching pictures", resumes=True),
        Kind("import_hub", "net", "masuka.datasets.hub:fetch", "Fetching a data set", resumes=True, keys=("HF_TOKEN",)),
        Kind("check_dataset", "cpu", "masuka.datasets.checking:run", "Looking at pictures", resumes=True),
        Kind("export_dataset", "cpu", "masuka.datasets.exchange:run", "Packing a data set"),
        Kind("push_dataset", "net", "masuka.datasets.hub:push", "Sending a data set", keys=("HF_TOKEN",)),
        Kind("find_faces", "cpu", "masuka.datasets.facing:run", "Looking for faces"),
        Kind("cut_out_pictures", "cpu", "masuka.datasets.background:run", "Cutting out"),
        Kind("sample_pictures", "cpu", "masuka.pocket.samples:run", "Drawing sample pictures"),
        Kind("train_image", "gpu", "masuka.training.image:run", "Training", warm=False, resumes=True),
        Kind("edit_adapter", "cpu", "masuka.training.tools:run", "Working on a LoRA"),
        Kind("bake_adapter", "cpu", "masuka.training.baking:run", "Baking a LoRA into a base"),
        Kind("push_adapter", "net", "masuka.models.pushing:run", "Sending a LoRA", keys=("HF_TOKEN",)),
        Kind("try_training", "gpu", "masuka.training.probe:run", "Trying a training", warm=False),
        Kind("export_checkpoint", "gpu", "masuka.training.exporting:run", "Making a LoRA", warm=False),
        Kind(
            "caption_pictures", "gpu", "masuka.datasets.captions.job:run", "Writing captions",
            warm=False, resumes=True, lent_s=CAPTIONING_S,
        ),
        Kind(
            "ask_captions", "net", "masuka.datasets.captions.job:run", "Asking for captions",
            resumes=True, keys=ASKED_WITH,
        ),
        Kind("draw_images", "gpu", "masuka.generation.images:run", "Drawing", lent_s=DRAWING_S),
        Kind("download_model", "net", "masuka.models.download:run", "Downloading", keys=("HF_TOKEN",)),
        # Turning a file into a folder loads models: in a process of its own, whose memory goes with it.
        Kind("import_base", "cpu", "masuka.models.importing:run", "Importing a base", warm=False),
        Kind(
            "fetch_lora", "net", "masuka.models.bringing:run", "Fetching a LoRA", warm=False,
            keys=("CIVITAI_API_KEY", "HF_TOKEN"),
        ),
        Kind("fetch_base", "net", "masuka.models.importing:run", "Fetching a base", warm=False, keys=("CIVITAI_API_KEY",)),
    )
}


def where_lent(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """The same kinds where a GPU is lent: what borrows waits for somebody's request."""
    return {name: replace(kind, by_itself=not kind.lent_s) for name, kind in kinds.items()}


def kind_named(name: str, kinds: Mapping[str, Kind] = KINDS) -> Kind:
    """The kind of that name; raises NotFound."""
    try:
        return kinds[name]
    except KeyError:
        raise NotFound(f"There is no kind of job named {name!r}.", "Update MASUKA.") from None
