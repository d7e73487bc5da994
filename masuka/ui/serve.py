"""Opens the studio and shows the page: what `app.py` and `masuka serve` both call.

Gradio is imported here and not before the environment is quiet: it reads its switches
when it is imported.
"""

from __future__ import annotations

import contextlib
import gc
import html
import os
import signal
import socket
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka import logs
from masuka.access import wire
from masuka.access.accounts import Accounts
from masuka.access.gate import Door, Gate
from masuka.access.sessions import Sessions
from masuka.config import Settings, apply_quiet_environment
from masuka.errors import Conflict
from masuka.hosting.runtime import detect
from masuka.hosting.space import local_address
from masuka.hosting.tunnels.budget import Budget, Meter
from masuka.requests import Actor

if TYPE_CHECKING:
    from collections.abc import Callable

    import gradio as gr
    from fastapi import FastAPI

    from masuka.hosting.sharing import Sharing
    from masuka.jobs.executors.lent import Lend
    from masuka.studio import Studio

OWNER_ID = 1
TRIES_TO_LISTEN = 3
NOT_KEPT = "Not everything is in the vault yet. Send the rest before this machine goes: masuka vault save"


@dataclass
class Served:
    """A page that answers; `link` lets its owner in once."""

    studio: Studio
    page: gr.Blocks
    app: FastAPI
    door: Door
    address: str
    link: str
    sharing: Sharing

    @property
    def sessions(self) -> Sessions:
        return self.door.sessions

    def close(self) -> bool:
        """Whether everything is in the vault, once nothing is answered any more.

        Running jobs live on and are adopted at the next start.
        """
        self.sharing.stop()
        self.page.close(verbose=False)
        return self.studio.close()


def serve(settings: Settings, *, lend: Lend | None = None) -> Served:
    """The open page, served from threads of this process.

    Raises Conflict when the port is taken. The working directory becomes an empty
    folder, because Gradio serves files of it. `lend` borrows a GPU for single requests,
    where there is no other.
    """
    workspace = settings.workspace.create()
    apply_quiet_environment(workspace)
    logs.configure(settings)
    from masuka.studio import Studio
    from masuka.ui import sharing, uploads
    from masuka.ui.build import build

    studio = Studio.open(settings, workers="processes", lend=lend)
    uploads.sweep(studio)
    os.chdir(workspace.empty)
    try:
        studio.people.take_owner_password(settings.owner_password)
        door = _door(studio, settings)
        page = build(studio)
        budget = sharing.budget_of(studio.store)
        app, address = _launch(page, studio, settings, door, budget)
    except BaseException:
        studio.close()
        raise
    address, host = local_address(address), detect()
    shown = host.public_address or address
    link = one_time_link(door.sessions, shown)
    shared = sharing.start(
        settings, studio.store, host, address=address, budget=budget, door=door
    )
    return Served(studio, page, app, door, shown, link, shared)


def one_time_link(sessions: Sessions, address: str, user_id: int = OWNER_ID) -> str:
    """An address that lets this user in once, within a day."""
    return f"{address.rstrip('/')}/?token={sessions.new_token(user_id)}"


def wait(served: Served) -> None:
    """Returns on Ctrl+C or when the process is asked to end; the page is closed then."""
    # Modules stay as they are: without them a full collection, which a page of a large set
    # may set off, stops the app for a few milliseconds and not for a sixth of a second.
    gc.collect()
    gc.freeze()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with contextlib.suppress(KeyboardInterrupt):
        ended.wait()
    if not served.close():
        print(NOT_KEPT, flush=True)  # noqa: T201 - whoever ends the app must know


def show(served: Served, settings: Settings) -> None:
    """Prints the link, and opens it in a browser where that was asked for."""
    lines = [f"masuka is open at {served.address}", f"Enter with this link, it works once: {served.link}"]
    print("\n".join(lines), flush=True)  # noqa: T201 - the one line that a person needs from the start
    if settings.open_browser:
        webbrowser.open(entrance(settings.workspace.secrets, served.link).as_uri())


def entrance(folder: Path, link: str) -> Path:
    """A file for its owner only that leads a browser to the link.

    A browser's command line can be read by everybody on the machine; the link must not
    stand there.
    """
    file = folder / "open.html"
    file.unlink(missing_ok=True)
    target = html.escape(link, quote=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(
            f'<!doctype html><meta charset="utf-8"><title>masuka</title>'
            f'<meta http-equiv="refresh" content="0; url={target}"><a href="{target}">Open masuka</a>\n'
        )
    return file


def _door(studio: Studio, settings: Settings) -> Door:
    """The door of this studio, under the names that the settings and the host give it."""
    host = detect()
    names = (*settings.allowed_hosts, *host.host_names)
    return Door(
        sessions=Sessions(studio.store, settings.workspace.secrets),
        accounts=Accounts(
            studio.store, per_name=studio.people.password_tries, registration=settings.allow_registration
        ),
        hosts=Door.host_names(settings.host, names),
        proxied=frozenset(name.lower() for name in names),
        proxies=wire.networks(settings.trusted_proxies),
        framed_by=" ".join(host.framed_by),
        starting=True,
    )


def _launch(
    page: gr.Blocks, studio: Studio, settings: Settings, door: Door, budget: Budget
) -> tuple[FastAPI, str]:
    from starlette.middleware import Middleware

    from masuka.ui.build import in_a_loop, launch_settings
    from masuka.ui.routes import routes
    from masuka.ui.smaller import Smaller

    workspace = settings.workspace

    def launch() -> tuple[FastAPI, str, str]:
        launched: tuple[FastAPI, str, str] = page.launch(
            server_name=settings.host,
            server_port=settings.port or _free_port(settings.host),
            prevent_thread_lock=True,
            inbrowser=False,
            auth_dependency=_name_of_request,
            blocked_paths=[str(p) for p in (workspace.database, workspace.secrets, workspace.jobs)],
            app_kwargs={
                "middleware": [
                    Middleware(Meter, budget=budget), Middleware(Gate, door=door), Middleware(Smaller)
                ],
                "routes": routes(studio),
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
            **launch_settings(),
        )
        return launched

    app, address = _listening(lambda: in_a_loop(launch)[:2], settings.port)
    _no_other_site(app)
    door.starting = False
    return app, address


def _listening(launch: Callable[[], tuple[FastAPI, str]], port: int) -> tuple[FastAPI, str]:
    """What was launched. A free port may be gone by then, or Gradio slow to listen: again then.

    Raises Conflict when the given port is taken, and when no free one can be had.
    """
    tries = 1 if port else TRIES_TO_LISTEN
    for _ in range(tries):
        try:
            return launch()
        except OSError as error:
            last = error
    if port:
        told = Conflict(f"Port {port} is taken.", "Choose another one in MASUKA_PORT, or 0 for a free one.")
    else:
        told = Conflict("No port could be listened on.", "Name a free one in MASUKA_PORT.")
    raise told from last


def _no_other_site(app: FastAPI) -> None:
    """Takes out what lets pages of other sites read our answers.

    Gradio (6.31) puts its own CORS layer outside of every middleware that it is given, so
    before the gate; on a public host name that one allows any origin, with cookies.
    """
    from gradio.route_utils import CustomCORSMiddleware

    kept = [layer for layer in app.user_middleware if layer.cls is not CustomCORSMiddleware]
    if len(kept) == len(app.user_middleware):
        raise Conflict("This Gradio is put together in another way.", "Install the one that requirements.txt names.")
    app.user_middleware = kept
    app.middleware_stack = app.build_middleware_stack()


def _free_port(host: str) -> int:
    """A port that nobody listens on now; Gradio itself would try a hundred fixed ones."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])


def _name_of_request(request: Any) -> str | None:
    actor = request.scope.get("actor")
    return actor.name if isinstance(actor, Actor) else None
