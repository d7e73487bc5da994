"""Models that others made: looked for on the Hugging Face Hub, and looked at before they are taken.

Reads answer within seconds or say that the hub does not; nothing is downloaded here but
indexes and configurations.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from typing import Any, Literal

from masuka.errors import DownloadFailed, InvalidInput, MasukaError
from masuka.families import FAMILIES
from masuka.families.base import Entry
from masuka.models import licences
from masuka.models.catalogue import parts_in
from masuka.models.download import index_in
from masuka.models.fetch import Plan, as_masuka_error, plan, read_small
from masuka.models.files import has_weights, is_pickled, pipeline_files
from masuka.models.recognising import PIPELINES, Found, of_configs

TIMEOUT_S = 8.0
SHOWN = 24
Kind = Literal["base", "lora"]
REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_LIBRARIES = ("diffusers", "transformers")
_BITS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}


@dataclass(frozen=True)
class Offer:
    """A model that somebody else put where everybody finds it.

    `id` names it at its source: a repository, or the number of a CivitAI version. `fits`
    says for which base or family it is, '' when nothing here can use it; `commercial` is
    None where that is not said. `file` is what CivitAI has to download.
    """

    source: Literal["hub", "civitai"]
    id: str
    kind: Kind
    title: str
    author: str
    fits: str
    licence: str
    commercial: bool | None
    gated: bool
    downloads: int
    page: str
    size_bytes: int = 0
    made_for: str = ""


@dataclass(frozen=True)
class Checked:
    """A repository that can be taken: exactly which version, as what, and how large."""

    repo: str
    commit: str
    entry: Entry
    found: Found
    licence: str
    commercial: bool | None
    gated: bool
    size_bytes: int
    notes: tuple[str, ...] = ()


def hub(query: str, kind: Kind, *, token: str = "", endpoint: str | None = None) -> list[Offer]:
    """Models on the hub that match, the most downloaded first.

    Raises RemoteUnavailable when it does not answer in time.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    asked: list[tuple[str, str | int | float | bool | None]] = [
        ("search", query), ("sort", "downloads"), ("direction", -1), ("limit", SHOWN), ("filter", "diffusers"),
    ]  # fmt: skip
    asked.append(("filter", "lora" if kind == "lora" else "text-to-image"))
    asked += [("expand", name) for name in ("downloads", "gated", "tags", "author")]
    try:
        answer = get_session().get(
            f"{endpoint or constants.ENDPOINT}/api/models", params=asked, timeout=TIMEOUT_S,
            headers=build_hf_headers(token=token or False),
        )  # fmt: skip
        hf_raise_for_status(answer)
        listed = answer.json()
    except Exception as error:  # the client's own errors, which differ by version
        raise as_masuka_error(error, "the search") from error
    found = [_offer(about, kind) for about in listed if isinstance(about, dict) and about.get("id")]
    return [offer for offer in found if kind == "lora" or offer.fits or "lora" not in offer.made_for]


def check(repo: str, revision: str | None, *, token: str = "", endpoint: str | None = None) -> Checked:
    """What the repository is, once it is sure that it can be used here.

    Raises InvalidInput for no name of a repository, for a kind that nothing here knows,
    for weights that only lie in pickles, and for a model that needs code of its own;
    AccessDenied where it is not there or its licence was not accepted; RemoteUnavailable.
    """
    repo = clean_repo(repo)
    listed = plan(repo, revision or None, ("*",), endpoint=endpoint, token=token or None)
    index = index_in(listed, token=token or None)
    must_need_no_code(repo, index)
    parts = parts_in(index)
    chosen = pipeline_files(listed.files, parts)
    wanted = Plan(listed.repo, listed.commit, chosen, listed.endpoint)
    looked_at = [part for part in parts if part in ("transformer", "unet", "scheduler")]
    configs = {part: _config(wanted, part, token) for part in looked_at}
    found = of_configs(index, configs, parameters=_parameters(wanted, parts, token))
    bare = [part for part in (found.family.denoiser_part, "vae") if part in parts and not has_weights(chosen, part)]
    if bare:
        raise InvalidInput(
            f"{repo} keeps its weights as pickles, which can run code when they are opened.",
            "Take a copy of it in safetensors.", field="repo",
        )  # fmt: skip
    name, commercial = licences.named(listed.licence)
    left = sum(1 for f in listed.files if is_pickled(f.path) or f.path.endswith(".py"))
    notes = (f"{left} files that could run code are left where they are.",) if left else ()
    return Checked(repo, listed.commit, found.entry, found, name, commercial, listed.gated, wanted.size, notes)


def clean_repo(text: str) -> str:
    """The repository's name, also out of its page's address; raises InvalidInput."""
    bare = re.sub(r"^https?://(www\.)?huggingface\.co/", "", text.strip()).split("?")[0].strip("/")
    name = "/".join(bare.split("/")[:2])
    if not REPO.fullmatch(name) or ".." in name or bare.startswith(("datasets/", "spaces/")):
        raise InvalidInput("This names no model on Hugging Face.", "It looks like somebody/model.", field="repo")
    return name


def must_need_no_code(repo: str, index: dict[str, Any]) -> None:
    """Raises InvalidInput when the model says that its own code is to be run."""
    parts = [about for name, about in index.items() if not name.startswith("_") and isinstance(about, list)]
    classes = [str(about[0]) for about in parts if about and about[0] is not None]
    own = [library for library in classes if library.split(".")[0] not in _LIBRARIES]
    # diffusers' names of pipelines (stable_diffusion for its safety checker) are its own modules.
    own = [library for library in own if not re.fullmatch(r"(stable_diffusion|flux|latent_diffusion)\w*", library)]
    if own or not isinstance(index.get("_class_name"), str):
        raise InvalidInput(
            f"{repo} needs code of its own, and code from elsewhere is never run here.",
            "Take a model that diffusers knows by itself.", field="repo",
        )  # fmt: skip


def _offer(about: dict[str, Any], kind: Kind) -> Offer:
    tags = [str(tag) for tag in about.get("tags") or []]
    word = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), "")
    licence, commercial = licences.named(word)
    pipeline = next((tag.removeprefix("diffusers:") for tag in tags if tag.startswith("diffusers:")), "")
    bases = [tag.split(":")[-1] for tag in tags if tag.startswith("base_model:")]
    repo = str(about["id"])
    made_for = bases[0] if kind == "lora" and bases else pipeline
    return Offer(
        source="hub", id=repo, kind=kind, title=repo.rsplit("/", 1)[-1], author=repo.partition("/")[0],
        fits=made_for if kind == "lora" else _title(pipeline), licence=licence, commercial=commercial,
        gated=bool(about.get("gated")), downloads=int(about.get("downloads") or 0),
        page=f"https://huggingface.co/{repo}", made_for="lora" if kind == "base" and "lora" in tags else made_for,
    )  # fmt: skip


def _title(pipeline: str) -> str:
    """The title of the family that knows the pipeline, '' when none does."""
    family = FAMILIES.get(PIPELINES.get(pipeline, ""))
    return "" if family is None else family.title


def _config(wanted: Plan, part: str, token: str) -> dict[str, Any]:
    names = {file.path for file in wanted.files}
    for name in (f"{part}/config.json", f"{part}/scheduler_config.json"):
        if name in names:
            try:
                read = json.loads(read_small(wanted, name, token=token or None))
            except ValueError as error:
                raise DownloadFailed(f"{name} of {wanted.repo} cannot be read.", "Take another one.") from error
            return read if isinstance(read, dict) else {}
    return {}


def _parameters(wanted: Plan, parts: list[str], token: str) -> int:
    """The denoiser's parameters: bytes of its weights by the format its first file names."""
    part = next((name for name in ("transformer", "unet") if name in parts), "-")
    weights = [f for f in wanted.files if f.path.startswith(f"{part}/") and f.path.endswith(".safetensors")]
    if not weights:
        return 0
    try:
        length = struct.unpack("<Q", read_small(wanted, weights[0].path, first=8, token=token or None))[0]
        if length > 2**24:
            return 0
        header = json.loads(read_small(wanted, weights[0].path, first=8 + length, token=token or None)[8:])
        formats = {str(about.get("dtype")) for name, about in header.items() if name != "__metadata__"}
    except (struct.error, ValueError, AttributeError, MasukaError):
        # Only tells sizes of one family apart; what is wrong with the file the download says.
        return 0
    return sum(file.size for file in weights) // max((_BITS.get(name, 2) for name in formats), default=2)
