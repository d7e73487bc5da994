"""Brings an interpreter and everything MASUKA imports; standard library only.

It runs before anything is installed, also in a Python that is too old for MASUKA itself,
which then only looks for a better one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence  # noqa: UP035 - an older Python must get as far as the sentence about it

from masuka.errors import Conflict, DownloadFailed, MasukaError, NotFound, OutOfDisk
from masuka.hosting.drivers import nvidia_driver, reachable
from masuka.hosting.steps import say, seconds

PYTHONS = ((3, 11), (3, 12), (3, 13))
TORCH = "2.13.0"
"""The torch that is installed where there is none; an installed one may be 2.8 or newer."""
OLDEST_TORCH = (2, 8)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
OLDER_DRIVER_INDEX = "https://download.pytorch.org/whl/cu126"
CUDA13_DRIVER = 580
"""Wheels of the default index are built for CUDA 13, which needs this NVIDIA driver."""
PINNED_ALWAYS = ("torch", "torchvision", "torchaudio", "torchcodec", "triton")
PINNED_IN_SHARED = ("numpy", "pillow", "pandas")
"""Compiled against each other, and often imported by a kernel before we come."""
WITH_FACES = "opencv-python-headless<5"
"""The last OpenCV that brings a face detector along; an image's own OpenCV is left alone."""
FREE_GIB_NEEDED = 4
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q", "--no-install-recommends")

PROBE = """
import json, sys
from importlib.metadata import version, PackageNotFoundError
def of(name):
    try: return version(name)
    except PackageNotFoundError: return None
print(json.dumps({"python": sys.version_info[:3], "prefix": sys.prefix,
                  "packages": {n: of(n) for n in sys.argv[1:] if of(n)}}))
"""
SELF_TEST = "import torch, diffusers, peft, pydantic, sqlite_utils, gradio"


@dataclass(frozen=True)
class Target:
    """The interpreter MASUKA runs in; a `shared` one belongs to somebody else too."""

    python: str
    shared: bool


@dataclass(frozen=True)
class Place:
    """The project's folder, and what the set-up keeps in it."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / ".setup"

    @property
    def log(self) -> Path:
        return self.state / "log.txt"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"


def prepare(place: Place, requirements: str, *, chosen: str = "", notebook: bool = False) -> Target:
    """The interpreter to use, with everything installed.

    `chosen` is an interpreter that somebody named; in a notebook it is the kernel's own,
    and where that does not fit, a private environment. Raises MasukaError.
    """
    if not chosen and not (notebook and sys.version_info[:2] in PYTHONS):
        if notebook:
            say(f"This notebook's Python {platform.python_version()} does not fit; a private environment is used")
        target = Target(private_python(place), shared=False)
        set_up(place, target, requirements)
        return target
    if chosen and version_of(chosen) not in PYTHONS:
        raise NotFound(f"MASUKA_PYTHON is {chosen}, which is no Python 3.11 to 3.13.", "Choose another one.")
    target = Target(chosen or sys.executable, shared=True)
    try:
        set_up(place, target, requirements)
    except Conflict as error:
        if chosen:
            raise
        say(f"{error.message} MASUKA gets a private environment instead; that downloads several GiB")
        target = Target(private_python(place, isolated=True), shared=False)
        set_up(place, target, requirements)
    return target


def base_python() -> str:
    """An installed Python 3.11 to 3.13: this one, else one that the PATH offers."""
    this = getattr(sys, "_base_executable", None) or sys.executable
    if sys.version_info[:2] in PYTHONS:
        return str(this)
    for major, minor in reversed(PYTHONS):
        found = shutil.which(f"python{major}.{minor}")
        if found and version_of(found) == (major, minor):
            say(f"Python {platform.python_version()} does not fit; using {found}")
            return found
    raise NotFound(
        f"This is Python {platform.python_version()}; MASUKA needs 3.11, 3.12 or 3.13.",
        "Install one of them and run this file with it, for example python3.12 colab_setup.py.",
    )


def version_of(python: str) -> tuple[int, ...]:
    """(major, minor) of an interpreter; () if it does not run."""
    try:
        found = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True, text=True, timeout=30, check=True)  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(part) for part in found.stdout.split())


def private_python(place: Place, *, isolated: bool = False) -> str:
    """The Python of `.venv`, made if it is missing or damaged.

    An `isolated` one sees nothing of the machine's own packages, not even its torch.
    """
    python = place.venv / "bin" / "python"
    if python.exists() and version_of(str(python)) in PYTHONS:
        return str(python)
    base = base_python()
    if shutil.disk_usage(place.root).free < FREE_GIB_NEEDED * 2**30:
        raise OutOfDisk(f"The disk has less than {FREE_GIB_NEEDED} GiB free.", "Make room, then run this again.")
    say("Making a private environment in .venv" + (" (the old one is damaged)" if python.parent.exists() else ""))
    command = [base, "-m", "venv", "--clear", str(place.venv)]
    if not isolated and usable_torch(probe(base)["packages"].get("torch")):
        say("This machine's own torch is kept and used")
        command.insert(3, "--system-site-packages")
    if run_logged(place, command) and not (_install_venv_package(place) and run_logged(place, command) == 0):
        raise NotFound(
            "Python cannot make environments here.", "On Debian or Ubuntu: apt-get install python3-venv."
        )
    return str(python)


def usable_torch(version: str | None) -> bool:
    """Whether that version of torch is new enough."""
    if version is None:
        return False
    numbers = re.findall(r"\d+", version)[:2]
    return tuple(int(n) for n in numbers) >= OLDEST_TORCH


def set_up(place: Place, target: Target, requirements: str) -> None:
    """Installs what is missing; the second time there is nothing to do.

    Raises Conflict where a shared interpreter's own packages stand in the way.
    """
    found = probe(target.python)
    stamp = place.state / f"{requirements}-{digest(target.python)}.json"
    conflict, unloaded = stamp.with_suffix(".conflict"), stamp.with_suffix(".unloaded")
    wanted = fingerprint(place, found, requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        say("Nothing to do, everything is installed")
        return
    if conflict.exists() and conflict.read_text() == wanted:
        raise Conflict("The packages that are installed here do not fit MASUKA's, as before.")
    # Too little memory or disk is a reason that passes, so this one is tried again.
    if unloaded.exists() and unloaded.read_text() == wanted and not _loads(place, target):
        raise Conflict("The packages that are installed here do not load, as before.")
    say(f"Setting up in {found['prefix']} (Python {'.'.join(map(str, found['python']))})")
    place.log.write_text("")
    try:
        _install(place, target, requirements, found["packages"].get("torch"))
    except Conflict:
        conflict.write_text(wanted)
        raise
    if not _loads(place, target):
        unloaded.write_text(wanted)
        raise Conflict("A package does not load after the installation.", "The end of the log names it.")
    stamp.write_text(fingerprint(place, probe(target.python), requirements))
    say("Everything is installed")


def _loads(place: Place, target: Target) -> bool:
    say("Checking that everything loads")
    return run_logged(place, [target.python, "-c", SELF_TEST]) == 0


def _install(place: Place, target: Target, requirements: str, torch: str | None) -> None:
    if torch is None:
        install_torch(place, target)
    elif not usable_torch(torch):
        raise Conflict(f"torch {torch} is installed here; MASUKA needs 2.8 or newer.", "Choose a newer runtime.")
    else:
        say(f"torch {torch} is here and stays")
    constraints = place.state / f"constraints-{digest(target.python)}.txt"
    constraints.write_text(pins(probe(target.python)["packages"], shared=target.shared))
    say(f"Installing {requirements}; the first time takes minutes")
    pip(place, target, ["-r", str(place.root / requirements), "-c", str(constraints)])


def pins(packages: dict[str, str], *, shared: bool) -> str:
    """The text of a constraints file that holds in place what must not move."""
    names = PINNED_ALWAYS + (PINNED_IN_SHARED if shared else ())
    chosen = "" if shared else f"{WITH_FACES}\n"
    return chosen + "".join(f"{name}=={packages[name]}\n" for name in names if name in packages)


def probe(python: str) -> dict[str, Any]:
    """Version, prefix and the packages that matter, as that interpreter sees them."""
    names = [*PINNED_ALWAYS, *PINNED_IN_SHARED, "gradio"]
    answer = subprocess.run([python, "-c", PROBE, *names], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise NotFound(f"{python} does not run: {answer.stderr.strip()[-200:]}")
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def fingerprint(place: Place, found: dict[str, Any], requirements: str) -> str:
    """What a finished setup depends on: the lists, the Python and the packages found."""
    texts = [(place.root / name).read_text() for name in ("requirements.txt", requirements)]
    return json.dumps({"lists": digest("".join(texts)), **found}, sort_keys=True)


def digest(text: str) -> str:
    """A short hash of the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def install_torch(place: Place, target: Target) -> None:
    """Installs torch: for this machine's NVIDIA driver, or a CPU build without one."""
    driver = nvidia_driver()
    if driver is None and sys.platform == "linux":
        if reachable(f"{CPU_INDEX}/torch/"):
            say(f"Installing torch {TORCH} for the CPU (no NVIDIA GPU here)")
            pip(place, target, [f"torch=={TORCH}", "--index-url", CPU_INDEX])
        else:
            say(f"Installing torch {TORCH} from the default index (the CPU index cannot be reached)")
            pip(place, target, [f"torch=={TORCH}"])
    elif driver is not None and driver < CUDA13_DRIVER:
        say(f"Installing torch for NVIDIA driver {driver}")
        pip(place, target, ["torch>=2.8,<3", "--index-url", OLDER_DRIVER_INDEX])
    else:
        say(f"Installing torch {TORCH}")
        pip(place, target, [f"torch=={TORCH}"])


def pip(place: Place, target: Target, arguments: Sequence[str]) -> None:
    """Installs with pip; a failure becomes a sentence."""
    command = [target.python, "-m", "pip", "install", "--no-input", "--progress-bar", "off", *arguments]
    if run_logged(place, command) == 0:
        return
    # Of this command alone: the log goes on from earlier ones.
    end = place.log.read_text(errors="replace").rpartition("\n$ ")[2][-4000:]
    raise why_pip_failed(end, target.python)


def why_pip_failed(end: str, python: str) -> MasukaError:
    """What the end of pip's output means."""
    known: tuple[tuple[str, type[MasukaError], str, str], ...] = (
        (r"No space left on device", OutOfDisk, "The disk is full.", "Make room, then run this again."),
        (r"No module named pip", NotFound, f"{python} has no pip.", "Install python3-pip, then run this again."),
        (r"externally-managed-environment", NotFound, "This Python does not accept packages.",
         "Unset MASUKA_PYTHON."),
        (r"ResolutionImpossible|conflicting dependencies", Conflict,
         "The packages that are installed here do not fit MASUKA's; the end of the log names them.",
         "Choose a newer runtime, or run this outside the notebook."),
        (r"name resolution|NewConnectionError|Connection.*(refused|reset|timed out)", DownloadFailed,
         "A package could not be downloaded.", "Check the network, then run this again."),
        (r"No matching distribution", NotFound,
         f"The package index has no version of a package for this machine and {python}; the end of the log "
         "names it.", "MASUKA runs on 64-bit Linux and on Macs with Apple silicon, with Python 3.11 to 3.13."),
    )  # fmt: skip
    for pattern, kind, message, hint in known:
        if re.search(pattern, end):
            return kind(message, hint)
    return MasukaError("pip could not install a package; the end of the log says which one.")


def run_logged(place: Place, command: Sequence[str]) -> int:
    """The exit code; output goes to the log, a line every ten seconds to the screen."""
    told_s, now_doing = seconds(), ""
    with place.log.open("a") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            for line in process.stdout or ():
                log.write(line)
                log.flush()
                words = line.strip().split(" ")
                if words[0] in ("Collecting", "Downloading", "Installing", "Get:", "Unpacking"):
                    now_doing = line.strip()[:90]
                if now_doing and seconds() - told_s > 10:
                    say(f"  … {now_doing}")
                    told_s = seconds()
        return process.returncode


def _install_venv_package(place: Place) -> bool:
    """Whether Debian's missing venv package could be installed."""
    if not may_apt():
        return False
    say("Installing python3-venv")
    return apt_install(place, ["python3-venv", "python3-pip"])


def may_apt() -> bool:
    """Whether system packages may be installed: root on Debian or Ubuntu."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(place: Place, packages: Sequence[str]) -> bool:
    """Whether the packages were installed with apt-get."""
    run_logged(place, ["apt-get", "update", "-q"])
    return run_logged(place, [*APT, *packages]) == 0
