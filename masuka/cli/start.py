"""masuka demo, serve, link, doctor: to begin with, and when something is wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from masuka.access.links import Links
from masuka.cli import demo as main_job
from masuka.cli.command import Answer, command
from masuka.cli.people import named
from masuka.config import Settings
from masuka.errors import InvalidInput
from masuka.hosting import diagnostics as bundles
from masuka.hosting import doctor as hospital
from masuka.studio import Studio

SIGNS = {"good": "ok", "note": "note", "bad": "BAD"}
OWNER_ID = 1


def add_to(app: typer.Typer) -> None:
    """Adds the commands that belong to no group."""
    command(app, "demo")(demo)
    command(app, "serve")(serve)
    command(app, "link")(link)
    command(app, "doctor")(doctor)
    command(app, "diagnostics")(diagnostics)


def demo(studio: Studio, as_json: bool = False) -> Answer:
    """Makes a data set, trains a LoRA on it and draws with it, on the built-in model."""
    made = main_job.make(studio, quiet=as_json)
    return Answer(made, made.text)


def serve(
    settings: Settings,
    host: Annotated[str, typer.Option(help="Address to listen on; 127.0.0.1 is this machine alone.")] = "",
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one.", min=0, max=65535)] = None,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in a browser.")] = False,
) -> Answer:
    """Migrates the database and opens the app; Ctrl-C closes it."""
    # The page's libraries are loaded for this command alone.
    from masuka.ui import serve as pages

    settings = replace(
        settings,
        host=host or settings.host,
        port=settings.port if port is None else port,
        open_browser=browser or settings.open_browser,
    )
    served = pages.serve(settings)
    for step in served.studio.store.migrations:
        print(f"Database: {step}", file=sys.stderr)
    for notice in served.studio.notices:
        print(notice, file=sys.stderr)
    pages.show(served, settings)
    pages.wait(served)
    return Answer({"address": served.address}, "Closed.")


def link(
    settings: Settings,
    address: Annotated[str, typer.Option(help="Where the app is reached, if not on this machine.")] = "",
    name: Annotated[str, typer.Option(help="Whom it lets in; the owner without it.")] = "",
) -> Answer:
    """Prints a new link into the running app; it works once, within a day."""
    if not address and not settings.port:
        raise InvalidInput(
            "MASUKA_PORT is 0, so the port differs at each start.",
            "Say where the app is: masuka link --address http://127.0.0.1:7860",
            field="address",
        )
    base = address or f"http://{settings.host}:{settings.port}"
    if name:
        with Studio.open(settings) as studio:
            token = studio.people.new_link(named(studio, name).id)
    else:
        token = Links(settings.workspace.create().secrets).new_token(OWNER_ID)
    url = f"{base.rstrip('/')}/?token={token}"
    return Answer({"link": url}, url)


def doctor(settings: Settings) -> Answer:
    """Looks whether this installation is well, with a remedy for what is not."""
    findings = hospital.examine(settings)
    lines = []
    for finding in findings:
        lines.append(f"{SIGNS[finding.state]:5} {finding.name:10} {finding.text}")
        if finding.remedy:
            lines.append(f"{'':16} → {finding.remedy}")
    bad = any(f.state == "bad" for f in findings)
    return Answer({"well": not bad, "findings": findings}, "\n".join(lines), code=1 if bad else 0)


def diagnostics(studio: Studio, to: Path) -> Answer:
    """Writes a zip that says what is wrong here, without keys, pictures or prompts."""
    file = bundles.bundle(studio.settings, to.expanduser().resolve(), jobs=studio.jobs.list(limit=50))
    return Answer({"file": file}, str(file))
