"""masuka share …: the running app's link for collaborators."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from masuka.cli.command import Answer, command
from masuka.errors import Conflict, RemoteUnavailable
from masuka.hosting.addresses import Addresses
from masuka.hosting.tunnels import ORDER, TITLES
from masuka.hosting.tunnels.budget import BYTES_A_MONTH, REQUESTS_A_MONTH
from masuka.studio import Studio

group = typer.Typer(help="The running app's link for collaborators.", no_args_is_help=True)


@command(group, "open")
def open_link(
    studio: Studio,
    by: Annotated[str, typer.Option(help=f"One of {', '.join(ORDER)}; otherwise the first that works.")] = "",
) -> Answer:
    """Opens a link, if an owner has a password and strangers are refused."""
    told = studio.links.open(by)
    if told.state != "open":
        raise RemoteUnavailable(told.message or "The link is not open yet.", told.hint or "Look: masuka share status")
    return Answer(_shown(told), f"{told.public_url}\nOpened by {TITLES[told.provider]}.")


@command(group, "status")
def status(studio: Studio) -> Answer:
    """Tells where the running app is reached."""
    told = studio.links.now()
    if not told.address:
        raise Conflict("The app is not running.", "Start it first: masuka serve")
    lines = [f"On this machine: {told.address}", f"Link: {told.public_url or told.state}"]
    if told.message:
        lines.append(f"{told.message} {told.hint}".strip())
    if told.requests:
        lines.append(
            f"ngrok this month: {told.requests:,} of {REQUESTS_A_MONTH:,} requests, "
            f"{told.bytes / 1e6:,.0f} of {BYTES_A_MONTH / 1e6:,.0f} MB"
        )
    return Answer(_shown(told), "\n".join(lines))


@command(group, "stop")
def stop(studio: Studio) -> Answer:
    """Closes the link; the app goes on."""
    told = studio.links.close()
    return Answer(_shown(told), "The link is closed.")


def _shown(told: Addresses) -> dict[str, Any]:
    """What is printed: all but the marks by which the programs know one another."""
    hidden = ("pid", "pid_started", "answered")
    return {name: value for name, value in asdict(told).items() if name not in hidden}
