"""CivitAI: looked for by its public API, fetched with the key that belongs to that host alone.

API: https://developer.civitai.com/docs/api/public-rest (models, model-versions, downloads).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from masuka import outside
from masuka.errors import AccessDenied, DownloadFailed, InvalidInput, NotFound, RemoteUnavailable
from masuka.families import FAMILIES
from masuka.families.base import Entry
from masuka.models.search import SHOWN, TIMEOUT_S, Kind, Offer
from masuka.requests.text import clean_filename

ADDRESS = "https://civitai.com"
HOSTS = frozenset({"civitai.com", "www.civitai.com"})
TYPES: Mapping[Kind, tuple[str, ...]] = {"base": ("Checkpoint",), "lora": ("LORA", "LoCon", "DoRA")}
MADE_FOR = {
    "SDXL 1.0": ("sdxl", ""),
    "SDXL 0.9": ("sdxl", ""),
    "SDXL Lightning": ("sdxl", ""),
    "SDXL Turbo": ("sdxl", ""),
    "SDXL Hyper": ("sdxl", ""),
    "Illustrious": ("sdxl", "illustrious"),
    "Pony": ("sdxl", "pony"),
    "NoobAI": ("sdxl", "noobai"),
    "Playground v2": ("sdxl", "playground"),
    "Flux.1 D": ("flux", "dev"),
    "Flux.1 S": ("flux", "schnell"),
    "SD 3.5 Medium": ("sd3", "medium"),
    "SD 3.5 Large": ("sd3", "large"),
    "SD 3.5": ("sd3", ""),
    "Chroma": ("chroma", ""),
    "Flux.2 Klein 4B": ("flux2", "4b"),
    "Flux.2 Klein 9B": ("flux2", "9b"),
    "ZImageTurbo": ("zimage", "turbo"),
    "ZImageBase": ("zimage", ""),
    "Qwen": ("qwen_image", ""),
}
"""CivitAI's words for what a model is made for → family, and a word in the base's id."""
REDIRECTS = 5
PIECE_BYTES = 2**20
_LARGEST_ANSWER = 8 * 2**20
_SAFE = "SafeTensor"
_MISREAD = (AttributeError, LookupError, OverflowError, TypeError, ValueError)
"""What an answer of another form than the documented one leads to."""
Asked = list[tuple[str, str | int | float | bool | None]]


@dataclass(frozen=True)
class Version:
    """One version of a model there, with the one file that is taken of it."""

    id: int
    kind: Kind
    title: str
    made_for: str
    entry: Entry | None
    file: str
    url: str
    size_bytes: int
    sha256: str
    trigger_words: tuple[str, ...] = ()


class Civitai:
    """Asks CivitAI; the key goes with requests to its own host and nowhere else.

    `address` is another one only for a stand-in, whose host is in `local`.
    """

    def __init__(self, key: str = "", *, address: str = ADDRESS, local: Collection[str] = ()) -> None:
        self._address = address
        self._local = local
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def search(self, query: str, kind: Kind, *, nsfw: bool = False) -> list[Offer]:
        """Models that match, the most downloaded first.

        What is not for all eyes comes only with `nsfw`.

        Raises RemoteUnavailable when it does not answer in time.
        """
        asked: Asked = [("query", query), ("limit", SHOWN), ("sort", "Most Downloaded")]
        asked += [("nsfw", "true" if nsfw else "false"), *(("types", name) for name in TYPES[kind])]
        items = self._ask("/api/v1/models", asked).get("items")
        listed = [about for about in items if isinstance(about, dict)] if isinstance(items, list) else []
        found = []
        for about in listed:
            try:
                found.append((about, _offer(about, kind)))
            except _MISREAD:
                continue  # one that nobody can read hides no others
        return [offer for about, offer in found if offer is not None and (nsfw or not about.get("nsfw"))]

    def version(self, version_id: int) -> Version:
        """One version with its file; raises InvalidInput when it has none that is taken."""
        about = self._ask(f"/api/v1/model-versions/{version_id}", [])
        try:
            return self._version(version_id, about)
        except _MISREAD as error:
            raise RemoteUnavailable("CivitAI answered something unreadable.", "Try again later.") from error

    def _version(self, version_id: int, about: Mapping[str, Any]) -> Version:
        given = about.get("model")
        model: dict[str, Any] = given if isinstance(given, dict) else {}
        kind: Kind = "lora" if model.get("type") in TYPES["lora"] else "base"
        if model.get("type") not in (*TYPES["base"], *TYPES["lora"]):
            raise InvalidInput(f"This is a {model.get('type') or 'thing'}, no base and no LoRA.", "Take another one.")
        file = _file_of(about)
        if file is None:
            raise InvalidInput(
                "This version has no safetensors file.",
                "Take another one: files of other kinds can run code when they are opened.",
            )
        made_for = str(about.get("baseModel", ""))
        return Version(
            id=version_id, kind=kind, title=str(model.get("name") or about.get("name") or version_id)[:100],
            made_for=made_for, entry=entry_of(made_for), file=_name_of(file),
            url=f"{self._address}/api/download/models/{version_id}", size_bytes=_bytes(file),
            sha256=str((file.get("hashes") or {}).get("SHA256", "")).lower(),
            trigger_words=tuple(str(word) for word in about.get("trainedWords") or ()),
        )  # fmt: skip

    def fetch(self, version: Version, to: Path, tell: Callable[[int], None]) -> None:
        """Puts the version's file, checked by its hash, there; goes on with a part.

        Raises AccessDenied where it needs a key, DownloadFailed, RemoteUnavailable.
        """
        part = to.with_name(f"{to.name}.{version.sha256[:12] or version.id}.part")
        to.parent.mkdir(parents=True, exist_ok=True)
        here = part.stat().st_size if part.is_file() else 0
        headers = {**self._headers, "accept-encoding": "identity"}
        if here:
            headers["range"] = f"bytes={here}-"
        try:
            with (
                outside.client(local=self._local, timeout_s=TIMEOUT_S, redirects=REDIRECTS) as client,
                client.stream("GET", version.url, headers=headers) as answer,
            ):
                if answer.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    self._judge(answer)
                    with part.open("ab" if answer.status_code == httpx.codes.PARTIAL_CONTENT else "wb") as stream:
                        for piece in answer.iter_bytes(PIECE_BYTES):
                            stream.write(piece)
                            tell(stream.tell())
                            if stream.tell() > version.size_bytes + PIECE_BYTES:
                                raise DownloadFailed(f"{version.file} is larger than listed.", "Do not use this model.")
        except httpx.HTTPError as error:
            raise RemoteUnavailable("CivitAI broke off.", "Try again: it goes on.") from error
        if not version.sha256 or _sha256(part) != version.sha256:
            part.unlink(missing_ok=True)
            raise DownloadFailed(f"{version.file} arrived damaged.", "Try again.")
        part.replace(to)

    def _ask(self, path: str, asked: Asked) -> dict[str, Any]:
        try:
            with outside.client(local=self._local, timeout_s=TIMEOUT_S) as client:
                answer = client.get(self._address + path, params=asked, headers=self._headers)
            self._judge(answer)
            read = answer.json() if len(answer.content) <= _LARGEST_ANSWER else None
        except httpx.HTTPError as error:
            raise RemoteUnavailable("CivitAI cannot be reached.", "Try again later.") from error
        except ValueError as error:
            raise RemoteUnavailable("CivitAI answered something unreadable.", "Try again later.") from error
        if not isinstance(read, dict):
            raise RemoteUnavailable("CivitAI answered something unreadable.", "Try again later.")
        return read

    def _judge(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise AccessDenied(
                "CivitAI asks for an account for this file.",
                "Make a key at civitai.com/user/account and save it in Settings.",
            )
        if status == httpx.codes.NOT_FOUND:
            raise NotFound("CivitAI has no such model.", "Look at its page.")
        if not answer.is_success:
            raise RemoteUnavailable(f"CivitAI answered {status}.", "Try again later.")


def version_in(text: str) -> int:
    """The number of a version, also out of its page's address; raises InvalidInput."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 16:
        return int(text)
    target = outside.target_of(text, field="repo")
    found = re.search(r"modelVersionId=(\d{1,15})|/api/download/models/(\d{1,15})", target.path)
    if target.host not in HOSTS or found is None:
        raise InvalidInput(
            "This names no version of a model on CivitAI.",
            "Open the version there and copy the address with modelVersionId in it.", field="repo",
        )  # fmt: skip
    return int(found.group(1) or found.group(2))


def entry_of(made_for: str) -> Entry | None:
    """The catalogue's base that CivitAI's word means; None where there is none."""
    name, word = MADE_FOR.get(made_for, ("-", ""))
    alike = [f for n, f in FAMILIES.items() if n == name or n.startswith(f"{name}-")]
    entries = [entry for family in alike for entry in family.entries if entry.folder is None]
    return next((entry for entry in entries if word in entry.id), entries[0] if entries else None)


def _offer(about: Mapping[str, Any], kind: Kind) -> Offer | None:
    versions = [v for v in about.get("modelVersions") or [] if isinstance(v, dict) and _file_of(v)]
    if not versions:
        return None
    version = versions[0]
    made_for = str(version.get("baseModel", ""))
    entry = entry_of(made_for)
    uses = about.get("allowCommercialUse")
    allowed = [uses] if isinstance(uses, str) else [str(use) for use in uses or []]
    commercial = any(use.strip("{}").split(",")[0] in ("Image", "Rent", "Sell", "RentCivit") for use in allowed)
    creator = about.get("creator") if isinstance(about.get("creator"), dict) else {}
    return Offer(
        source="civitai", id=str(version.get("id", "")), kind=kind, title=str(about.get("name", ""))[:100],
        author=str((creator or {}).get("username", ""))[:60], fits="" if entry is None else entry.title,
        licence="CivitAI's terms", commercial=commercial if uses is not None else None, gated=False,
        downloads=int((about.get("stats") or {}).get("downloadCount") or 0),
        page=f"{ADDRESS}/models/{int(about.get('id') or 0)}?modelVersionId={version.get('id', '')}",
        size_bytes=_bytes(_file_of(version) or {}), made_for=made_for,
    )  # fmt: skip


def _file_of(version: Mapping[str, Any]) -> dict[str, Any] | None:
    """The version's main file in safetensors; None without one."""
    files = [f for f in version.get("files") or [] if isinstance(f, dict) and f.get("type", "Model") == "Model"]
    safe = [f for f in files if (f.get("metadata") or {}).get("format") == _SAFE and (f.get("hashes") or {}).get("SHA256")]
    return next((f for f in safe if f.get("primary")), safe[0] if safe else None)


def _name_of(file: Mapping[str, Any]) -> str:
    """A plain name for the file: what is listed is a stranger's word."""
    stem = Path(str(file.get("name", ""))).name.removesuffix(".safetensors").strip(" .")[:100]
    return clean_filename(f"{stem or 'model'}.safetensors")


def _bytes(file: Mapping[str, Any]) -> int:
    return max(0, int(float(file.get("sizeKB") or 0) * 1024))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
