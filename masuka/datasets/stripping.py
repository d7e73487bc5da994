"""The same picture file without anything but its pixels, where that needs no new encoding.

JPEG and WebP lose a little each time they are encoded; cutting the metadata out of the
file keeps every pixel. Sources: ITU T.81 annex B (JPEG), RFC 9649 (WebP).
"""

from __future__ import annotations

import re

MOST_SCANS = 500
_SOI, _EOI, _SOS, _APP0, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
# In a scan, FF is data before 00, a restart before D0–D7 and filling before FF.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def without_metadata(data: bytes, name: str) -> bytes | None:
    """The file without metadata and appended data, itself where it has none.

    None where it cannot be cut.
    """
    if name == "JPEG":
        return _jpeg(data)
    return _webp(data) if name == "WEBP" else None


def _jpeg(data: bytes) -> bytes | None:
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    view, at, scans = memoryview(data), 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == _SOI or marker in _STANDALONE:
            return None
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SOS:
            scans += 1
            if scans > MOST_SCANS:
                return None
            after = _NEXT_MARKER.search(data, end)
            if after is None:
                return None
            end = after.start()
            kept.append(view[at:end])
            if data[end + 1] == _EOI:
                kept.append(b"\xff\xd9")
                # Nothing else may differ than what is missing, and the first header's own last bytes.
                whole = end + 2 == len(data) == sum(map(len, kept)) and data.startswith(b"".join(kept[:2]))
                return data if whole else b"".join(kept)
        elif marker == _APP0:
            kept.append(_without_thumbnail(data[at:end]))
        elif marker == _APP14 or (marker not in _APPLICATION and marker != _COM):
            kept.append(view[at:end])
        at = end
    return None


def _without_thumbnail(segment: bytes) -> bytes:
    """The JFIF header alone: the small picture in it may show what was cropped away."""
    if segment[4:9] != b"JFIF\x00" or len(segment) < 16:
        return b""
    return b"\xff\xe0\x00\x10" + segment[4:16] + b"\x00\x00"


def _webp(data: bytes) -> bytes | None:
    # Frames of an animation lie deeper and are not found; alpha is left out, as its pixels tell.
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        if name in (b"VP8 ", b"VP8L"):
            chunk = data[at:end]
            return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk
        at = end
    return None
