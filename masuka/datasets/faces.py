"""Faces in a picture, found on a CPU in milliseconds.

Two detectors behind one function: YuNet (MIT, from the hub at a pinned commit) where it
was downloaded, else the cascades that OpenCV 4 brings along (Intel's licence, like BSD;
people only, looking at the camera). OpenCV 5 brings none. Knows no data set; torch is
not needed. No model that forbids commercial use is used.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image

from masuka.datasets.crops import Face as Face

YUNET_REPO = "opencv/face_detection_yunet"
YUNET_REVISION = "3cc26e7f1014a5ee5d74a42acee58bafc9d0a310"
YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
"""The sum in the git-lfs pointer of opencv/opencv_zoo, which the hub's repository mirrors."""
YUNET_BYTES = 232_589
YUNET_LICENCE = "MIT"

QUICK_PX, THOROUGH_PX = 288, 640
"""Longest side that is searched: the first for every picture taken in, the second on demand."""
SMALLEST = 0.08
"""Shortest side of a face that is searched for, of the picture's longest side."""
SURE_OF = 0.6
"""YuNet's own score from which on a face counts, as in opencv_zoo's benchmark of it."""
SAME_OVERLAP = 0.3
PROFILE_WEIGHT = 0.5
"""Least weight of a profile; a false alarm beside a face seen from the front had −0.01."""


class Detector(Protocol):
    """Finds faces; not shared between threads."""

    def find(self, picture: Image.Image, *, thorough: bool) -> list[Face]:
        """The faces of an RGB or grey picture, the largest first."""
        ...


def detect(small: Image.Image, *, models: Path | None = None, thorough: bool = False) -> list[Face]:
    """The picture's faces, the largest first; [] also where no detector is there.

    `models` is the folder of downloaded models. `thorough` also looks for profiles and
    for small faces, in about ten times the time.
    """
    detector = _detector_here(models)
    return [] if detector is None else detector.find(small, thorough=thorough)


def why_none(models: Path | None = None) -> str:
    """Why no face can be found on this machine, as a sentence; '' where it can."""
    if yunet_file(models) is not None or _cascades_here():
        return ""
    return (
        f"OpenCV {cv2.__version__} brings no face detector along. "
        "Download YuNet (0.2 MB) to have faces found."
    )


def which(models: Path | None = None) -> str:
    """The name of the detector that is used here; '' for none."""
    if yunet_file(models) is not None:
        return "YuNet"
    return "OpenCV's cascades" if _cascades_here() else ""


def yunet_folder(models: Path) -> Path:
    """Where YuNet lies once it was downloaded."""
    return models / YUNET_REPO.rsplit("/", 1)[-1]


def yunet_file(models: Path | None) -> Path | None:
    """YuNet's file where it is there and is the one that is known; else None."""
    if models is None:
        return None
    file = yunet_folder(models) / YUNET_FILE
    return file if file.is_file() and _is_yunet(file, file.stat().st_mtime_ns) else None


def download_params(models: Path) -> dict[str, Any]:
    """The params of a `download_model` job that fetches YuNet."""
    return {
        "repo": YUNET_REPO,
        "revision": YUNET_REVISION,
        "folder": str(yunet_folder(models)),
        "patterns": [YUNET_FILE, "LICENSE"],
        "size_gib": YUNET_BYTES / 2**30,
    }


class Cascades:
    """The Haar cascades that OpenCV 4 installs; raises RuntimeError without them."""

    def __init__(self) -> None:
        self._front = _cascade("haarcascade_frontalface_alt2.xml")
        self._side: Any = None

    def find(self, picture: Image.Image, *, thorough: bool) -> list[Face]:
        """The faces, the largest first; profiles only where `thorough`."""
        grey = _grey(picture, THOROUGH_PX if thorough else QUICK_PX)
        least = max(20, round(max(grey.shape) * (SMALLEST / 2 if thorough else SMALLEST)))
        # 240 faces pasted into photographs, 0.085 to 0.4 of the frame: 1.3 with 2 neighbours finds
        # 67 %, 1.2 with 4 finds 64 % and takes half as long again; neither takes more cups for faces.
        step, neighbours = (1.1, 4) if thorough else (1.3, 2)
        found = _search(self._front, grey, least, step, neighbours=neighbours, weight=0.0)
        if thorough and not found:
            self._side = self._side or _cascade("haarcascade_profileface.xml")
            # The cascade knows one side; the mirrored picture shows the other.
            left = _search(self._side, grey, least, step, neighbours=6, weight=PROFILE_WEIGHT)
            right = _search(
                self._side, grey[:, ::-1].copy(), least, step, neighbours=6, weight=PROFILE_WEIGHT
            )
            found = left + [Face(1 - f.x - f.width, f.y, f.width, f.height, f.score) for f in right]
        return _distinct(found)


class YuNet:
    """OpenCV's YuNet on its CPU engine; also finds turned and small faces."""

    def __init__(self, file: Path) -> None:
        self._net = cv2.FaceDetectorYN.create(str(file), "", (320, 320), SURE_OF, SAME_OVERLAP, 200)

    def find(self, picture: Image.Image, *, thorough: bool) -> list[Face]:
        """The faces, the largest first."""
        small = picture.convert("RGB")
        side = THOROUGH_PX if thorough else QUICK_PX + 32
        small.thumbnail((side, side), Image.Resampling.BILINEAR)
        width, height = small.size
        self._net.setInputSize((width, height))
        _, rows = self._net.detect(np.asarray(small)[:, :, ::-1].copy())
        found = [
            _within(x / width, y / height, w / width, h / height, float(row[14]))
            for row in ([] if rows is None else rows)
            for x, y, w, h in [map(float, row[:4])]
        ]
        return _distinct(found)


_own = threading.local()
"""OpenCV's detectors keep their work in themselves, so each thread has its own."""


def _detector_here(models: Path | None) -> Detector | None:
    file = yunet_file(models)
    kept: dict[Path | None, Detector] = _own.__dict__.setdefault("detectors", {})
    if file not in kept:
        if file is None and not _cascades_here():
            return None
        kept[file] = Cascades() if file is None else YuNet(file)
    return kept[file]


def _cascades_here() -> bool:
    there = _cascade_folder() / "haarcascade_frontalface_alt2.xml"
    return hasattr(cv2, "CascadeClassifier") and there.is_file()


def _cascade_folder() -> Path:
    return Path(getattr(getattr(cv2, "data", None), "haarcascades", ""))


def _cascade(name: str) -> Any:
    cascade = cv2.CascadeClassifier(str(_cascade_folder() / name))
    if cascade.empty():
        raise RuntimeError(f"OpenCV {cv2.__version__} does not read {name}")
    return cascade


def _grey(picture: Image.Image, side: int) -> Any:
    grey = picture.convert("L")
    grey.thumbnail((side, side), Image.Resampling.BILINEAR)
    return cv2.equalizeHist(np.asarray(grey))


def _search(
    cascade: Any, grey: Any, least: int, step: float, *, neighbours: int, weight: float
) -> list[Face]:
    height, width = grey.shape
    boxes, _, weights = cascade.detectMultiScale3(
        grey, scaleFactor=step, minNeighbors=neighbours, minSize=(least, least), outputRejectLevels=True
    )
    return [
        _within(x / width, y / height, w / width, h / height, 1 - 1 / (1 + max(0.0, float(heavy))))
        for (x, y, w, h), heavy in zip(np.asarray(boxes).tolist(), weights, strict=True)
        if float(heavy) >= weight
    ]


def _within(x: float, y: float, width: float, height: float, score: float) -> Face:
    """The part of a box that lies in the picture."""
    left, top = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
    right, bottom = min(max(x + width, left), 1.0), min(max(y + height, top), 1.0)
    return Face(left, top, right - left, bottom - top, score)


def _distinct(faces: Sequence[Face]) -> list[Face]:
    """The faces without those that lie over a surer one, the largest first."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: -f.score):
        if face.area > 0 and all(_overlap(face, other) < SAME_OVERLAP for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda f: -f.area)


def _overlap(one: Face, other: Face) -> float:
    """Shared area as a part of the smaller face."""
    wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return max(0.0, wide) * max(0.0, high) / min(one.area, other.area)


@lru_cache(maxsize=8)
def _is_yunet(file: Path, _changed_ns: int) -> bool:
    if file.stat().st_size != YUNET_BYTES:
        return False
    return hashlib.sha256(file.read_bytes()).hexdigest() == YUNET_SHA256
