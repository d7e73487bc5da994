"""What pictures say of themselves: lossless for MASUKA, readable for others, safe to read."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from masuka.errors import InvalidInput
from masuka.generation import infotext

RECORD: dict[str, Any] = {
    "made_by": "MASUKA 0.1.0",
    "prompt": "mira7x robot, on the beach: sunny",
    "request": {"num_inference_steps": 20, "guidance_scale": 2.5, "negative_prompt": ""},
    "seed": 7,
    "width": 128,
    "height": 96,
    "base": {"id": "pocket", "title": "Pocket"},
    "guidance": "true_cfg",
    "scheduler": "FlowMatchEulerDiscreteScheduler",
    "adapter": {"name": "Mira: 1", "weight": 0.8, "payload_sha256": "abcdef0123456789" * 4},
}


def picture(folder: Path, record: dict[str, Any]) -> Path:
    file = folder / "x.png"
    Image.new("RGB", (8, 8), "red").save(file, pnginfo=infotext.chunks(record))
    return file


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def test_the_record_comes_back_whole(tmp_path: Path) -> None:
    found = infotext.read(picture(tmp_path, RECORD))
    assert found.record == {**RECORD, "schema": 1}


def test_the_parameters_are_a1111s() -> None:
    assert infotext.parameters_text(RECORD) == (
        "mira7x robot, on the beach: sunny <lora:Mira_ 1:0.8>\n"
        "Steps: 20, Sampler: Euler, CFG scale: 2.5, Seed: 7, Size: 128x96, Model: Pocket, RNG: CPU, "
        'Lora hashes: "Mira_ 1: abcdef012345", Version: MASUKA 0.1.0'
    )


def test_embedded_guidance_is_the_distilled_scale() -> None:
    text = infotext.parameters_text({**RECORD, "guidance": "embedded", "adapter": None})
    assert "CFG scale: 1, Distilled CFG Scale: 2.5," in text


def test_parameters_are_taken_apart(tmp_path: Path) -> None:
    record = {**RECORD, "request": {**RECORD["request"], "negative_prompt": "rain,\nsnow"}}
    parameters = infotext.read(picture(tmp_path, record)).parameters
    assert parameters is not None
    assert parameters.prompt == "mira7x robot, on the beach: sunny <lora:Mira_ 1:0.8>"
    assert parameters.negative_prompt == "rain,\nsnow"
    assert parameters.settings["Size"] == "128x96"
    assert parameters.settings["Lora hashes"] == "Mira_ 1: abcdef012345"


def test_a_last_line_with_two_pairs_is_prompt() -> None:
    text = "a robot\nmood: calm, light: soft"
    assert infotext.parse_parameters(text) == infotext.Parameters(text)


def test_text_beyond_ascii_survives(tmp_path: Path) -> None:
    record = {**RECORD, "prompt": "ein Roboter — 机器人 ä", "adapter": None}
    found = infotext.read(picture(tmp_path, record))
    assert found.record is not None
    assert found.record["prompt"] == record["prompt"]
    assert found.parameters is not None
    assert found.parameters.prompt == record["prompt"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        png()[:-4],
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 2**31, b"tEXt"),
    ],
)
def test_what_is_no_whole_png_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="not a whole PNG"):
        infotext.read(file)


def test_a_bomb_in_a_text_chunk_is_left_out(tmp_path: Path) -> None:
    bomb = zlib.compress(b"0" * (64 * 2**20))
    file = tmp_path / "x.png"
    file.write_bytes(png(chunk(b"zTXt", b"parameters\0\0" + bomb), chunk(b"tEXt", b"masuka\0[1]")))
    assert infotext.read(file) == infotext.Infotext(None, None)


@pytest.mark.parametrize("text", ["[" * 50_000, '{"schema": 99}', "nonsense", '{"schema": 1'])
def test_a_record_that_is_not_ours_is_left_out(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(png(chunk(b"tEXt", b"masuka\0" + text.encode())))
    assert infotext.read(file).record is None


def test_a_damaged_chunk_is_left_out(tmp_path: Path) -> None:
    good = chunk(b"tEXt", b"parameters\0a robot")
    file = tmp_path / "x.png"
    file.write_bytes(png(good[:-1] + bytes([good[-1] ^ 1])))
    assert infotext.read(file).parameters is None


@given(st.lists(st.tuples(st.sampled_from([b"tEXt", b"iTXt", b"zTXt", b"IDAT"]), st.binary(max_size=200))))
def test_any_chunks_are_read_as_data(tmp_path_factory: pytest.TempPathFactory, chunks: Any) -> None:
    file = tmp_path_factory.mktemp("png") / "x.png"
    file.write_bytes(png(*(chunk(kind, data) for kind, data in chunks)))
    found = infotext.read(file)
    assert found.record is None or isinstance(found.record, dict)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("png") / "x.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    try:
        infotext.read(file)
    except InvalidInput as error:
        assert error.hint


@given(st.text(max_size=300))
def test_any_parameters_are_taken_apart(text: str) -> None:
    parameters = infotext.parse_parameters(text)
    assert all(isinstance(value, str) for value in parameters.settings.values())


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=3, max_size=200))
def test_any_prompt_comes_back(tmp_path_factory: pytest.TempPathFactory, prompt: str) -> None:
    file = picture(tmp_path_factory.mktemp("png"), {**RECORD, "prompt": prompt})
    found = infotext.read(file)
    assert found.record is not None
    assert found.record["prompt"] == prompt
    assert json.dumps(found.record)
