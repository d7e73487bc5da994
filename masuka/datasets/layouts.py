"""What other trainers' folder names say: kohya's `10_mira7x person`, and what is not to be learnt.

Kohya's folders are named by how often a picture is repeated, the trigger word and the
class; beside `img` lie `reg`, `log` and `model`. ai-toolkit's folders are flat, with
[trigger] in captions; imagefolders have a metadata file and need nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

TRIGGER_MARK = "[trigger]"
"""What ai-toolkit replaces by the trigger word."""
_MOST_REPEATS = 200
_KOHYA = re.compile(r"(\d{1,3})_(\S+) +\S.*")
_IN_IMG = re.compile(r"((?:.*/)?)img/\d{1,3}_[^/]+/")


def trigger_in(key: str) -> str:
    """The trigger word in the name of a picture's folder; '' without one."""
    found = _KOHYA.fullmatch(PurePosixPath(key).parent.name)
    if found is None or not 0 < int(found[1]) <= _MOST_REPEATS:
        return ""
    return found[2]


def aside_in(keys: Iterable[str]) -> tuple[str, ...]:
    """Beginnings of paths that hold no pictures of the set: `reg`, `log`, `model`."""
    roots = {found[1] for key in keys if (found := _IN_IMG.match(key)) is not None}
    return tuple(f"{root}{name}/" for root in sorted(roots) for name in ("reg", "log", "model"))
