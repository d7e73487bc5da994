"""What a training computes once: text embeddings and latents, on disk by content.

A training whose caches are whole loads neither text encoders nor VAE; trainings of the
same pictures on the same base share them. A cache file that is damaged counts as missing.
Knows nothing about the order of training.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from masuka.datasets.buckets import Shape, smaller_shape
from masuka.datasets.varying import PLAIN, Variation, scale_of, variation
from masuka.families.base import Family
from masuka.jobs.reporter import LATENTS, NAME_OF_PICTURE, Reporter
from masuka.models.catalogue import FINISHED
from masuka.models.loading import free_memory
from masuka.requests.edits import Augment
from masuka.training.pictures import Picture, place_of, seen

CACHE_VERSION = 1
CAPTIONS_AT_ONCE = 8
TAIL_BYTES = 4096
SAMPLED = 512
"""Places of a file of a base that was made here, at which it is read."""
WEIGHTS = "weights"
MOST_BYTES = 20 * 2**30
"""Shared caches may take this much: some thousand pictures at 1024 px, or captions of FLUX."""
UNTOUCHED_S = 3600
UNCOVERED = 0.1
"""How much a place outside the mask still counts (OneTrainer's default too)."""


@dataclass(frozen=True)
class Source:
    """The base model whose encoders fill the caches, and how they compute.

    `dtype` is the VAE's; `text_dtype` goes to the family, which knows its encoders.
    """

    family: Family
    folder: Path
    device: str
    dtype: torch.dtype
    text_dtype: torch.dtype

    def fingerprint(self) -> str:
        """A hash of the base's files: names, sizes and last bytes.

        Reading 24 GiB for every start would cost a minute; the last bytes of a weights
        file are weights, which two versions do not share.
        """
        digest = hashlib.sha256()
        for file in sorted(self.folder.rglob("*.safetensors")):
            size = file.stat().st_size
            digest.update(f"{file.relative_to(self.folder).as_posix()}\0{size}\0".encode())
            with file.open("rb") as opened:
                opened.seek(max(0, size - TAIL_BYTES))
                digest.update(opened.read())
        return digest.hexdigest()


    def contents(self) -> str:
        """A hash by which caches of two bases are told apart.

        A base that was made from another may differ from it anywhere but at the end of its
        files, as where a LoRA was baked into its text encoder: such a one is read at many places.
        """
        note = self.folder / FINISHED
        if not note.is_file() or "source" not in json.loads(note.read_text(encoding="utf-8")):
            return self.fingerprint()
        digest = hashlib.sha256(self.fingerprint().encode())
        for file in sorted(self.folder.rglob("*.safetensors")):
            size = file.stat().st_size
            with file.open("rb") as opened:
                for start in range(0, size, max(TAIL_BYTES, size // SAMPLED)):
                    opened.seek(start)
                    digest.update(opened.read(TAIL_BYTES))
        return digest.hexdigest()


@dataclass(frozen=True)
class Texts:
    """Embeddings of all texts, stacked: name → (N, …) on the CPU."""

    tensors: Mapping[str, Tensor]
    texts: tuple[str, ...]

    def row(self, text: str) -> int:
        return self.texts.index(text)

    def one(self, text: str) -> dict[str, Tensor]:
        """The embedding of one text, with a batch of one."""
        row = self.row(text)
        return {name: tensor[row : row + 1] for name, tensor in self.tensors.items()}


@dataclass(frozen=True)
class Variant:
    """The pictures of a bucket, varied in one way: posteriors and weights, stacked."""

    posterior: Mapping[str, Tensor]
    weights: Tensor | None = None
    """(N, 1, h, w), how much each place counts; None where every place counts alike."""


@dataclass(frozen=True)
class Bucket:
    """The pictures of one shape, which picture each row is, and their variants."""

    shape: Shape
    posterior: Mapping[str, Tensor]
    pictures: tuple[int, ...]
    weights: Tensor | None = None
    varied: tuple[Variant, ...] = ()

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All of them, the pictures as they are first."""
        return (Variant(self.posterior, self.weights), *self.varied)


@dataclass(frozen=True)
class Latents:
    """Every bucket, and the VAE's configuration, which scales what is drawn from them."""

    buckets: tuple[Bucket, ...]
    autoencoder_config: Mapping[str, Any]


class CacheFolder:
    """Tensors by content key, one file each; written whole or not at all."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity
        self._of_pictures = folder.name == LATENTS
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, *parts: str) -> Path:
        """The place of what these parts describe; a picture's begins with its name."""
        key = "\0".join((str(CACHE_VERSION), self._identity, *parts))
        first = f"{parts[0][:NAME_OF_PICTURE]}-" if self._of_pictures else ""
        return self._folder / f"{first}{hashlib.sha256(key.encode()).hexdigest()[:40]}.safetensors"

    def beside(self, name: str) -> Path:
        """A file about the encoder itself, the same for everything of this identity."""
        return self._folder / f"{hashlib.sha256(self._identity.encode()).hexdigest()[:40]}.{name}"

    def get(self, *parts: str) -> dict[str, Tensor] | None:
        """The tensors, or None where they are missing or damaged."""
        file = self.file(*parts)
        try:
            tensors: dict[str, Tensor] = load_file(file)
            os.utime(file)  # what was used last stays longest
            return tensors
        except (FileNotFoundError, SafetensorError):
            return None

    def put(self, tensors: Mapping[str, Tensor], *parts: str) -> None:
        file = self.file(*parts)
        # Two trainings may make the same at the same time.
        part = file.with_suffix(f".{os.getpid()}.part")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
        part.replace(file)


def keep_within(folder: Path, most_bytes: int = MOST_BYTES) -> None:
    """Deletes what was used longest ago, until the caches take no more than that.

    What was used within the last hour stays: another training may be filling its own.
    """
    files = [file for file in folder.rglob("*") if file.is_file()]
    used = sorted(((file.stat().st_mtime, file) for file in files), reverse=True)
    total, recently = 0, time.time() - UNTOUCHED_S
    for at, file in used:
        total += file.stat().st_size
        if total > most_bytes and at < recently:
            file.unlink(missing_ok=True)


def cache_texts(source: Source, folder: Path, texts: Sequence[str], reporter: Reporter) -> Texts:
    """The embeddings of every distinct text, the empty one always first.

    Encoders are loaded only for what is missing, and are gone when this returns.
    """
    wanted = tuple(dict.fromkeys(("", *texts)))
    cache = CacheFolder(folder / "texts", f"{source.contents()} {source.text_dtype}")
    rows = {text: row for text in wanted if (row := cache.get(text)) is not None}
    reporter.progress(len(rows), len(wanted))
    missing = [text for text in wanted if text not in rows]
    if missing:
        for text, row in _encoded(source, missing, reporter):
            cache.put(row, text)
            rows[text] = row
            reporter.progress(len(rows), len(wanted))
        free_memory()
    names = rows[""]
    return Texts({name: _padded([rows[text][name] for text in wanted]) for name in names}, wanted)


def _padded(rows: Sequence[Tensor]) -> Tensor:
    """The rows (1, T, …) as one tensor, shorter ones padded with zeros; masks say where."""
    if rows[0].dim() < 2 or len({row.shape[1] for row in rows}) == 1:
        return torch.cat(list(rows))
    longest = max(row.shape[1] for row in rows)
    padded = [
        torch.cat([row, row.new_zeros(1, longest - row.shape[1], *row.shape[2:])], dim=1) for row in rows
    ]
    return torch.cat(padded)


def _encoded(
    source: Source, texts: Sequence[str], reporter: Reporter
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    encoder = source.family.text_encoder(source.folder, dtype=source.text_dtype, device=source.device)
    for start in range(0, len(texts), CAPTIONS_AT_ONCE):
        reporter.check()
        chunk = texts[start : start + CAPTIONS_AT_ONCE]
        with torch.no_grad():
            encoded = source.family.encode_text(encoder, chunk)
        for number, text in enumerate(chunk):
            yield text, {name: rows[number : number + 1].cpu().clone() for name, rows in encoded.items()}


def cache_latents(
    source: Source,
    folder: Path,
    pictures: Sequence[Picture],
    shapes: Sequence[Shape],
    reporter: Reporter,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    variety: Variety | None = None,
) -> Latents:
    """Posterior mean and deviation of every picture, sorted into buckets.

    The posterior is kept, not a draw from it: each step draws afresh. The VAE is loaded
    only for what is missing, and is gone when this returns. `sizes` are those of the
    edited pictures, needed where one has a focus; `variety` says how they are varied.
    """
    cache = CacheFolder(folder / LATENTS, f"{source.contents()} {source.dtype}")
    config_file = cache.beside("json")
    known: Sequence[tuple[int, int] | None] = sizes or [None] * len(pictures)
    wanted = [
        _wanted(number, picture, shape, size, variety, variant)
        for variant in range(1 if variety is None else variety.variants)
        for number, (picture, shape, size) in enumerate(zip(pictures, shapes, known, strict=True))
    ]
    found = {one.key: row for one in wanted if (row := cache.get(*one.key)) is not None}
    total = len({one.key for one in wanted})
    reporter.progress(len(found), total)
    missing = [one for one in wanted if one.key not in found]
    if missing or not config_file.exists():
        autoencoder = source.family.autoencoder(source.folder, dtype=source.dtype, device=source.device)
        config_file.write_text(json.dumps(dict(autoencoder.config), default=str))  # type: ignore[arg-type]
        for one in missing:
            reporter.check()
            if one.key not in found:
                found[one.key] = _encoded_picture(source, autoencoder, pictures[one.picture], one)
                cache.put(found[one.key], *one.key)
            reporter.progress(len(found), total)
        del autoencoder
        free_memory()
    return Latents(_buckets(wanted, found, shapes), json.loads(config_file.read_text()))


@dataclass(frozen=True)
class Variety:
    """How the pictures of a training are varied."""

    augment: Augment
    seed: int
    base: str

    @property
    def variants(self) -> int:
        return self.augment.variants if self.augment.is_on else 1


@dataclass(frozen=True)
class _Wanted:
    """One variant of one picture; the key names all that decides its latents."""

    picture: int
    variant: int
    shape: Shape
    variation: Variation
    key: tuple[str, ...]


def _wanted(
    number: int,
    picture: Picture,
    shape: Shape,
    size: tuple[int, int] | None,
    variety: Variety | None,
    variant: int,
) -> _Wanted:
    chosen = PLAIN
    if variety is not None:
        chosen = variation(
            variety.augment, seed=variety.seed, name=picture.sha256, number=variant, focus=picture.focus
        )
        shape = smaller_shape(shape, scale_of(variety.augment, variant), variety.base)
    # As it always was for a picture without recipe, cut at its middle: caches of waiting runs hold.
    key = [picture.sha256, str(shape.width), str(shape.height)]
    more = [picture.recipe.key, _place(picture, size, shape, chosen), chosen.key]
    return _Wanted(number, variant, shape, chosen, tuple(key + (more if any(more) else [])))


def _place(picture: Picture, size: tuple[int, int] | None, shape: Shape, chosen: Variation) -> str:
    """A name for where the bucket is cut from the picture; '' for its middle."""
    if picture.focus is None:
        return ""
    if size is None or chosen.key:
        return str(picture.focus)
    return str(place_of(picture, size, shape) or "")


def _encoded_picture(
    source: Source, autoencoder: nn.Module, picture: Picture, one: _Wanted
) -> dict[str, Tensor]:
    shown = seen(picture, one.shape, one.variation)
    with torch.no_grad():
        posterior = source.family.encode_pixels(autoencoder, shown.pixels[None])
    row = {name: tensor.cpu() for name, tensor in posterior.items()}
    if shown.weights is not None:
        # The mean over what one latent sees; outside a little is learnt, so that it does not drift.
        high, wide = next(iter(row.values())).shape[-2:]
        covered = nn.functional.adaptive_avg_pool2d(shown.weights[None], (high, wide))
        row[WEIGHTS] = UNCOVERED + (1 - UNCOVERED) * covered
    return row


def _buckets(
    wanted: Sequence[_Wanted],
    rows: Mapping[tuple[str, ...], Mapping[str, Tensor]],
    shapes: Sequence[Shape],
) -> tuple[Bucket, ...]:
    by_place = {(one.picture, one.variant): rows[one.key] for one in wanted}
    count = 1 + max(one.variant for one in wanted)
    buckets = []
    for shape in sorted(set(shapes)):
        members = tuple(n for n, other in enumerate(shapes) if other == shape)
        first, *others = [_stacked([by_place[n, variant] for n in members]) for variant in range(count)]
        buckets.append(Bucket(shape, first.posterior, members, first.weights, tuple(others)))
    return tuple(buckets)


def _stacked(rows: Sequence[Mapping[str, Tensor]]) -> Variant:
    names = [name for name in rows[0] if name != WEIGHTS]
    posterior = {name: torch.cat([row[name] for row in rows]) for name in names}
    if not any(WEIGHTS in row for row in rows):
        return Variant(posterior)
    plain = torch.ones_like(next(iter(rows[0].values()))[:, :1])
    return Variant(posterior, torch.cat([row.get(WEIGHTS, plain) for row in rows]))
