"""What a picture says of itself: A1111's `parameters` text and a lossless `masuka` record.

Both go into a PNG's text chunks. Reading treats every byte as a stranger's: sizes are
limited, nothing is executed, and what cannot be understood is left out.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from masuka.errors import InvalidInput

PARAMETERS, RECORD = "parameters", "masuka"
SCHEMA = 1
LARGEST_TEXT_BYTES = 2**20
LARGEST_FILE_BYTES = 256 * 2**20
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLERS = {"FlowMatchEulerDiscreteScheduler": "Euler"}
_PAIR = re.compile(r'\s*([\w /\-]{1,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')


@dataclass(frozen=True)
class Parameters:
    """A1111's text, taken apart."""

    prompt: str
    negative_prompt: str = ""
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Infotext:
    """What a picture holds: MASUKA's own record, anybody's parameters, or neither."""

    record: dict[str, Any] | None
    parameters: Parameters | None


def chunks(record: Mapping[str, Any]) -> PngInfo:
    """The text chunks for a PNG that was drawn as the record says."""
    info = PngInfo()
    info.add_text(PARAMETERS, parameters_text(record))
    info.add_text(RECORD, json.dumps({"schema": SCHEMA, **record}, ensure_ascii=True, sort_keys=True))
    return info


def parameters_text(record: Mapping[str, Any]) -> str:
    """The record as A1111 and Civitai read it: prompts, then one line of pairs.

    Keys of the record: prompt, request (DrawImages), seed, width, height, base {title},
    scheduler, guidance, adapter {name, weight, payload_sha256} or None, made_by.
    """
    request, adapter = record["request"], record.get("adapter")
    lines = [record["prompt"]]
    if adapter:
        lines[0] += f" <lora:{_plain(adapter['name'])}:{adapter['weight']:g}>"
    if request.get("negative_prompt"):
        lines.append(f"Negative prompt: {request['negative_prompt']}")
    embedded = record.get("guidance") == "embedded"
    scheduler = record.get("scheduler", "")
    pairs = {
        "Steps": request["num_inference_steps"],
        "Sampler": _SAMPLERS.get(scheduler, scheduler),
        "CFG scale": 1 if embedded else max(1, request["guidance_scale"]),
        "Distilled CFG Scale": request["guidance_scale"] if embedded else None,
        "Seed": record["seed"],
        "Size": f"{record['width']}x{record['height']}",
        "Model": record["base"]["title"],
        "RNG": "CPU",
        "Lora hashes": f"{_plain(adapter['name'])}: {adapter['payload_sha256'][:12]}" if adapter else None,
        "Version": record.get("made_by"),
    }
    lines.append(", ".join(f"{k}: {_quoted(v)}" for k, v in pairs.items() if v not in (None, "")))
    return "\n".join(lines)


def parse_parameters(text: str) -> Parameters:
    """The text taken apart; a last line of under three pairs belongs to the prompt."""
    *body, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < 3:
        body, pairs = [*body, last], []
    settings = {key.strip(): _unquoted(value) for key, value in pairs}
    prompt, negative = "\n".join(body), ""
    before, mark, after = prompt.partition("Negative prompt:")
    if mark and (not before or before.endswith("\n")):
        prompt, negative = before, after
    return Parameters(prompt.strip(), negative.strip(), settings)


def read(file: Path) -> Infotext:
    """What the PNG holds; raises InvalidInput for a file that is not a whole PNG."""
    texts: dict[str, str] = {}
    for key, value in _texts(file):
        texts.setdefault(key, value)
    return Infotext(
        record=_record(texts.get(RECORD)),
        parameters=parse_parameters(texts[PARAMETERS]) if PARAMETERS in texts else None,
    )


def _record(text: str | None) -> dict[str, Any] | None:
    try:
        record = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    """Keyword and text of each readable text chunk, up to the largest size each."""
    refusal = InvalidInput(f"{file.name} is not a whole PNG picture.", "Choose another file.", field="file")
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            if stream.read(8) != _SIGNATURE or size > LARGEST_FILE_BYTES:
                raise refusal
            while header := stream.read(8):
                length, kind = struct.unpack(">I4s", header)
                if stream.tell() + length + 4 > size:
                    raise refusal
                if kind in (b"tEXt", b"iTXt", b"zTXt") and length <= LARGEST_TEXT_BYTES:
                    data = stream.read(length)
                    checksum = struct.unpack(">I", stream.read(4))[0]
                    found = _text(kind, data) if zlib.crc32(kind + data) == checksum else None
                    if found:
                        yield found
                else:
                    stream.seek(length + 4, 1)
                if kind == b"IEND":
                    return
    except (OSError, struct.error) as error:
        raise refusal from error
    raise refusal


def _text(kind: bytes, data: bytes) -> tuple[str, str] | None:
    key, _, rest = data.partition(b"\0")
    try:
        if kind == b"iTXt":
            packed, rest = rest[0], rest[2:]
            _language, _, rest = rest.partition(b"\0")
            _translated, _, rest = rest.partition(b"\0")
            return key.decode("latin-1"), (_unpacked(rest) if packed else rest).decode("utf-8")
        value = _unpacked(rest[1:]) if kind == b"zTXt" else rest
        return key.decode("latin-1"), value.decode("latin-1")
    except (zlib.error, UnicodeDecodeError, IndexError):
        return None


def _unpacked(data: bytes) -> bytes:
    """The inflated bytes; raises zlib.error when they would pass the largest size."""
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, LARGEST_TEXT_BYTES)
    if inflater.unconsumed_tail:
        raise zlib.error("larger than the limit")
    return text


def _plain(name: str) -> str:
    """The name without what would end a `<lora:…>` tag or a list."""
    return re.sub(r'[<>:,"\n]+', "_", name)


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text


def _unquoted(text: str) -> str:
    text = text.strip()
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text.strip('"')
