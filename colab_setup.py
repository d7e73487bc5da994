#!/usr/bin/env python3
"""Sets MASUKA up and starts it, on every host, with the standard library alone.

    python3 colab_setup.py          sets up, migrates the database, opens the app
    python3 colab_setup.py demo     sets up, then the main job on the built-in model
    python3 colab_setup.py test     sets up, then the whole test suite (pytest arguments may follow)
    python3 colab_setup.py setup    sets up and stops

It works in a private environment, `.venv` beside this file. In a notebook kernel (Colab,
Kaggle) it uses the kernel's own Python, and with MASUKA_PYTHON set that interpreter; there
it adds what is missing and pins what was found. A torch that is installed is never replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Iterator, Sequence  # noqa: UP035 - an older Python must get as far as the sentence about it

ROOT = Path(__file__).resolve().parent
STATE = ROOT / ".setup"
LOG = STATE / "log.txt"
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
DRIVER_PATIENCE_S = 60.0
FREE_GIB_NEEDED = 4
STARTED_S = time.monotonic()

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


class SetupError(Exception):
    """One sentence about what went wrong and what to do."""


@dataclasses.dataclass(frozen=True)
class Target:
    """The interpreter MASUKA runs in; a `shared` one belongs to somebody else too."""

    python: str
    shared: bool


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 failed with a sentence, 2 not understood."""
    command, rest = (arguments[0], list(arguments[1:])) if arguments else ("serve", [])
    if command in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if command not in ("serve", "demo", "test", "setup"):
        print(f"There is no command {command!r}. Use demo, test, setup, serve or nothing.", file=sys.stderr)
        return 2
    try:
        STATE.mkdir(exist_ok=True)
        with one_at_a_time():
            target = choose_target()
            set_up(target, "requirements-dev.txt" if command == "test" else "requirements.txt")
        if command == "test":
            return run_tests(target, rest)
        return 0 if command == "setup" else call([target.python, "-m", "masuka", command, *rest])
    except SetupError as error:
        print(f"\nSetup stopped: {error}\nThe full log is {LOG}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130


def say(text: str) -> None:
    """Prints one progress line with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED_S:6.1f} s] {text}", flush=True)


def choose_target() -> Target:
    """The interpreter to set up: MASUKA_PYTHON, the notebook's own, else `.venv`."""
    chosen = os.environ.get("MASUKA_PYTHON", "").strip()
    if chosen:
        if version_of(chosen) not in PYTHONS:
            raise SetupError(f"MASUKA_PYTHON is {chosen}, which is no Python 3.11 to 3.13. Choose another one.")
        return Target(chosen, shared=True)
    if in_notebook():
        if sys.version_info[:2] not in PYTHONS:
            raise SetupError(
                f"This notebook runs Python {platform.python_version()}; MASUKA needs 3.11, 3.12 or 3.13. "
                "Choose another runtime version."
            )
        return Target(sys.executable, shared=True)
    return Target(private_python(), shared=False)


def in_notebook() -> bool:
    """Whether this is a notebook kernel or a command that one started."""
    shell = sys.modules.get("IPython")
    kernel = shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None
    hosted = any(name.startswith(("COLAB_", "KAGGLE_KERNEL")) for name in os.environ)
    return kernel or hosted or Path("/var/colab/hostname").exists()


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
    raise SetupError(
        f"This is Python {platform.python_version()}; MASUKA needs 3.11, 3.12 or 3.13. "
        "Install one of them and run this file with it, for example python3.12 colab_setup.py."
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


def private_python() -> str:
    """The Python of `.venv`, made if it is missing or damaged."""
    python = ROOT / ".venv" / "bin" / "python"
    if python.exists() and version_of(str(python)) in PYTHONS:
        return str(python)
    base = base_python()
    if shutil.disk_usage(ROOT).free < FREE_GIB_NEEDED * 2**30:
        raise SetupError(f"The disk has less than {FREE_GIB_NEEDED} GiB free. Make room, then run this again.")
    say("Making a private environment in .venv" + (" (the old one is damaged)" if python.parent.exists() else ""))
    command = [base, "-m", "venv", "--clear", str(ROOT / ".venv")]
    if usable_torch(probe(base)["packages"].get("torch")):
        say("This machine's own torch is kept and used")
        command.insert(3, "--system-site-packages")
    if run_logged(command) and not (install_venv_package() and run_logged(command) == 0):
        raise SetupError("Python cannot make environments here. On Debian or Ubuntu: apt-get install python3-venv.")
    return str(python)


def install_venv_package() -> bool:
    """Whether Debian's missing venv package could be installed."""
    if not may_apt():
        return False
    say("Installing python3-venv")
    return apt_install(["python3-venv", "python3-pip"])


def usable_torch(version: str | None) -> bool:
    """Whether that version of torch is new enough."""
    if version is None:
        return False
    numbers = re.findall(r"\d+", version)[:2]
    return tuple(int(n) for n in numbers) >= OLDEST_TORCH


def set_up(target: Target, requirements: str) -> None:
    """Installs what is missing; the second time there is nothing to do."""
    found = probe(target.python)
    stamp = STATE / f"{requirements}-{digest(target.python)}.json"
    wanted = fingerprint(found, requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        say("Nothing to do, everything is installed")
        return
    say(f"Setting up in {found['prefix']} (Python {'.'.join(map(str, found['python']))})")
    LOG.write_text("")
    torch = found["packages"].get("torch")
    if torch is None:
        install_torch(target)
    elif not usable_torch(torch):
        raise SetupError(f"torch {torch} is installed here; MASUKA needs 2.8 or newer. Choose a newer runtime.")
    else:
        say(f"torch {torch} is here and stays")
    pins = PINNED_ALWAYS + (PINNED_IN_SHARED if target.shared else ())
    packages = probe(target.python)["packages"]
    constraints = STATE / f"constraints-{digest(target.python)}.txt"
    constraints.write_text("".join(f"{name}=={packages[name]}\n" for name in pins if name in packages))
    say(f"Installing {requirements}; the first time takes minutes")
    pip(target, ["-r", str(ROOT / requirements), "-c", str(constraints)])
    say("Checking that everything loads")
    if run_logged([target.python, "-c", SELF_TEST]):
        raise SetupError("A package does not load after the installation; the end of the log names it.")
    stamp.write_text(fingerprint(probe(target.python), requirements))
    say("Everything is installed")


def probe(python: str) -> dict[str, Any]:
    """Version, prefix and the packages that matter, as that interpreter sees them."""
    names = [*PINNED_ALWAYS, *PINNED_IN_SHARED, "gradio"]
    answer = subprocess.run([python, "-c", PROBE, *names], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SetupError(f"{python} does not run: {answer.stderr.strip()[-200:]}")
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def fingerprint(found: dict[str, Any], requirements: str) -> str:
    """What a finished setup depends on: the lists, the Python and the packages found."""
    texts = [(ROOT / name).read_text() for name in ("requirements.txt", requirements)]
    return json.dumps({"lists": digest("".join(texts)), **found}, sort_keys=True)


def digest(text: str) -> str:
    """A short hash of the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def install_torch(target: Target) -> None:
    """Installs torch: for this machine's NVIDIA driver, or a CPU build without one."""
    driver = nvidia_driver()
    if driver is None and sys.platform == "linux":
        if reachable(f"{CPU_INDEX}/torch/"):
            say(f"Installing torch {TORCH} for the CPU (no NVIDIA GPU here)")
            pip(target, [f"torch=={TORCH}", "--index-url", CPU_INDEX])
        else:
            say(f"Installing torch {TORCH} from the default index (the CPU index cannot be reached)")
            pip(target, [f"torch=={TORCH}"])
    elif driver is not None and driver < CUDA13_DRIVER:
        say(f"Installing torch for NVIDIA driver {driver}")
        pip(target, ["torch>=2.8,<3", "--index-url", OLDER_DRIVER_INDEX])
    else:
        say(f"Installing torch {TORCH}")
        pip(target, [f"torch=={TORCH}"])


def nvidia_driver() -> int | None:
    """Major version of the NVIDIA driver; None without a GPU.

    Raises SetupError when the driver does not answer: a torch for the CPU would stay for good.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    with tempfile.TemporaryFile("w+") as said:
        asked = subprocess.Popen(query, stdout=said, stderr=subprocess.DEVNULL)
        try:
            code = asked.wait(DRIVER_PATIENCE_S)
        except subprocess.TimeoutExpired:
            asked.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                # A process that hangs inside the driver cannot even be killed.
                asked.wait(5)
            raise SetupError(
                "The NVIDIA driver does not answer (nvidia-smi hangs). Restart this machine, then run this again."
            ) from None
        said.seek(0)
        number = said.read().strip().split(".")[0]
    return int(number) if code == 0 and number.isdigit() else None


def reachable(address: str, timeout_s: float = 6.0) -> bool:
    """Whether that address answers in time."""
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def pip(target: Target, arguments: Sequence[str]) -> None:
    """Installs with pip; a failure becomes a sentence."""
    command = [target.python, "-m", "pip", "install", "--no-input", "--progress-bar", "off", *arguments]
    if run_logged(command) == 0:
        return
    # Of this command alone: the log goes on from earlier ones.
    raise SetupError(why_pip_failed(LOG.read_text(errors="replace").rpartition("\n$ ")[2][-4000:], target.python))


def why_pip_failed(end: str, python: str) -> str:
    """A sentence for the end of pip's output."""
    for pattern, sentence in (
        (r"No space left on device", "The disk is full. Make room, then run this again."),
        (r"No module named pip", f"{python} has no pip. Install python3-pip, then run this again."),
        (r"externally-managed-environment", "This Python does not accept packages. Unset MASUKA_PYTHON."),
        (r"ResolutionImpossible|conflicting dependencies",
         "The packages that are installed here do not fit MASUKA's; the end of the log names them. "
         "Choose a newer runtime, or run this outside the notebook."),
        (r"name resolution|NewConnectionError|Connection.*(refused|reset|timed out)",
         "A package could not be downloaded. Check the network, then run this again."),
        (r"No matching distribution",
         f"The package index has no version of a package for this machine and {python}; the end of the log "
         "names it. MASUKA runs on 64-bit Linux and on Macs with Apple silicon, with Python 3.11 to 3.13."),
    ):  # fmt: skip
        if re.search(pattern, end):
            return sentence
    return "pip could not install a package; the end of the log says which one."


def run_logged(command: Sequence[str]) -> int:
    """The exit code; output goes to the log, a line every ten seconds to the screen."""
    told_s, now_doing = time.monotonic(), ""
    with LOG.open("a") as log:
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
                if now_doing and time.monotonic() - told_s > 10:
                    say(f"  … {now_doing}")
                    told_s = time.monotonic()
        return process.returncode


def call(command: Sequence[str], **more: str) -> int:
    """The exit code of a program that talks to the person itself."""
    process = subprocess.Popen(list(command), cwd=ROOT, env={**os.environ, **more})
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            # The program got the same signal from the terminal and ends in its own way.
            continue


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Holds the setup's lock; a second setup waits."""
    if os.name == "nt":
        raise SetupError("Windows is supported through WSL. Install it with wsl --install and run this there.")
    import fcntl  # does not exist on Windows

    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another setup is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_tests(target: Target, arguments: Sequence[str]) -> int:
    """The exit code of pytest, run with coverage."""
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        if may_apt():
            say("Installing Chromium for the browser tests")
            apt_install(["chromium"])
        else:
            say("There is no Chromium, so the browser tests are skipped. Install it with your package manager.")
    say("Running the tests")
    coverage = ["--cov=masuka", "--cov-report=term:skip-covered"]
    return call([target.python, "-m", "pytest", *coverage, *arguments], PYTHONUNBUFFERED="1")


def may_apt() -> bool:
    """Whether system packages may be installed: root on Debian or Ubuntu."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(packages: Sequence[str]) -> bool:
    """Whether the packages were installed with apt-get."""
    run_logged(["apt-get", "update", "-q"])
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q", "--no-install-recommends"]
    return run_logged([*quiet, *packages]) == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
