"""What one cell of a notebook does, in the notebook's own kernel, once the code is there.

Drive, secrets, the studio brought back, then the app as a process of its own with its
links, or the studio in the kernel where web pages are not allowed. Each step is one line;
each failure one sentence. Nothing is imported here that has to be installed first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from masuka.config import SECRET_NAMES, Settings, child_environment
from masuka.errors import AccessDenied, InvalidInput, MasukaError, NotFound
from masuka.hosting import colab, process
from masuka.hosting.commands import ask_masuka
from masuka.hosting.drivers import ask_driver
from masuka.hosting.idle import IdleWatch
from masuka.hosting.install import Place
from masuka.hosting.runtime import PORT, Runtime, detect
from masuka.hosting.sending import LENT, drive_of, remember, send_the_rest
from masuka.hosting.steps import say
from masuka.hosting.turns import Turn
from masuka.vault.confirm import lend_token

CELLS, APP = "cells", "app"
BUILT_IN = "pocket"
KEPT_FREE_GIB = 2
LINK_PATIENCE_S = 150.0
WISH_PATIENCE_S = 4.0
"""So long after the app answers it may still be about to open a link."""
TOKEN_RENEWED_S = 2400.0
"""Google's tokens hold for an hour."""
LINK_KEYS = frozenset({"NGROK_AUTHTOKEN", "CLOUDFLARED_TOKEN"})
FREE_COLAB = (
    "Free Colab does not allow web pages, and ends runtimes that show one; without compute units the studio "
    "opens in this notebook instead. Go on with the cells below."
)
POLICY = "Train only on people who agreed to it; Colab forbids likenesses of anybody else on every plan."


@dataclass
class Opened:
    """What a cell has opened: the app's addresses, or the studio itself in the kernel.

    `studio` is for the cells below; None while the app has it.
    """

    way: str
    studio: Any = field(default=None, repr=False)
    address: str = ""
    link: str = field(default="", repr=False)
    public_url: str = ""
    vault: Path | None = None
    base: str = BUILT_IN

    def close(self) -> None:
        """Closes the studio of the kernel; the app goes on."""
        studio, self.studio = self.studio, None
        if studio is not None and not studio.close():
            say("Not everything is in the vault yet: run Stop and save before the runtime goes")


def open_masuka(
    *,
    root: Path,
    python: str,
    drive_folder: str = "MASUKA",
    way: str = APP,
    compute_units: bool = False,
    base: str = BUILT_IN,
    stop_when_idle_min: int = 0,
    share: bool = True,
    confirm_saves: bool = False,
) -> Opened:
    """The opened studio, in the kernel or behind the app.

    `root` is the code, `python` the interpreter in which everything is installed. `drive_folder` is a folder of My Drive; '' keeps nothing. Colab's `way` is the app only
    with compute units. `confirm_saves` asks Google for one more permission, and then knows
    of every save whether it has arrived. Raises MasukaError.
    """
    if way not in (APP, CELLS):
        raise InvalidInput(f"There is no way {way!r} to open MASUKA.", f"Choose {APP} or {CELLS}.", field="way")
    host = detect()
    say(_gpu_line())
    home = _home(host, root)
    vault = _vault(host, home, drive_folder)
    environment = _environment(host, home, vault)
    secrets = _secrets(host)
    way = _allowed(way, host, compute_units)
    place = Place(root)
    remember(place, python, environment)
    if way == CELLS:
        process.stop(place.state)
        opened = Opened(way, studio=_studio(python, {**environment, **secrets}), vault=vault)
    else:
        opened = _app(place, python, host, {**environment, **secrets}, vault, share=share)
    try:
        if confirm_saves and vault is not None and host.name == "colab":
            _lend_token(Path(environment["MASUKA_HOME"]) / "secrets" / LENT, place)
        opened.base = _base(opened, place, python, {**environment, **secrets}, base)
        if stop_when_idle_min and host.name == "colab":
            _watch(opened, Path(environment["MASUKA_HOME"]), place, stop_when_idle_min)
    except BaseException:
        opened.close()
        raise
    return opened


def stop_masuka(*, give_back: bool = False) -> None:
    """Saves, closes the app, sends everything to Drive; may give the runtime back.

    Raises MasukaError with what is left when not everything was sent; the runtime stays.
    """
    place = Place(Path(__file__).resolve().parents[1])
    say("Saving and closing" if process.running(place.state) else "The app is not running")
    process.stop(place.state)
    send_the_rest(place)
    for turn in ("idle", "lending"):
        (place.state / turn).unlink(missing_ok=True)
    if give_back:
        say("The runtime is given back")
        colab.give_back_runtime()


def _gpu_line() -> str:
    name, memory = ask_driver("name"), ask_driver("memory.total")
    if not name:
        return (
            "No GPU: the built-in model works, slowly; the large ones do not. "
            "For a GPU: Runtime, Change runtime type, then run this cell again"
        )
    return f"GPU: {name}, {memory}"


def _home(host: Runtime, root: Path) -> Path | None:
    """The workspace on a notebook's rented machine: local and fast; elsewhere None."""
    if host.name not in ("colab", "kaggle"):
        return None
    return Path(child_environment({}).get("MASUKA_HOME") or root.parent / "masuka-work").resolve()


def _vault(host: Runtime, home: Path | None, drive_folder: str) -> Path | None:
    """The folder that outlives this machine; None where there is none or none is wanted."""
    name = drive_folder.strip().strip("/")
    if home is None:
        return None
    if not name:
        say("Without a folder in Drive NOTHING IS KEPT when this runtime ends")
        return None
    if ".." in Path(name).parts:
        raise InvalidInput(f"{name!r} leaves My Drive.", "Name a folder inside it.", field="drive_folder")
    if host.name == "kaggle":
        folder = home.parent / name
        say(f"Kaggle keeps {folder} when you save a version of this notebook, and nothing else")
    else:
        folder = colab.mount_drive(drive_of(home)) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".masuka").write_text("MASUKA keeps its things here.\n", encoding="utf-8")
    except OSError as error:
        raise MasukaError(
            f"{folder} cannot be written: {error.strerror}.", "Make room in Drive, or choose another folder."
        ) from error
    say(f"Kept in {folder}")
    return folder


def _secrets(host: Runtime) -> dict[str, str]:
    """Keys from the notebook's own keeper; those of the environment and .env come by themselves."""
    if host.name == "colab":
        found = colab.colab_secrets(SECRET_NAMES)
    elif host.name == "kaggle":
        found = colab.kaggle_secrets(SECRET_NAMES)
    else:
        return {}
    line = f"Keys: {', '.join(found.values) or 'none, and none is needed to begin'}"
    if found.withheld:
        line += f". This notebook may not read {', '.join(found.withheld)}: switch on its access in the key panel"
    if found.silent:
        line += ". The panel of secrets did not answer"
    say(line)
    return found.values


def _environment(host: Runtime, home: Path | None, vault: Path | None) -> dict[str, str]:
    """Where the app finds itself; without any secret."""
    found = {} if home is None else {"MASUKA_PLATFORM": host.name, "MASUKA_HOME": str(home)}
    return found if vault is None else {**found, "MASUKA_VAULT": str(vault)}


def _allowed(way: str, host: Runtime, compute_units: bool) -> str:
    if host.name == "colab":
        say(POLICY)
        if way == APP and not compute_units:
            say(FREE_COLAB)
            return CELLS
    if way == APP and host.name == "kaggle":
        say("Kaggle shows no web pages; the studio opens in this notebook. Go on with the cells below")
        return CELLS
    return way


def _studio(python: str, environment: Mapping[str, str]) -> Any:
    """The studio in this kernel: restored, migrated, with jobs that run when waited for."""
    if Path(python) != Path(sys.executable):
        raise NotFound(
            "MASUKA has a private environment here, which this kernel cannot use.",
            f"Use its command line in a cell: !{python} -m masuka --help. Or choose another runtime version.",
        )
    from masuka.studio import Studio

    say("Opening the studio")
    studio = Studio.open(Settings.from_environment(more=environment))
    try:
        for notice in studio.notices:
            say(f"  {notice}")
        counts = {"character": len(studio.characters.list()), "LoRA": len(studio.models.adapters())}
    except BaseException:
        studio.close()
        raise
    say("The studio is open: " + ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items()))
    return studio


def _app(
    place: Place, python: str, host: Runtime, environment: dict[str, str], vault: Path | None, *, share: bool
) -> Opened:
    before = process.running(place.state)
    port = before.port if before else process.free_port(PORT)
    name = colab.proxy_name(port) if host.name == "colab" else ""
    more = {
        **environment, "MASUKA_PORT": str(port), "MASUKA_SHARE": "auto" if share else "off",
        **({"MASUKA_HOST": process.HOST, "MASUKA_ALLOWED_HOSTS": name} if name else {}),
    }  # fmt: skip
    mark = _mark(place, python, more)
    if before and before.mark == mark and process.healthy(port):
        say("The app runs already")
    else:
        if process.stop(place.state):
            say("The app that ran was saved and closed")
        password = _owner_password(place, python, more) if share and LINK_KEYS & set(more) else ""
        if password:
            say(f"Your password as owner, for a link from outside: {password}  (shown once)")
        say("Opening the app: what was kept is brought back, the database is migrated")
        command = [python, "-m", "masuka", "serve"]
        app = process.start(
            command, folder=place.root, state=place.state, port=port, mark=mark, environment=more
        )
        process.wait_until_healthy(app, place.state, say)
        say("The app answers")
    address = f"https://{name}" if name else host.public_address or f"http://{process.HOST}:{port}"
    link = str(ask_masuka(place, python, more, "link", "--address", address)["link"])
    opened = Opened(APP, address=address, link=link, vault=vault)
    _show(opened, host, port)
    opened.public_url = _public_url(more) if share else ""
    return opened


def _show(opened: Opened, host: Runtime, port: int) -> None:
    """The owner's door: a frame under the cell in Colab, a link elsewhere."""
    if host.name == "colab":
        say("The app is below this cell, for you alone")
        colab.show_page(port, "/?token=" + opened.link.rpartition("token=")[2])
    else:
        say(f"Enter with this link, it works once: {opened.link}")


def _public_url(environment: Mapping[str, str]) -> str:
    """The link for collaborators, once the app has opened and checked it; '' without one."""
    if "MASUKA_HOME" not in environment:
        return ""
    file = Path(environment["MASUKA_HOME"]) / "secrets" / "address.json"
    began_s = time.monotonic()
    said: dict[str, Any] = {"state": "closed"}
    patience_s = {"closed": WISH_PATIENCE_S, "opening": LINK_PATIENCE_S}
    while time.monotonic() - began_s < patience_s.get(str(said["state"]), 0):
        time.sleep(0.3)
        if file.exists():
            said = {"state": "closed", **json.loads(file.read_text(encoding="utf-8"))}
    url, message = str(said.get("public_url") or ""), str(said.get("message") or "")
    if url:
        say(f"For people you invite: {url}")
    elif message:
        say(f"No link for collaborators: {message} {said.get('hint', '')}".rstrip())
    return url


def _base(opened: Opened, place: Place, python: str, environment: Mapping[str, str], base: str) -> str:
    """The base that is to be used; the built-in one where the chosen one cannot be had."""
    if base == BUILT_IN:
        return base
    about = ask_masuka(place, python, environment, "models", "show", base)["base"]
    if about["folder"]:
        say(f"{about['title']} is here")
        return base
    free_gib = shutil.disk_usage(place.root).free / 2**30
    size = f"{about['title']} is {about['size_gib']:.3g} GiB to download; {free_gib:.0f} GiB are free"
    if about["size_gib"] + KEPT_FREE_GIB > free_gib:
        say(f"{size}, which is too little. Choose a runtime with a larger disk; the built-in model is used")
        return BUILT_IN
    if opened.studio is None:
        say(f"{size}. It comes in the background; Settings in the app shows how far it is")
        ask_masuka(place, python, environment, "models", "download", base, "--later")
    else:
        say(f"{size}. If it breaks off, run this cell again and it goes on")
        from masuka.cli import show

        show.run(opened.studio, opened.studio.models.download(base), quiet=False)
    return base


def _owner_password(place: Place, python: str, environment: Mapping[str, str]) -> str:
    """A new password of the owner, for a link needs one; '' where an owner has one."""
    people = ask_masuka(place, python, environment, "user", "list")
    if any(person["role"] == "owner" and person["has_password"] for person in people):
        return ""
    return str(ask_masuka(place, python, environment, "password", "--generate")["password"])


def _mark(place: Place, python: str, environment: Mapping[str, str]) -> str:
    """Changes with the code and with anything that the app was started with."""
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=place.root, capture_output=True, text=True, check=False
    ).stdout
    parts = json.dumps([head, python, sorted(environment.items())])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def _lend_token(file: Path, place: Place) -> None:
    """Lets the app ask Drive what has arrived; it has no kernel of its own to ask with."""
    try:
        fresh = colab.drive_tokens()
        lend_token(file, fresh())
    except AccessDenied as error:
        say(f"{error.message} Saves are shown as written, not confirmed")
        return

    def lend() -> bool:
        lend_token(file, fresh())
        return True

    Turn(place.state / "lending").every(TOKEN_RENEWED_S, "masuka-token", lend)
    say("Drive itself says from now on which saves have arrived")


def _watch(opened: Opened, home: Path, place: Place, minutes: int) -> None:
    def end() -> None:
        say(f"Nothing has moved for {minutes} minutes")
        opened.close()
        stop_masuka(give_back=True)

    IdleWatch(home / "masuka.db", quiet_s=minutes * 60, then=end).start(Turn(place.state / "idle"))
    say(f"The runtime is given back when nothing moves for {minutes} minutes")
