"""Pocket: the built-in model that draws little robots, at 128 pixels, on any machine.

Light on purpose: what it is called, where it lies and what it knows. The
drawing is in `world`, the classifier in `judge`, the making of it in `build`.
"""

from __future__ import annotations

from pathlib import Path

from masuka.pocket.words import known_words

MODEL_ID = "pocket"
FOLDER = Path(__file__).parent / "weights" / "model"
CAPTIONER_FOLDER = Path(__file__).parent / "weights" / "captioner"
JUDGE_FOLDER = Path(__file__).parent / "weights" / "judge"
SIZE_PX = 128
TEXT_TOKENS = 32
WORDS: dict[str, tuple[str, ...]] = known_words()
