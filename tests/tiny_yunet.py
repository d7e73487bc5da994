"""An ONNX file with YuNet's inputs and outputs whose 'faces' are bright squares.

Written by hand after the ONNX format, since no library here writes it; OpenCV's own
FaceDetectorYN reads it as it reads the real one.
"""

from __future__ import annotations

import struct
from pathlib import Path

STRIDES = (8, 16, 32)
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
BRIGHT = 200.0


def write(file: Path) -> Path:
    """The file; squares of 32 pixels that are brighter than 200 are faces of 64 × 64."""
    nodes, tensors, outputs = [], [], []
    for stride in STRIDES:
        for head, channels in HEADS.items():
            name = f"{head}_{stride}"
            weight, bias = _layer(head, stride, channels)
            tensors += [_tensor(f"{name}.w", (channels, 3, stride, stride), weight)]
            tensors += [_tensor(f"{name}.b", (channels,), bias), _shape(f"{name}.s", (1, -1, channels))]
            conv = [("kernel_shape", (stride, stride)), ("strides", (stride, stride))]
            nodes += [_node("Conv", ["input", f"{name}.w", f"{name}.b"], f"{name}.c", conv)]
            nodes += [_node("Transpose", [f"{name}.c"], f"{name}.t", [("perm", (0, 2, 3, 1))])]
            last = f"{name}.r" if head in ("cls", "obj") else name
            nodes += [_node("Reshape", [f"{name}.t", f"{name}.s"], last, [])]
            nodes += [_node("Sigmoid", [last], name, [])] if last != name else []
            outputs.append(_value(name, (1, (640 // stride) ** 2, channels)))
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"squares")
    graph += b"".join(_field(5, tensor) for tensor in tensors) + _field(11, _value("input", (1, 3, 640, 640)))
    graph += b"".join(_field(12, output) for output in outputs)
    file.write_bytes(_number(1, 7) + _field(7, graph) + _field(8, _number(2, 11)))
    return file


def _layer(head: str, stride: int, channels: int) -> tuple[list[float], list[float]]:
    """Weights and biases: a mean brightness for the coarsest scores, constants elsewhere."""
    each = 3 * stride * stride
    if head in ("cls", "obj"):
        seen = stride == 32
        return [1.0 / each if seen else 0.0] * each, [-BRIGHT if seen else -50.0]
    bias = [0.5, 0.5, 0.6931, 0.6931] if head == "bbox" else [0.0] * channels
    return [0.0] * (each * channels), bias


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _tensor(name: str, dims: tuple[int, ...], values: list[float]) -> bytes:
    raw = struct.pack(f"<{len(values)}f", *values)
    return b"".join(_number(1, d) for d in dims) + _number(2, 1) + _field(8, name.encode()) + _field(9, raw)


def _shape(name: str, values: tuple[int, ...]) -> bytes:
    raw = struct.pack(f"<{len(values)}q", *values)
    return _number(1, len(values)) + _number(2, 7) + _field(8, name.encode()) + _field(9, raw)


def _node(kind: str, inputs: list[str], output: str, ints: list[tuple[str, tuple[int, ...]]]) -> bytes:
    attributes = [
        _field(1, name.encode()) + b"".join(_number(8, v) for v in values) + _number(20, 7)
        for name, values in ints
    ]
    named = b"".join(_field(1, i.encode()) for i in inputs) + _field(2, output.encode())
    return (
        named
        + _field(3, output.encode())
        + _field(4, kind.encode())
        + b"".join(_field(5, a) for a in attributes)
    )


def _value(name: str, dims: tuple[int, ...]) -> bytes:
    shape = b"".join(_field(1, _number(1, d)) for d in dims)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, 1) + _field(2, shape)))
