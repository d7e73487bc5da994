"""Texts that lie beside pictures: `.txt`, `.caption`, `metadata.jsonl` or `.csv`, `dataset.json`.

Parsers of outside text: whatever the bytes are, they give text or a sentence.
"""

from __future__ import annotations

import codecs
import csv
import io
import json

from masuka.errors import InvalidInput
from masuka.requests.text import clean_trigger

CAPTION_ENDINGS = (".txt", ".caption")
METADATA_NAME = "metadata.jsonl"
TABLE_NAME = "metadata.csv"
DATASET_NAME = "dataset.json"
LARGEST_CAPTION_BYTES = 64_000
LARGEST_METADATA_BYTES = 20_000_000
_TEXT_KEYS = ("text", "caption", "prompt")
_NAME_KEYS = ("file_name", "filename", "file", "image")


def read_text(data: bytes) -> str:
    """The text of a side-car: UTF-8, UTF-16 with its mark, else Windows' letters."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_caption(data: bytes) -> str:
    """The caption in a side-car's bytes, '' for an empty one."""
    return read_text(data).strip()


def read_metadata(data: bytes) -> tuple[dict[str, str], list[InvalidInput]]:
    """Captions by file name out of a metadata.jsonl, a refusal for each bad line.

    Each line is an object with `file_name` and `text` (or `caption`, or `prompt`). Lines
    without a text are no error: the picture then gets the template's caption.
    """
    captions: dict[str, str] = {}
    problems: list[InvalidInput] = []
    for number, line in enumerate(read_text(data).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        name = row.get("file_name") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(name, str) or not name:
            problems.append(
                InvalidInput(
                    f"Line {number:,} is not an object with a file_name.",
                    'Write lines like {"file_name": "a.png", "text": "…"}.',
                )
            )
            continue
        text = next((row[key] for key in _TEXT_KEYS if isinstance(row.get(key), str)), "")
        captions[_plain(name)] = text.strip()
    return captions, problems


def read_table(data: bytes) -> tuple[dict[str, str], list[InvalidInput]]:
    """Captions by file name out of a metadata.csv, and why not all of it was read.

    Its first line names the columns: one of file_name, filename, file or image, and one
    of text, caption or prompt.
    """
    text = read_text(data)
    comma = max((",", ";", "\t"), key=text.partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=comma)
    captions: dict[str, str] = {}
    try:
        head = [cell.strip().lower() for cell in next(rows, [])]
        name_at = next((head.index(key) for key in _NAME_KEYS if key in head), None)
        text_at = next((head.index(key) for key in _TEXT_KEYS if key in head), None)
        if name_at is None or text_at is None:
            return {}, [
                InvalidInput(
                    "The first line of the table does not name a file and a text.",
                    "Begin it with file_name,text.",
                )
            ]
        for row in rows:
            if len(row) > max(name_at, text_at) and row[name_at].strip():
                captions[_plain(row[name_at].strip())] = row[text_at].strip()
    except csv.Error:
        problem = f"Line {rows.line_num:,} of the table cannot be read."
        return captions, [InvalidInput(problem, "Save the table as CSV again.")]
    return captions, []


def _plain(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def read_trigger(data: bytes) -> str:
    """The trigger word in an exported set's dataset.json; '' where there is none."""
    try:
        about = json.loads(read_text(data))
    except (ValueError, RecursionError):
        return ""
    word = about.get("trigger_word") if isinstance(about, dict) else None
    try:
        return clean_trigger(word) if isinstance(word, str) else ""
    except InvalidInput:
        return ""
