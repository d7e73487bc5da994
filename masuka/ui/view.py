"""What one browser looks at: its tab, the things chosen in it, and what it has seen.

The browser owns the view and keeps it in its address, so that a reload, a link and a
second browser show the same. Everything here is outside text and is judged as such.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from masuka.requests.text import id_in, without_control

TABS = ("home", "datasets", "training", "images", "library", "models", "settings")
SECTIONS = ("", "pictures", "characters", "models", "queue", "find", "own")
PARTS = ("", "captions", "trainer", "export", "settings", "add")
"""What of a data set is shown: its pictures, or one of these."""
_LONGEST_VIEW = 20_000


@dataclass(frozen=True)
class View:
    """Ids are None where nothing is chosen; adapter 0 is the choice of none at all.

    `only` filters a list of pictures and `sort` orders it, in the words of the studio.
    `look` numbers the browser's looks, `sums` are checksums of the regions that it shows.
    """

    tab: str = "home"
    character: int | None = None
    dataset: int | None = None
    run: int | None = None
    adapter: int | None = None
    item: int | None = None
    until: int | None = None
    section: str = ""
    part: str = ""
    only: str = ""
    sort: str = ""
    px: int | None = None
    base: str = ""
    query: str = ""
    starred: bool = False
    since: int = -1
    look: int = 0
    sums: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> View:
        """The view that the browser described; nonsense falls back to the default."""
        try:
            raw = json.loads(text) if text and len(text) <= _LONGEST_VIEW else {}
        except ValueError:
            raw = {}
        given: dict[str, Any] = raw if isinstance(raw, dict) else {}
        sums = given.get("sums")
        return cls(
            tab=_one_of(given.get("tab"), TABS, "home"),
            section=_one_of(given.get("section"), SECTIONS, ""),
            only=_text(given.get("only"), 40),
            sort=_text(given.get("sort"), 40),
            part=_one_of(given.get("part"), PARTS, ""),
            base=_text(given.get("base"), 100),
            query=_text(given.get("q"), 200),
            starred=given.get("star") in ("1", 1, True),
            look=look if isinstance(look := given.get("look"), int) else 0,
            since=since if isinstance(since := given.get("since"), int) else -1,
            sums={str(k): str(v) for k, v in sums.items()} if isinstance(sums, dict) else {},
            **{name: _chosen(given.get(name)) for name in _IDS},
        )


_IDS = ("character", "dataset", "run", "adapter", "item", "until", "px")


def _chosen(value: Any) -> int | None:
    """An id, or 0 where it was chosen that there is none."""
    return 0 if str(value) == "0" else id_in(value)


def _text(value: Any, longest: int) -> str:
    return without_control(value)[:longest] if isinstance(value, str) else ""


def _one_of(value: Any, known: tuple[str, ...], otherwise: str) -> str:
    return value if isinstance(value, str) and value in known else otherwise
