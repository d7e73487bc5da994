#!/usr/bin/env python3
"""Gets MASUKA, sets it up and starts it, on every host, with the standard library alone.

    python3 colab_setup.py          sets up, migrates the database, opens the app
    python3 colab_setup.py demo     sets up, then the main job on the built-in model
    python3 colab_setup.py test     sets up, then the whole test suite (pytest arguments may follow)
    python3 colab_setup.py setup    sets up and stops
    python3 colab_setup.py update   gets the newest version of the code, then sets up

Downloaded alone it fetches the project first, into the folder `masuka` beside it. It works
in a private environment, `.venv` in the project. In a notebook kernel (Colab, Kaggle) it
uses the kernel's own Python, and with MASUKA_PYTHON set that interpreter; there it adds
what is missing and pins what was found. A torch that is installed is never replaced.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, Sequence  # noqa: UP035 - an older Python must get as far as the sentence about it

REPOSITORY = "https://github.com/masuka-studio/masuka"
"""Where the project is published; to be set when it is. MASUKA_REPOSITORY names another place."""
VERSION = "v0.1.0"
"""The tag that belongs to this file."""
NEWEST = "newest"
HERE = Path(__file__).resolve().parent
TRIES = 3
PATIENCE_S = 2.0
GIT = ("git", "-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30")
FETCH = ("fetch", "-q", "--depth", "1", "--force")
COMMANDS = ("serve", "demo", "test", "setup", "update")


class SetupError(Exception):
    """One sentence about what went wrong and what to do."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the sentence, without a traceback."""
        return [f"Setup stopped: {self}"]


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 failed with a sentence, 2 not understood."""
    command, rest = (arguments[0], list(arguments[1:])) if arguments else ("serve", [])
    if command in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if command not in COMMANDS:
        print(f"There is no command {command!r}. Use {', '.join(COMMANDS)} or nothing.", file=sys.stderr)
        return 2
    try:
        root = project()
        if root != HERE:
            return call([sys.executable, str(root / "colab_setup.py"), command, *rest], root)
        if command == "update":
            print(f"The code is at {update(root)}.")
        elif command == "serve" and in_kernel():
            notebook()
            return 0
        python = set_up(root, "requirements-dev.txt" if command == "test" else "requirements.txt")
        if command == "test":
            return run_tests(root, python, rest)
        if command in ("setup", "update"):
            return 0
        if in_notebook():
            print("Drive and the notebook's secrets cannot be reached from here, only from the notebook's own "
                  "cell: %run colab_setup.py. What is made now is lost with the runtime.")  # fmt: skip
        return call([python, "-m", "masuka", command, *rest], root)
    except SetupError as error:
        print(f"\nSetup stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130


def notebook(*, repository: str = "", version: str = "", commit: str = "", **options: Any) -> Any:
    """What a notebook's cell does, from getting the code to the open studio.

    `options` are those of `masuka.notebook.open_masuka`. A checkout that is on a
    branch is somebody's own and stays as it is. Raises SetupError, which a notebook shows
    as one sentence.
    """
    root = project(repository=repository, version=version, commit=commit)
    here = version_of(root)
    if version and version != here and not on_branch(root):
        if version == NEWEST or _numbers(version) >= _numbers(here):
            update(root, version=version, repository=repository, commit=commit)
        else:
            print(f"The code is {here}, newer than {version}, and stays: a newer database opens in no older one.")
    if commit and not _git(root, "rev-parse", "HEAD").startswith(commit):
        raise SetupError(f"The code in {root} is not {commit[:12]}. Delete the folder, then run this again.")
    part(root, "hosting.steps").begin()
    python = set_up(root, "requirements.txt")
    with _in_words():
        return part(root, "notebook").open_masuka(root=root, python=python, **options)


def stop(**options: Any) -> None:
    """Saves and closes the app; options of `masuka.notebook.stop_masuka`."""
    with _in_words():
        part(project(), "notebook").stop_masuka(**options)


def project(*, repository: str = "", version: str = "", commit: str = "") -> Path:
    """The project's folder: this one, the one beside this file, else fetched there."""
    if (HERE / "masuka" / "__init__.py").exists():
        return HERE
    folder = HERE / "masuka"
    if not (folder / "colab_setup.py").exists():
        fetch(folder, repository=repository, version=version or VERSION, commit=commit)
    return folder


def fetch(folder: Path, *, repository: str = "", version: str = VERSION, commit: str = "") -> str:
    """The commit that is in the folder now, got whole or not at all.

    A tag, a branch or a commit may be named; `commit`, where it is known, must be what
    arrives. Tried three times. Raises SetupError.
    """
    if shutil.which("git") is None:
        raise SetupError("git is missing. Install it (apt-get install git), then run this again.")
    source = repository or os.environ.get("MASUKA_REPOSITORY", "") or REPOSITORY
    new = not (folder / ".git").exists()
    place = folder.with_name(f"{folder.name}.part") if new else folder
    if new and folder.exists():
        raise SetupError(f"{folder} is there and is not MASUKA. Move it away, then run this again.")
    if new:
        shutil.rmtree(place, ignore_errors=True)
        _git(place.parent, "init", "-q", str(place))
    got = ""
    for attempt in range(TRIES):
        time.sleep(PATIENCE_S * attempt)
        wanted = newest_tag(source) if version == NEWEST else version
        if wanted and _run_git(place, *FETCH, source, *_names(wanted)).returncode == 0:
            got = _git(place, "rev-parse", "FETCH_HEAD^{commit}").strip()
            break
        print(f"The code could not be fetched from {source} (try {attempt + 1} of {TRIES}).", flush=True)
    if not got:
        raise SetupError(f"{source} does not answer, or has no {version}. Check the address and the network.")
    if commit and not got.startswith(commit):
        raise SetupError(f"The code that came is {got[:12]}, and {commit[:12]} was asked for. It is not used.")
    if _run_git(place, "checkout", "-q", "--detach", got).returncode:
        raise SetupError(f"Files in {folder} were changed by hand. Move the folder away, then run this again.")
    if _git(place, "status", "--porcelain", "--untracked-files=no").strip():
        raise SetupError(f"The code in {folder} did not arrive whole. Delete the folder, then run this again.")
    if new:
        place.rename(folder)
    return got


def _names(version: str) -> tuple[str, ...]:
    """What to ask git for: a tag is kept under its name, so that it can be told later."""
    return (f"refs/tags/{version}:refs/tags/{version}",) if re.match(r"v\d", version) else (version,)


def newest_tag(source: str) -> str:
    """The highest version tag of the repository; '' without one or an answer."""
    try:
        listed = _git(HERE, "ls-remote", "--tags", "--refs", source, "v*")
    except SetupError:
        return ""
    tags = [line.rpartition("refs/tags/")[2] for line in listed.splitlines()]
    numbered = [t for t in tags if re.fullmatch(r"v\d+(\.\d+)*", t)]
    return max(numbered, key=_numbers, default="")


def _numbers(version: str) -> list[int]:
    """The numbers of a version tag, to compare; of a branch or a commit none."""
    return [int(n) for n in re.findall(r"\d+", version)] if re.fullmatch(r"v\d+(\.\d+)*", version) else []


def update(root: Path, *, version: str = NEWEST, repository: str = "", commit: str = "") -> str:
    """The version the code has now, after an update.

    Compiled leftovers and loaded modules are forgotten. What stands on a branch goes forward on it, everything else to the version asked for.
    """
    if not (root / ".git").exists():
        raise SetupError(f"{root} was not got with git, so it cannot be updated. Get the newer version by hand.")
    if on_branch(root):
        _git(root, "pull", "-q", "--ff-only")
    else:
        fetch(root, repository=repository or _origin(root), version=version, commit=commit)
    for folder in [*(root / "masuka").rglob("__pycache__"), root / "__pycache__"]:
        shutil.rmtree(folder, ignore_errors=True)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.split(".")[0] == "masuka" and Path(file).is_relative_to(root):
            del sys.modules[name]
    return version_of(root)


def version_of(root: Path) -> str:
    """The tag of the code, else its short commit; '' for what was not got with git."""
    return _git(root, "describe", "--tags", "--always").strip() if (root / ".git").exists() else ""


def on_branch(root: Path) -> bool:
    """Whether the code is a checkout that somebody works in."""
    return (root / ".git").exists() and _run_git(root, "symbolic-ref", "-q", "HEAD").returncode == 0


def _origin(root: Path) -> str:
    """Where a clone was made from; '' for what this file fetched itself."""
    answer = _run_git(root, "remote", "get-url", "origin")
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _git(folder: Path, *arguments: str) -> str:
    """What git said; raises SetupError with its last line."""
    answer = _run_git(folder, *arguments)
    if answer.returncode:
        said = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SetupError(f"git {arguments[0]} failed in {folder}: {said[:200]}")
    return answer.stdout


def _run_git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A repository that wants a password fails at once instead of waiting for a keyboard.
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run([*GIT, *arguments], cwd=folder, env=quiet, capture_output=True, text=True, check=False)


def part(root: Path, name: str) -> Any:
    """A module of MASUKA from that folder."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    return importlib.import_module(f"masuka.{name}")


def set_up(root: Path, requirements: str) -> str:
    """The interpreter in which everything is installed."""
    install = part(root, "hosting.install")
    place = install.Place(root)
    place.state.mkdir(exist_ok=True)
    with _in_words(f"The full log is {place.log}."), one_at_a_time(place.state):
        chosen = os.environ.get("MASUKA_PYTHON", "").strip()
        target = install.prepare(place, requirements, chosen=chosen, notebook=in_notebook())
    return str(target.python)


@contextlib.contextmanager
def _in_words(more: str = "") -> Iterator[None]:
    """Turns MASUKA's own errors into one sentence of this file's."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, "hint"):
            raise
        raise SetupError(" ".join(part for part in (str(error), more) if part)) from None


def in_kernel() -> bool:
    """Whether this is a notebook's kernel, where Drive and secrets can be reached."""
    shell = sys.modules.get("IPython")
    return shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None


def in_notebook() -> bool:
    """Whether this is a notebook kernel or a command that one started."""
    hosted = any(name.startswith(("COLAB_", "KAGGLE_KERNEL")) for name in os.environ)
    return in_kernel() or hosted or Path("/var/colab/hostname").exists()


def call(command: Sequence[str], folder: Path, **more: str) -> int:
    """The exit code of a program that talks to the person itself."""
    process = subprocess.Popen(list(command), cwd=folder, env={**os.environ, **more})
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            # The program got the same signal from the terminal and ends in its own way.
            continue


@contextlib.contextmanager
def one_at_a_time(state: Path) -> Iterator[None]:
    """Holds the setup's lock; a second setup waits."""
    if os.name == "nt":
        raise SetupError("Windows is supported through WSL. Install it with wsl --install and run this there.")
    import fcntl  # does not exist on Windows

    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another setup is running; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_tests(root: Path, python: str, arguments: Sequence[str]) -> int:
    """The exit code of pytest."""
    install = part(root, "hosting.install")
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        if install.may_apt():
            print("Installing Chromium for the browser tests", flush=True)
            install.apt_install(install.Place(root), ["chromium"])
        else:
            print("There is no Chromium, so the browser tests are skipped. Install it with your package manager.")
    print("Running the tests", flush=True)
    return call([python, "-m", "pytest", *arguments], root, PYTHONUNBUFFERED="1")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
