"""Which files of a hub repository a base consists of; the rest is left where it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import PurePosixPath

from masuka.models.fetch import RemoteFile

BESIDE = (".json", ".txt", ".model", ".jinja")
"""Configurations and tokenizers, as they lie beside the weights."""
ABOUT = ("README.md", "LICENSE*", "LICENCE*", "*_model_index.json", "model_index.json")
STEMS = ("diffusion_pytorch_model", "model")
"""How the weights' files begin that diffusers and transformers look for."""
IN_FULL = "vae"
"""The part that is taken in full precision: it is small, and rounding it shows in every picture."""
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".msgpack", ".h5")
_VARIANT = re.compile(r"\.(fp16|bf16)(?=[.-])")
_HALF = 0.7
"""A variant with fewer of the bytes is half precision beside full precision."""


def pipeline_files(
    listed: Sequence[RemoteFile], parts: Sequence[str], *, without: Sequence[str] = ()
) -> tuple[RemoteFile, ...]:
    """The files of a diffusers folder that are needed: its index and its parts.

    Where a part is there in full and in half precision, the half is taken and gets the
    name of the full one. `without` are parts that come from elsewhere.
    """
    wanted = [file for file in listed if "/" not in file.path and _is_about(file.path)]
    for part in parts:
        if part not in without:
            inside = [file for file in listed if str(PurePosixPath(file.path).parent) == part]
            wanted += _of_part(inside, in_full=part == IN_FULL)
    return tuple(sorted(wanted, key=lambda file: file.path))


def autoencoder_files(listed: Sequence[RemoteFile], part: str = IN_FULL) -> tuple[RemoteFile, ...]:
    """The files of a repository that is one VAE, to be put where a base has its own."""
    top = [file for file in listed if "/" not in file.path and not fnmatch(file.path, "README*")]
    return tuple(replace(file, to=f"{part}/{file.place}") for file in _of_part(top, in_full=True))


def has_weights(files: Sequence[RemoteFile], part: str) -> bool:
    """Whether a part of these files has safe weights, or needs none."""
    inside = [file for file in files if file.place.startswith(f"{part}/")]
    return any(file.path.endswith(".safetensors") for file in inside)


def is_pickled(path: str) -> bool:
    """Whether such a file could run code when it is read."""
    return PurePosixPath(path).suffix.lower() in PICKLED


def _of_part(inside: Sequence[RemoteFile], *, in_full: bool) -> list[RemoteFile]:
    weights = [file for file in inside if _is_weights(file.path)]
    beside = [f for f in inside if f not in weights and f.path.endswith(BESIDE)]
    known = [file for file in weights if PurePosixPath(file.path).name.startswith(STEMS)]
    return beside + _one_precision(known or weights, in_full=in_full)


def _one_precision(weights: Sequence[RemoteFile], *, in_full: bool) -> list[RemoteFile]:
    """The weights once, whatever variants there are."""
    full = [file for file in weights if not _VARIANT.search(PurePosixPath(file.path).name)]
    for variant in ("bf16", "fp16"):
        half = [file for file in weights if (m := _VARIANT.search(file.path)) and m.group(1) == variant]
        smaller = sum(f.size for f in half) < _HALF * sum(f.size for f in full)
        if half and _is_whole(half) and (not full or (smaller and not in_full)):
            return [_plainly(file) for file in half]
    return full


def _is_whole(files: Sequence[RemoteFile]) -> bool:
    """Whether the files are one set of weights: a single file, or shards with their index."""
    names = [file.path for file in files]
    return len(names) == 1 or any(name.endswith(".json") for name in names)


def _plainly(file: RemoteFile) -> RemoteFile:
    """The same without the variant in its name; shards are called by their index as they are."""
    sharded = re.search(r"-\d+-of-\d+", file.path)
    return file if sharded else replace(file, to=_VARIANT.sub("", file.path, count=1))


def _is_weights(path: str) -> bool:
    return path.endswith(".safetensors") or ".safetensors.index" in path


def _is_about(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in ABOUT)
