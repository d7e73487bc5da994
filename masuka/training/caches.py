"""What a training computes once: text embeddings and latents, on disk by content.

A restarted training whose caches are whole loads neither text encoders nor VAE. A cache
file that is damaged counts as missing. Knows nothing about the order of training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from masuka.datasets.buckets import Shape
from masuka.families.base import Family
from masuka.jobs.reporter import Reporter
from masuka.models.loading import free_memory
from masuka.training.pictures import Picture, pixels_of

CACHE_VERSION = 1
CAPTIONS_AT_ONCE = 8
TAIL_BYTES = 4096


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
class Bucket:
    """The pictures of one shape: posteriors, stacked, and which picture each row is."""

    shape: Shape
    posterior: Mapping[str, Tensor]
    pictures: tuple[int, ...]


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
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, *parts: str) -> Path:
        """The place of what these parts describe."""
        key = "\0".join((str(CACHE_VERSION), self._identity, *parts))
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.safetensors"

    def get(self, *parts: str) -> dict[str, Tensor] | None:
        """The tensors, or None where they are missing or damaged."""
        try:
            tensors: dict[str, Tensor] = load_file(self.file(*parts))
            return tensors
        except (FileNotFoundError, SafetensorError):
            return None

    def put(self, tensors: Mapping[str, Tensor], *parts: str) -> None:
        file = self.file(*parts)
        part = file.with_suffix(".part")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
        part.replace(file)


def cache_texts(source: Source, folder: Path, texts: Sequence[str], reporter: Reporter) -> Texts:
    """The embeddings of every distinct text, the empty one always first.

    Encoders are loaded only for what is missing, and are gone when this returns.
    """
    wanted = tuple(dict.fromkeys(("", *texts)))
    cache = CacheFolder(folder / "texts", f"{source.fingerprint()} {source.text_dtype}")
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
    return Texts({name: torch.cat([rows[text][name] for text in wanted]) for name in names}, wanted)


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
) -> Latents:
    """Posterior mean and deviation of every picture, sorted into buckets.

    The posterior is kept, not a draw from it: each step draws afresh. The VAE is loaded
    only for what is missing, and is gone when this returns.
    """
    cache = CacheFolder(folder / "latents", f"{source.fingerprint()} {source.dtype}")
    config_file = folder / "latents" / "autoencoder.json"
    keys = [(p.sha256, str(s.width), str(s.height)) for p, s in zip(pictures, shapes, strict=True)]
    rows = {key: row for key in keys if (row := cache.get(*key)) is not None}
    reporter.progress(len(rows), len(set(keys)))
    missing = [n for n, key in enumerate(keys) if key not in rows]
    if missing or not config_file.exists():
        autoencoder = source.family.autoencoder(source.folder, dtype=source.dtype, device=source.device)
        config_file.write_text(json.dumps(dict(autoencoder.config), default=str))  # type: ignore[arg-type]
        for number in missing:
            reporter.check()
            pixels = pixels_of(pictures[number].file, shapes[number])[None]
            with torch.no_grad():
                posterior = source.family.encode_pixels(autoencoder, pixels)
            rows[keys[number]] = {name: tensor.cpu() for name, tensor in posterior.items()}
            cache.put(rows[keys[number]], *keys[number])
            reporter.progress(len(rows), len(set(keys)))
        del autoencoder
        free_memory()
    return Latents(_buckets([rows[key] for key in keys], shapes), json.loads(config_file.read_text()))


def _buckets(rows: Sequence[Mapping[str, Tensor]], shapes: Sequence[Shape]) -> tuple[Bucket, ...]:
    buckets = []
    for shape in sorted(set(shapes)):
        members = tuple(n for n, other in enumerate(shapes) if other == shape)
        posterior = {name: torch.cat([rows[n][name] for n in members]) for name in rows[members[0]]}
        buckets.append(Bucket(shape, posterior, members))
    return tuple(buckets)
