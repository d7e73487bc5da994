"""Files and answers of strangers: each is read, or refused in a sentence, and never a crash."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from masuka.errors import InvalidInput, MasukaError, RemoteUnavailable
from masuka.models import adapter_files, catalogue, recognising
from masuka.models.civitai import Civitai
from masuka.training.tools import read_source

LAYER = "transformer.transformer_blocks.0.attn.to_q.lora_"
HEADER = {
    "__metadata__": {"ss_base_model_version": "flux1", "modelspec.title": "t"},
    f"{LAYER}A.weight": {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]},
    f"{LAYER}B.weight": {"dtype": "F32", "shape": [32, 4], "data_offsets": [512, 1024]},
}
ANSWER = {
    "id": 7, "name": "v1", "baseModel": "SDXL 1.0", "trainedWords": ["x"], "model": {"name": "M", "type": "LORA"},
    "files": [{
        "name": "a.safetensors", "type": "Model", "sizeKB": 3, "primary": True,
        "metadata": {"format": "SafeTensor"}, "hashes": {"SHA256": "ab" * 32},
    }],
}  # fmt: skip
ITEM = {
    "id": 1, "name": "M", "nsfw": False, "creator": {"username": "u"}, "stats": {"downloadCount": 3},
    "allowCommercialUse": ["Image"], "modelVersions": [ANSWER],
}  # fmt: skip
WRONG: tuple[Any, ...] = (
    None, [], {}, "x", 1, -1, 1.5, 1e999, True, [1], [None], {"a": 1}, [-1, -1], [0, 0], [2, 2, 2],
    "BF16", [10**12, 10**12], [512, 0], [0, 10**15], "..", "../x", "9" * 5000,
)  # fmt: skip


class Answering(Civitai):
    """One whose answers are given."""

    answer: Any = None

    def _ask(self, path: str, asked: Any) -> dict[str, Any]:
        given: dict[str, Any] = self.answer
        return given


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something may be put in place of what is there."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in inside:
        yield from places(held, (*at, key))


def changed(value: Any, at: tuple[Any, ...], to: Any) -> Any:
    if not at:
        return to
    made = held = copy.deepcopy(value)
    for key in at[:-1]:
        held = held[key]
    held[at[-1]] = to
    return made


def written(folder: Path, header: bytes, *, data: int = 1024) -> Path:
    file = folder / "x.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(data))
    return file


def readers(file: Path) -> list[Callable[[], object]]:
    return [
        lambda: adapter_files.inspect(file, measure=True),
        lambda: recognising.of_file(file),
        lambda: read_source(file, "flux"),
    ]


def test_a_header_of_any_form_is_read_or_refused(tmp_path: Path) -> None:
    refused = 0
    for at in places(HEADER):
        for wrong in WRONG:
            file = written(tmp_path, json.dumps(changed(HEADER, at, wrong)).encode())
            for reads in readers(file):
                try:
                    reads()
                except MasukaError:
                    refused += 1
    assert refused > 500


@pytest.mark.parametrize("header", [b"[" * 200_000, b'{"a":' * 100_000, b"1" * 5000, b"\xff\xfe{}", b""])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, header: bytes) -> None:
    for reads in readers(written(tmp_path, header)):
        with pytest.raises(InvalidInput):
            reads()


def test_an_answer_of_civitai_of_any_form_is_read_or_refused() -> None:
    asks, unreadable = Answering(), 0
    for at in places(ANSWER):
        for wrong in WRONG:
            if not at and not isinstance(wrong, dict):
                continue  # seen by what asks
            asks.answer = changed(ANSWER, at, wrong)
            try:
                version = asks.version(7)
            except (InvalidInput, RemoteUnavailable):
                unreadable += 1
            else:
                assert version.file.endswith(".safetensors") and Path(version.file).name == version.file
                assert version.size_bytes >= 0
    assert unreadable > 50


def test_one_model_that_cannot_be_read_hides_no_others() -> None:
    asks = Answering()
    for at in places(ITEM):
        for wrong in WRONG:
            asks.answer = {"items": [changed(ITEM, at, wrong), ITEM]}
            assert "7" in [offer.id for offer in asks.search("m", "lora")]


def test_a_part_is_a_folder_inside_its_base() -> None:
    """Files of parts are linked and replaced under their names: none may lead elsewhere."""
    classes = ["diffusers", "AutoencoderKL"]
    index = {"_class_name": "X", "vae": classes, "../..": classes, "..": classes, "/etc": classes, ".": classes}
    assert catalogue.parts_in(index) == ["vae"]
