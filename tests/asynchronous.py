"""Runs a coroutine to its end from a test, whatever loop the test's own thread has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


def finish(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """What the coroutine gives back; Playwright leaves a running loop in the main thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
