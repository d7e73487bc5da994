"""Is this installation well? One finding a line, with its remedy. Changes nothing."""

from __future__ import annotations

import platform
import re
import socket
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from tempfile import TemporaryFile
from typing import Any, Literal

from masuka import pocket
from masuka.config import Settings
from masuka.errors import MasukaError
from masuka.families import broken
from masuka.hosting import addresses
from masuka.hosting.machine import Machine, machine
from masuka.hosting.runtime import detect
from masuka.store.migrations import runner
from masuka.store.opening import database_file
from masuka.vault.local import Local

PACKAGES = (
    "gradio", "torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "pyngrok",
    "huggingface_hub", "pillow", "sqlite-utils",
)  # fmt: skip
SET_UP = "Run: python3 colab_setup.py setup"
LITTLE_DISK_GIB = 10
LEAST_DISK_GIB = 1
LITTLE_MEMORY_GIB = 2
OLDEST_TORCH = (2, 8)

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do where it is not 'good'."""

    name: str
    state: State
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON-ready values."""
        return asdict(self)


def examine(settings: Settings, *, serving: bool = False) -> list[Finding]:
    """Everything that was looked at; an installation is well without a 'bad'.

    `serving` says that the app itself asks, so that its own port is no finding.
    """
    here = machine(settings.workspace.root, device=settings.device)
    return [
        _python(),
        _host(settings),
        *_packages(),
        _torch(here),
        _gpu(here),
        _memory(here),
        _workspace(settings),
        _disk(here),
        _database(settings),
        _vault(settings),
        _pocket(),
        *_families(),
        *([] if serving else [_port(settings)]),
        _keys(settings),
        _link(settings),
    ]


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions by package, '' for one that is missing."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def _python() -> Finding:
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("python", "good", text)
    return Finding("python", "bad", text, "Use Python 3.11, 3.12 or 3.13.")


def _host(settings: Settings) -> Finding:
    host = detect()
    if host.zero_gpu:
        return Finding(
            "host", "note", "Runs on ZeroGPU, which lends its GPU for minutes to single requests",
            "Pictures borrow it; the built-in model trains on the CPU. To train the large ones, give the Space its own GPU.",
        )  # fmt: skip
    if host.keeps_files:
        return Finding("host", "good", f"Runs on {host.title}")
    if settings.vault is not None:
        return Finding("host", "good", f"Runs on {host.title}, and is kept in {settings.vault}")
    return Finding(
        "host", "note", f"Runs on {host.title}, which may forget its files",
        "Set MASUKA_VAULT to a folder that is kept, and download what you want to keep.",
    )  # fmt: skip


def _packages() -> list[Finding]:
    versions = package_versions()
    missing = [name for name, found in versions.items() if not found]
    if sys.platform != "linux" and "bitsandbytes" in missing:
        missing.remove("bitsandbytes")
    if missing:
        return [Finding("packages", "bad", f"Not installed: {', '.join(missing)}", SET_UP)]
    shown = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    return [Finding("packages", "good", shown)]


def _torch(here: Machine) -> Finding:
    found = package_versions(("torch",))["torch"]
    numbers = tuple(int(n) for n in re.findall(r"\d+", found)[:2])
    if numbers < OLDEST_TORCH:
        return Finding("torch", "bad", f"torch {found or 'is missing'}", SET_UP)
    if here.gpus and "+cpu" in found:
        return Finding(
            "torch", "bad", f"There is an NVIDIA GPU, but torch {found} is built for the CPU",
            "Delete the folder .venv and run: python3 colab_setup.py setup",
        )  # fmt: skip
    return Finding("torch", "good", f"torch {found}; jobs run on {here.device}")


def _gpu(here: Machine) -> Finding:
    if not here.gpus:
        return Finding(
            "gpu", "note", "No NVIDIA GPU",
            "The built-in model works without one; the full-size models need one.",
        )  # fmt: skip
    shown = "; ".join(
        f"{g.name}, {g.vram_free_gib:.1f} of {g.vram_total_gib:.1f} GiB free, driver {g.driver}"
        for g in here.gpus
    )
    return Finding("gpu", "good", shown)


def _memory(here: Machine) -> Finding:
    text = f"{here.ram_free_gib:.1f} of {here.ram_total_gib:.1f} GiB memory free, {here.cpu_count} cores"
    if here.ram_free_gib < LITTLE_MEMORY_GIB:
        return Finding("memory", "note", text, "Close other programs before a training.")
    return Finding("memory", "good", text)


def _workspace(settings: Settings) -> Finding:
    root = settings.workspace.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=root) as file:
            file.write(b"x")
    except OSError as error:
        return Finding(
            "workspace", "bad", f"{root} cannot be written: {error.strerror}",
            "Set MASUKA_HOME to a folder that you may write to.",
        )  # fmt: skip
    return Finding("workspace", "good", f"Files are kept in {root}")


def _disk(here: Machine) -> Finding:
    text = f"{here.disk_free_gib:.1f} GiB free on the workspace's disk"
    if here.disk_free_gib < LEAST_DISK_GIB:
        return Finding("disk", "bad", text, "Delete old runs in Training, or free space.")
    if here.disk_free_gib < LITTLE_DISK_GIB:
        return Finding("disk", "note", text, "A full-size model needs more; the built-in one does not.")
    return Finding("disk", "good", text)


def _database(settings: Settings) -> Finding:
    path = database_file(settings.workspace)
    if not path.exists():
        return Finding("database", "note", f"There is no database at {path} yet", "The first start makes it.")
    try:
        health = runner.check(path)
    except MasukaError as error:
        return Finding("database", "bad", error.message, error.hint)
    text = f"SQLite {health.sqlite_version}, journal {health.journal_mode}, {len(health.applied)} migrations"
    if health.problems:
        return Finding(
            "database", "bad", f"{text}. {health.problems[0]}",
            "Restore a backup: python -m masuka db restore",
        )  # fmt: skip
    if health.pending:
        return Finding("database", "note", f"{text}, {len(health.pending)} waiting", "The next start migrates it.")
    return Finding("database", "good", text)


def _vault(settings: Settings) -> Finding:
    """From this workspace's own notes: a vault that hangs must not hang the doctor."""
    host = detect()
    if settings.vault is None:
        state: State = "good" if host.keeps_files else "note"
        remedy = "" if host.keeps_files else "Name a folder that is kept in MASUKA_VAULT."
        return Finding("vault", state, "Nothing is kept outside this machine", remedy)
    try:
        notes = Local.load(settings.workspace, settings.vault)
    except MasukaError as error:
        return Finding("vault", "bad", error.message, error.hint)
    if not notes.written_at:
        return Finding("vault", "note", f"Nothing was saved to {settings.vault} yet", "Start MASUKA, or: masuka vault save")
    if notes.confirmed < notes.written:
        return Finding(
            "vault", "note", f"Last confirmed save {notes.confirmed_at or 'never'}, written {notes.written_at}",
            "Keep the session open until Drive has uploaded it.",
        )  # fmt: skip
    return Finding("vault", "good", f"Last confirmed save {notes.confirmed_at}, in {settings.vault}")


def _pocket() -> Finding:
    if (pocket.FOLDER / "model_index.json").is_file():
        return Finding("pocket", "good", "The built-in model is here")
    return Finding(
        "pocket", "bad", f"The built-in model is missing from {pocket.FOLDER}",
        "Get the project again; its folder masuka/pocket/weights is not complete.",
    )  # fmt: skip


def _families() -> list[Finding]:
    return [
        Finding("families", "note", f"The model family {name} is disabled: {why}", "Update or remove its package.")
        for name, why in broken.items()
    ]


def _port(settings: Settings) -> Finding:
    if not settings.port:
        return Finding("port", "good", "A free port is chosen at each start")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        taken = probe.connect_ex((settings.host, settings.port)) == 0
    if taken:
        return Finding(
            "port", "note", f"Something answers on port {settings.port}: MASUKA itself, or another program",
            "Set MASUKA_PORT to another number if it is another program.",
        )  # fmt: skip
    return Finding("port", "good", f"Port {settings.port} is free")


def _link(settings: Settings) -> Finding:
    host = detect()
    if host.public_address:
        return Finding("link", "good", f"{host.title} shows the page at {host.public_address}")
    if settings.share == "off":
        return Finding("link", "good", "Links for collaborators are switched off")
    told = addresses.read(settings.workspace)
    if told.state == "open":
        return Finding("link", "good", f"Open for collaborators: {told.public_url}")
    if told.state == "failed":
        return Finding("link", "note", told.message, told.hint)
    if settings.share == "cloudflared" and not settings.cloudflared_host:
        return Finding("link", "bad", "The Cloudflare tunnel has no host name", "Set CLOUDFLARED_HOST to its name.")
    return Finding("link", "good", "No link for collaborators is open")


def _keys(settings: Settings) -> Finding:
    names = ", ".join(sorted(settings.secrets)) or "none"
    return Finding("keys", "good", f"Keys given in the environment: {names}")
