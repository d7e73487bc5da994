"""A mounted Drive that behaves as badly as real ones: what is written is uploaded some day.

The folder is what the machine sees. `cloud` is what arrived, and all that another machine
will see. Uploads wait, overtake one another, are cut short, or lose their rename.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from masuka.vault.confirm import Sent
from masuka.vault.disk import Disk


@dataclass
class Upload:
    """One thing that the cloud does not know yet; things of one file keep their order."""

    file: int
    path: str
    content: bytes | None


@dataclass
class Cloud:
    """What arrived: path and content by the number of the file; a path may be there twice."""

    files: dict[int, tuple[str, bytes]] = field(default_factory=dict)

    def checksums(self, name: str) -> set[str]:
        found = (c for p, c in self.files.values() if p.rpartition("/")[2] == name)
        return {hashlib.md5(content, usedforsecurity=False).hexdigest() for content in found}

    def mount(self, root: Path) -> None:
        """Writes the cloud into a folder, as a machine sees it that mounts it now."""
        for path, content in self.files.values():
            file = root / path
            number = 0
            while file.exists():
                number += 1
                file = (root / path).with_name(f"{file.stem.partition(' (')[0]} ({number}){file.suffix}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


class FakeDrive(Disk):
    """One machine's mount of the cloud; `trouble` is how often a call fails, from 0 to 1."""

    def __init__(self, root: Path, cloud: Cloud, chance: random.Random) -> None:
        super().__init__(root)
        root.mkdir(parents=True)
        self.cloud, self.chance = cloud, chance
        self.trouble = self.lost_renames = self.cut_short = self.hidden = 0.0
        self._waiting: list[Upload] = []
        self._number: dict[str, int] = {}
        cloud.mount(root)
        for file in root.rglob("*"):
            if file.is_file():
                path = file.relative_to(root).as_posix()
                self._number[path] = next((n for n, (p, _) in cloud.files.items() if p == path), self._new())

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def names(self, folder: str) -> list[str]:
        self._maybe_fail()
        return [n for n in super().names(folder) if self.chance.random() >= self.hidden]

    def read(self, path: str) -> Iterator[bytes]:
        self._maybe_fail()
        return super().read(path)

    def write(self, path: str, chunks: Iterable[bytes], *, start: int = 0) -> None:
        self._maybe_fail()
        super().write(path, chunks, start=start)
        number = self._number.setdefault(path, self._new())
        content = (self.root / path).read_bytes()
        if self.chance.random() < self.cut_short:
            content = content[: self.chance.randrange(len(content) + 1)]
        self._waiting.append(Upload(number, path, content))
        self._maybe_fail()

    def rename(self, old: str, new: str) -> None:
        self._maybe_fail()
        super().rename(old, new)
        number = self._number[new] = self._number.pop(old, self._new())
        if self.chance.random() >= self.lost_renames:
            self._waiting.append(Upload(number, new, None))
        self._maybe_fail()

    def discard(self, path: str) -> None:
        self._maybe_fail()
        super().discard(path)
        number = self._number.pop(path, None)
        if number is not None:
            self._waiting.append(Upload(number, "", None))

    def upload(self, count: int) -> None:
        """Some of what waits arrives, in whatever order."""
        for _ in range(min(count, len(self._waiting))):
            first = {u.file: n for n, u in reversed(list(enumerate(self._waiting)))}
            upload = self._waiting.pop(self.chance.choice(list(first.values())))
            path, content = self.cloud.files.get(upload.file, ("", b""))
            if upload.content is not None:
                self.cloud.files[upload.file] = (path or upload.path, upload.content)
            elif upload.path:
                self.cloud.files[upload.file] = (upload.path, content)
            else:
                self.cloud.files.pop(upload.file, None)

    def _new(self) -> int:
        return 1 + max([*self.cloud.files, *self._number.values(), *(u.file for u in self._waiting)], default=0)

    def _maybe_fail(self) -> None:
        if self.chance.random() < self.trouble:
            raise OSError(*self.chance.choice([(5, "Input/output error"), (107, "Transport endpoint is not connected")]))


class Asked:
    """Drive's checksums, told by the cloud itself."""

    can_tell = True
    at_once = False

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def arrived(self, sent: Sequence[Sent]) -> bool:
        return all(file.md5 in self._cloud.checksums(file.name) for file in sent)
