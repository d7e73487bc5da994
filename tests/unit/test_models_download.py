"""Downloads from a hub on this machine: whole, gone on with, refused, offline, stopped."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest
from filelock import FileLock

from masuka.config import Workspace
from masuka.errors import (
    AccessDenied,
    Conflict,
    DownloadFailed,
    MasukaError,
    OutOfDisk,
    RemoteUnavailable,
    Stop,
)
from masuka.families.flux import SCHNELL
from masuka.jobs.reporter import EventFile
from masuka.models import catalogue, download
from masuka.models.fetch import Plan, RemoteFile, as_masuka_error, fetch_file

COMMIT = "a" * 40
REPO = "somebody/model"
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
FILES = {
    "model_index.json": b'{"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}',
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"w" * (3 * 2**20),
    "single_file.safetensors": b"no" * 500,
    "vae/pickle.bin": b"never",
}
ADAPTER = {"lora.safetensors": b"a" * 1000, "README.md": b"words"}


class Hub(ThreadingHTTPServer):
    """Answers as the hub's API does for two repositories."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos = {REPO: FILES, "somebody/adapter": ADAPTER}
        self.gated = False
        self.breaks = 0
        self.listed_size: int | None = None
        self.sent_instead: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        if self.server.gated and REPO in path:
            self._send(403, b'{"error": "gated"}', {"X-Error-Code": "GatedRepo"}, body=body)
            return None
        for repo, files in self.server.repos.items():
            if path.startswith(f"/api/models/{repo}"):
                siblings = [self._listed(name, content) for name, content in files.items()]
                about = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []}
                return self._send(200, json.dumps(about).encode(), {}, body=body)
            prefix = f"/{repo}/resolve/{COMMIT}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                name = path.removeprefix(prefix)
                return self._file(self.server.sent_instead.get(name, files[name]), body=body)
        return self._send(404, b'{"error": "none"}', {"X-Error-Code": "RepoNotFound"}, body=body)

    def _listed(self, name: str, content: bytes) -> dict[str, Any]:
        size = self.server.listed_size or len(content)
        about: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git_id(content)}
        if name.endswith(".safetensors"):
            about["lfs"] = {"size": size, "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 1}
        return about

    def _file(self, content: bytes, *, body: bool) -> None:
        headers = {"ETag": f'"{git_id(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers, body=body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            broken = self.server.breaks > 0 and len(content) > 2**19
            self.server.breaks -= broken
            self.wfile.write(content[: len(content) // 2] if broken else content)
            self.close_connection = True


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    # It keeps what the environment said when the first test of the process imported it.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Job:
    """A download job of the small model, with its own events file."""

    def __init__(self, workspace: Workspace, address: str) -> None:
        self.workspace = workspace
        self.folder = catalogue.folder_of(SCHNELL, workspace)
        self.events_file = workspace.jobs / "1" / "1.jsonl"
        self.params = {
            "id": SCHNELL.id, "title": "Small", "repo": REPO, "revision": None,
            "folder": str(self.folder), "size_gib": 0.1, "endpoint": address,
            "training_repo": "somebody/adapter", "training_adapter": str(catalogue.training_adapter_of(SCHNELL, workspace)),
        }  # fmt: skip

    def run(self, stop_reason: Callable[[], str | None] = lambda: None) -> dict[str, Any]:
        reporter = EventFile(self.events_file, self.workspace.jobs / "1" / "scratch-1", stop_reason)
        try:
            return download.run(self.params, reporter)
        finally:
            reporter.close()


def test_a_model_arrives_with_its_training_adapter_and_nothing_else(workspace: Workspace, hub: Hub) -> None:
    job = Job(workspace, hub.address)
    result = job.run()
    names = {f.relative_to(job.folder).as_posix() for f in job.folder.rglob("*") if f.is_file()}
    wanted = {"model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"}
    assert names == wanted | {catalogue.FINISHED}
    adapter = Path(job.params["training_adapter"])
    assert (adapter / "lora.safetensors").read_bytes() == ADAPTER["lora.safetensors"]
    assert result["bytes"] == sum(len(FILES[name]) for name in wanted) + 1005
    assert catalogue.is_installed(SCHNELL, workspace)
    assert json.loads((job.folder / catalogue.FINISHED).read_text())["commit"] == COMMIT
    steps = [json.loads(line) for line in job.events_file.read_text().splitlines()]
    assert [s["name"] for s in steps if s["type"] == "stage"] == [
        "Downloading somebody/adapter",
        f"Downloading {REPO}",
    ]
    hub.asked.clear()
    assert job.run() == result
    assert hub.asked == []


def test_another_autoencoder_takes_the_place_of_the_bases_own(workspace: Workspace, hub: Hub) -> None:
    better = {"config.json": b'{"better": 1}', "diffusion_pytorch_model.safetensors": b"v" * 5000, "sdxl.safetensors": b"no", "x.bin": b"no"}
    hub.repos["somebody/vae"] = better
    job = Job(workspace, hub.address)
    job.params["autoencoder_repo"] = "somebody/vae"
    result = job.run()
    names = {f.relative_to(job.folder).as_posix() for f in job.folder.rglob("*") if f.is_file()}
    assert names == {"model_index.json", "vae/config.json", WEIGHTS, catalogue.FINISHED}
    assert (job.folder / WEIGHTS).read_bytes() == better["diffusion_pytorch_model.safetensors"]
    note = json.loads((job.folder / catalogue.FINISHED).read_text())
    assert note["autoencoder"] == {"repo": "somebody/vae", "commit": COMMIT}
    assert note["files"][WEIGHTS] == hashlib.sha256(better["diffusion_pytorch_model.safetensors"]).hexdigest()
    assert result["bytes"] == note["bytes"] + 1005
    assert not any(WEIGHTS in path for _, path, _ in hub.asked)  # the base's own was never fetched


def test_a_base_whose_training_adapter_failed_is_repaired(workspace: Workspace, hub: Hub) -> None:
    job = Job(workspace, hub.address)
    adapter = hub.repos.pop("somebody/adapter")
    with pytest.raises(MasukaError):
        job.run()
    assert not catalogue.is_installed(SCHNELL, workspace) and not job.folder.exists()
    hub.repos["somebody/adapter"] = adapter
    job.run()
    assert catalogue.is_installed(SCHNELL, workspace)


def test_a_stop_in_the_middle_of_a_file_and_the_next_one_goes_on_there(
    workspace: Workspace, hub: Hub
) -> None:
    job = Job(workspace, hub.address)

    def reason() -> str | None:
        return "cancel" if any(part.stat().st_size >= 2**20 for part in job.folder.rglob("*.part")) else None

    with pytest.raises(Stop, match="cancel"):
        job.run(reason)
    assert not catalogue.is_installed(SCHNELL, workspace)
    hub.asked.clear()
    job.run()
    assert catalogue.is_installed(SCHNELL, workspace)
    assert (job.folder / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    starts = [start for _, path, start in hub.asked if path.endswith(WEIGHTS)]
    assert len(starts) == 1
    assert starts[0] is not None
    assert int(starts[0].removeprefix("bytes=").rstrip("-")) >= 2**20


def test_a_line_that_breaks_is_taken_up_again(workspace: Workspace, hub: Hub) -> None:
    hub.breaks = 2
    job = Job(workspace, hub.address)
    job.run()
    assert (job.folder / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert len([path for _, path, _ in hub.asked if path.endswith(WEIGHTS)]) == 3
    assert not list(job.folder.rglob("*.part"))


def test_other_bytes_than_listed_are_thrown_away(workspace: Workspace, hub: Hub) -> None:
    job = Job(workspace, hub.address)
    hub.sent_instead = {WEIGHTS: b"x" * len(FILES[WEIGHTS])}
    with pytest.raises(DownloadFailed, match="damaged"):
        job.run()
    assert not (job.folder / WEIGHTS).exists()
    assert not list(job.folder.rglob("*.part"))


def test_a_file_outside_the_folder_is_refused(workspace: Workspace) -> None:
    evil = RemoteFile("../../evil.json", 2, "", "")
    with pytest.raises(DownloadFailed, match="outside"):
        fetch_file(Plan(REPO, COMMIT, (evil,)), evil, workspace.models / "x", lambda _: None)


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(workspace: Workspace, hub: Hub) -> None:
    hub.listed_size = 2**60
    job = Job(workspace, hub.address)
    with pytest.raises(OutOfDisk, match="GiB are free"):
        job.run()
    assert not any("resolve" in path for _, path, _ in hub.asked)
    # Without an adapter nothing but the index, which says what there would be to fetch.
    job.params["training_repo"] = None
    with pytest.raises(OutOfDisk, match="GiB are free"):
        job.run()
    assert {path.rsplit("/", 1)[-1] for _, path, _ in hub.asked if "resolve" in path} == {"model_index.json"}


def test_a_licence_to_accept_is_said(workspace: Workspace, hub: Hub) -> None:
    hub.gated = True
    with pytest.raises(AccessDenied, match="accept its licence") as caught:
        Job(workspace, hub.address).run()
    assert f"https://huggingface.co/{REPO}" in caught.value.hint


def test_a_hub_that_is_not_there_is_said(workspace: Workspace, hub: Hub) -> None:
    with pytest.raises(RemoteUnavailable, match="cannot be reached"):
        Job(workspace, "http://127.0.0.1:9").run()


@pytest.mark.parametrize("place", ["folder", "training_adapter"])
def test_two_downloads_of_one_model_do_not_meet(workspace: Workspace, hub: Hub, place: str) -> None:
    job = Job(workspace, hub.address)
    folder = Path(job.params[place])
    with FileLock(folder.with_name(f".{folder.name}.lock")), pytest.raises(Conflict, match="already"):
        job.run()


class Refusal(Exception):
    """An error of some HTTP client, which carries the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.response = type("Response", (), {"status_code": status})()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Refusal(403), AccessDenied),
        (Refusal(401), AccessDenied),
        (Refusal(429), RemoteUnavailable),
        (Refusal(503), RemoteUnavailable),
        (Refusal(416), DownloadFailed),
        (OSError(28, "No space left on device"), OutOfDisk),
        (type("TransportError", (Exception,), {})("no"), RemoteUnavailable),
        (type("RevisionNotFoundError", (Exception,), {})("no"), DownloadFailed),
        (KeyError("x"), DownloadFailed),
    ],
)
def test_errors_become_sentences(error: Exception, kind: type[Exception]) -> None:
    made = as_masuka_error(error, REPO)
    assert type(made) is kind
    assert made.hint
