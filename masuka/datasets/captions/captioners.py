"""Who can write captions: each captioner's facts. Light: nothing of a model is loaded here.

`loads` is 'module:function', called as function(folder, device, params, check) in a worker; it
gives back a `Speaker`, which calls `check` often: it raises Stop when somebody cancels. Whether a captioner is ready is for the studio to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from masuka.errors import MasukaError, NotFound

if TYPE_CHECKING:
    from PIL import Image

Where = Literal["here", "hub", "hosted"]
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.csv", "LICENSE*", "README.md")
"""What is fetched of a captioner's repository: weights as safetensors, never pickles or code."""


@dataclass(frozen=True)
class Wish:
    """What is asked of a captioner: the style, what to leave out, and who is shown."""

    style: str
    class_word: str
    constant: Sequence[str] = ()


class Speaker(Protocol):
    """A loaded captioner. `batch` pictures at a time are the most it takes well."""

    batch: int

    def say(self, images: Sequence[Image.Image], wish: Wish) -> Sequence[str | MasukaError]:
        """What each RGB picture shows, in words, or why it cannot say so; one for each.

        What it raises is about the whole batch.
        """
        ...


@dataclass(frozen=True)
class Entry:
    """One captioner. `size_gib` is the download, `memory_gib` what it needs loaded.

    `key` names the key of its service, `model` the service's model, `address` where it is.
    """

    name: str
    title: str
    about: str
    where: Where
    licence: str
    loads: str
    size_gib: float = 0.0
    memory_gib: float = 0.5
    repo: str = ""
    revision: str | None = None
    folder: Path | None = None
    commercial: bool = True
    key: str = ""
    model: str = ""
    address: str = ""
    synonyms: Sequence[Sequence[str]] = field(default=())
    """Words it uses for one thing, beside those that everybody does."""


_POCKET_WORDS = (
    ("happy", "smiling", "cheerful"), ("angry", "cross", "grumpy"), ("sleepy", "tired", "dozing"),
    ("surprised", "amazed", "astonished"), ("round", "circular"), ("square", "boxy"), ("tall", "slim"),
    ("triangle", "triangular"), ("spotted", "dotted"), ("in a meadow", "on the grass", "in the meadow"),
    ("on a beach", "by the sea", "on the beach"), ("at night", "under the stars", "in the moonlight"),
    ("in a city", "in town", "in the city"), ("in the snow", "on snow", "in winter"),
    ("at sunset", "in the evening", "at sundown"),
)  # fmt: skip

CAPTIONERS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "pocket", "Pocket", "Comes with MASUKA and names what Pocketworld's robots look like; knows nothing else.",
            "here", "Apache-2.0", "masuka.datasets.captions.pocket:load", size_gib=0.004,
            folder=Path(__file__).parents[2] / "pocket" / "weights" / "captioner", synonyms=_POCKET_WORDS,
        ),
        Entry(
            "florence-2", "Florence-2", "Small and quick; plain sentences about photos and drawings.",
            "hub", "MIT", "masuka.datasets.captions.florence:load", size_gib=0.5, memory_gib=2.0,
            repo="florence-community/Florence-2-base",
        ),
        Entry(
            "blip-2", "BLIP-2", "Short sentences; large for what it says. Its language part, OPT, is for research only.",
            "hub", "MIT; OPT's own licence", "masuka.datasets.captions.blip2:load", size_gib=14.5, memory_gib=8.5,
            repo="Salesforce/blip2-opt-2.7b", commercial=False,
        ),
        Entry(
            "qwen3-vl", "Qwen3-VL 2B", "Follows what is asked: the style, what to leave out, the order.",
            "hub", "Apache-2.0", "masuka.datasets.captions.qwen:load", size_gib=4.0, memory_gib=6.0,
            repo="Qwen/Qwen3-VL-2B-Instruct",
        ),
        Entry(
            "wd-tagger", "WD tagger", "Booru tags for anime and drawings.",
            "hub", "Apache-2.0", "masuka.datasets.captions.tagger:load", size_gib=0.4, memory_gib=1.0,
            repo="SmilingWolf/wd-vit-tagger-v3", revision="7f6b584d0bd3f55c4531f14ba3d4761b2bccdc0f",
        ),
        Entry(
            "openai", "OpenAI or alike", "A vision model of any service that speaks OpenAI's language. "
            "Your pictures are sent there.",
            "hosted", "The service's terms", "masuka.providers.vision:load", key="OPENAI_API_KEY", model="gpt-4o-mini",
            address="https://api.openai.com/v1",
        ),
        Entry(
            "together", "Together", "A vision model at Together. Your pictures are sent there.",
            "hosted", "The service's terms", "masuka.providers.vision:load", key="TOGETHER_API_KEY",
            model="meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", address="https://api.together.xyz/v1",
        ),
        Entry(
            "hugging-face", "Hugging Face", "A vision model at a provider that Hugging Face chooses. "
            "Your pictures are sent there.",
            "hosted", "The service's terms", "masuka.providers.vision:load", key="HF_TOKEN",
            model="Qwen/Qwen2.5-VL-7B-Instruct", address="https://router.huggingface.co/v1",
        ),
    )
}  # fmt: skip
"""Repositories and classes as transformers 5 documents them; Hugging Face, November 2026."""


def captioner_named(name: str) -> Entry:
    """The captioner of that name; raises NotFound."""
    try:
        return CAPTIONERS[name]
    except KeyError:
        known = ", ".join(CAPTIONERS)
        raise NotFound(f"There is no captioner named {name!r}.", f"Known are: {known}.") from None


def loaded(entry: Entry, params: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> Speaker:
    """The captioner, loaded on the device of `params`; the slow part of a job."""
    from importlib import import_module

    module, _, name = entry.loads.partition(":")
    folder = Path(params["folder"]) if params.get("folder") else None
    speaker: Speaker = getattr(import_module(module), name)(
        folder, params.get("device", "auto"), params, check
    )
    return speaker
