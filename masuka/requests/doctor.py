"""Requests about how strictly a data set is looked at, and which of it is kept."""

from __future__ import annotations

from typing import Literal

from masuka.requests.base import Request, field


class LookAfter(Request):
    """How strictly the doctor judges the pictures of a set."""

    strictness: Literal["none", "basic", "strict"] = field(
        "basic", help="Look at nothing, find what spoils a training, or small flaws too."
    )
    resolution_px: int = field(
        0, help="The resolution that pictures are judged for; 0 is the usual one.", unit="px", ge=0, le=4096
    )


class KeepBest(Request):
    """How many pictures of a set to keep; the others are set aside, not deleted."""

    count: int = field(25, help="How many of the best, most different pictures to keep.", ge=1, le=10_000)
