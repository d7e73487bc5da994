"""A stand-in of the Hugging Face Hub on this machine: data sets that are read, made and written; models."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

COMMIT = "b" * 40
HELD_BYTES = 2**20
LARGE = frozenset({".jpg", ".png", ".webp", ".zip", ".safetensors", ".bin"})
"""Endings that the hub keeps beside git, as .gitattributes of a data set says."""


class Hub(ThreadingHTTPServer):
    """Answers as the hub's API does; `repos` are data sets."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.token = ""
        """The one token that may write; '' lets nobody."""
        self.asked: list[tuple[str, str]] = []
        self.commits: list[list[str]] = []
        self.breaks = 0
        """So many downloads break off in the middle."""
        self.models: dict[str, dict[str, bytes]] = {}
        self.tags: dict[str, list[str]] = {}
        """What the hub says of a model beside its files, for example its licence."""
        self.gated: set[str] = set()
        self.elsewhere = ""
        """The address to which downloads of models are sent on; '' answers them here."""
        self.authorized: list[tuple[str, str]] = []
        """Paths of models that were asked for, with the key that came with it."""
        self.hold: threading.Event | None = None
        """Until it is set, the second half of each large file of a model waits."""

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub() -> Iterator[Hub]:
    """A running stand-in."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        path = self._path()
        if self._model(path):
            return
        for repo, files in self.server.repos.items():
            if path == f"/api/datasets/{repo}" or path.startswith(f"/api/datasets/{repo}/revision/"):
                if "/revision/" in path and not path.endswith(("/main", "/" + COMMIT)):
                    self._send(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
                    return
                siblings = [_listed(name, data) for name, data in files.items()]
                about = {"id": repo, "sha": COMMIT, "siblings": siblings, "tags": []}
                self._send(200, {**about, "private": self.server.private.get(repo, False)})
                return
            prefix = f"/datasets/{repo}/resolve/{COMMIT}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                self._file(files[path.removeprefix(prefix)])
                return
        self._send(404, {"error": "nothing"}, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _model(self, path: str) -> bool:
        """Whether it was about models, and is answered."""
        if path == "/api/models":
            asked = parse_qs(urlsplit(self.path).query)
            self._send_list([repo for repo in self.server.models if self._matches(repo, asked)])
            return True
        for repo, files in self.server.models.items():
            prefix = f"/{repo}/resolve/{COMMIT}/"
            if path == f"/api/models/{repo}" or path.startswith(f"/api/models/{repo}/revision/"):
                siblings = [_listed(name, data) for name, data in files.items()]
                self._send(200, {**self._said(repo), "sha": COMMIT, "siblings": siblings})
                return True
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                self.server.authorized.append((path, self.headers.get("Authorization") or ""))
                if repo in self.server.gated:
                    self._send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
                elif self.server.elsewhere:
                    self._send(302, {}, {"Location": self.server.elsewhere + path})
                else:
                    self._file(files[path.removeprefix(prefix)])
                return True
        return False

    def _matches(self, repo: str, asked: dict[str, list[str]]) -> bool:
        tags = self.server.tags.get(repo, [])
        return asked.get("search", [""])[0].lower() in repo.lower() and set(asked.get("filter", [])) <= set(tags)

    def _said(self, repo: str) -> dict[str, Any]:
        gated = "manual" if repo in self.server.gated else False
        return {"id": repo, "modelId": repo, "tags": self.server.tags.get(repo, []), "gated": gated, "downloads": len(repo),
                "private": self.server.private.get(repo, False)}  # fmt: skip

    def _send_list(self, repos: list[str]) -> None:
        self._send(200, [self._said(repo) for repo in repos])

    def do_POST(self) -> None:
        path = self._path()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._send(403, {"error": "this token may not write"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif "/preupload/" in path:
            self._send(200, {"files": [_mode(file) for file in json.loads(body)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [self._object(o) for o in json.loads(body)["objects"]]
            self._send(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            kind, repo = path.split("/")[2], "/".join(path.split("/")[3:5])
            files = self.server.models[repo] if kind == "models" else self.server.repos[repo]
            self._commit(f"{kind}/{repo}", files, [json.loads(line) for line in body.splitlines()])
        else:
            self._send(404, {"error": path})

    def do_PUT(self) -> None:
        oid = self._path().rpartition("/")[2]
        data = self.rfile.read(int(self.headers["Content-Length"]))
        good = hashlib.sha256(data).hexdigest() == oid
        if good:
            self.server.objects[oid] = data
        self._send(200 if good else 400, {})

    def _create(self, about: dict[str, Any]) -> None:
        repo = f"{about.get('organization') or 'mira'}/{about['name']}"
        model = about.get("type", "model") == "model"
        there = self.server.models if model else self.server.repos
        known = repo in there
        if not known:
            there[repo] = {}
            private = about.get("private") is True or about.get("visibility") == "private"
            self.server.private[repo] = private
        url = f"{self.server.address}/{'' if model else 'datasets/'}{repo}"
        self._send(409 if known else 200, {"url": url, "error": "it is there"})

    def _validate(self, card: str) -> None:
        head = yaml.safe_load(card.split("---")[1])
        errors = [] if head.get("license") else [{"message": "no license"}]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def _object(self, about: dict[str, Any]) -> dict[str, Any]:
        if about["oid"] in self.server.objects:
            return about
        return {**about, "actions": {"upload": {"href": f"{self.server.address}/objects/{about['oid']}"}}}

    def _commit(self, place: str, files: dict[str, bytes], lines: list[dict[str, Any]]) -> None:
        paths = []
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            paths += [value["path"]] if "path" in value else []
        self.server.commits.append(paths)
        url = f"{self.server.address}/{place.removeprefix('models/')}/commit/{COMMIT}"
        self._send(200, {"commitUrl": url, "commitOid": COMMIT})

    def _file(self, data: bytes) -> None:
        asked = self.headers.get("Range")
        start, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        piece = data[int(start) : int(last) + 1 if last else None]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        if self.server.hold is not None and len(piece) > HELD_BYTES:
            self.wfile.write(piece[: len(piece) // 2])
            self.wfile.flush()
            self.server.hold.wait()
            piece = piece[len(piece) // 2 :]
        if self.server.breaks:
            self.server.breaks -= 1
            piece = piece[: len(piece) // 2]
            self.close_connection = True
        self.wfile.write(piece)

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        return path

    def _send(self, status: int, about: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(about).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _listed(name: str, data: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    about: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
    if PurePosixPath(name).suffix in LARGE:
        about["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return about


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    large = PurePosixPath(file["path"]).suffix in LARGE
    return {
        "path": file["path"],
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": False,
        "oid": None,
    }
