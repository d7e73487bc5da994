"""Settings, the part about links: where the app is reached, and the link for collaborators."""

from __future__ import annotations

from masuka.errors import MasukaError
from masuka.hosting.addresses import Addresses
from masuka.hosting.runtime import detect
from masuka.hosting.tunnels import TITLES
from masuka.hosting.tunnels.budget import BYTES_A_MONTH, REQUESTS_A_MONTH, WARN_SHARE, Usage
from masuka.studio import Studio
from masuka.ui.kit import Outcome, Payload, Region
from masuka.ui.markup import button, card, chip, esc, facts
from masuka.ui.view import View

WAIT_S = 25.0
"""An action waits so long for the link; it goes on without it."""
_WORDS = {"closed": ("closed", ""), "opening": ("opening", "busy"), "open": ("open", "good"), "failed": ("not open", "bad")}


def draw_link(studio: Studio, view: View) -> str:
    """The link, why there is none, and what it has used of this month."""
    if studio.actor.role != "owner":
        return ""
    told = studio.links.now()
    host = detect()
    if host.public_address:
        text = f"<p>This app has a public address on {esc(host.title)}. Send it to the people you invite.</p>"
        return card(text + _address(host.public_address), title="Link for collaborators")
    body = _state(told)
    if told.state == "open":
        close = button(
            "Close the link", "settings-close-link", confirm="Close the link?", look="plain",
            detail="Whoever is working through it loses the page until a link is open again.", yes="Close it",
        )  # fmt: skip
        return card(f'{body}<div class="actions">{close}</div>', title="Link for collaborators")
    hint = (
        '<p class="hint">Opened with your ngrok token, else by gradio.live. It needs an owner’s password, and it leads '
        "to the sign-in page; only people with an invitation get further.</p>"
    )
    go = button("Open a link", "settings-open-link", name="settings-open-link", disabled=told.state == "opening")
    return card(f'{body}{hint}<div class="actions">{go}</div>', title="Link for collaborators")


def warning_of(studio: Studio) -> str:
    """A short warning for the header once a metered link is nearly used up; '' before."""
    if studio.actor.role != "owner":
        return ""
    told = studio.links.now()
    share = _usage(told).share
    return f"Link: {share:.0%} of the month" if told.state == "open" and share >= WARN_SHARE else ""


def on_open(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A link is being opened; it is there after some seconds."""
    return _outcome(studio.links.open(wait_s=WAIT_S))


def on_close(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The link is closed."""
    studio.links.close(wait_s=WAIT_S)
    return Outcome("The link is closed.")


def _outcome(told: Addresses) -> Outcome:
    if told.state == "open":
        return Outcome("The link is open.")
    if told.state == "failed":
        raise MasukaError(told.message, told.hint)
    return Outcome("The link is being opened. It appears here when it is there.")


def _state(told: Addresses) -> str:
    label, mood = _WORDS[told.state]
    by = f" by {esc(TITLES[told.provider])}" if told.provider and told.state in ("open", "opening") else ""
    parts = [f'<p>{chip(label, mood)}<span class="hint">{by}</span></p>']
    if told.public_url:
        parts.append(_address(told.public_url))
    if told.message:
        kind = "bad" if told.state == "failed" else "warn"
        parts.append(f'<div class="notice {kind}"><p><strong>{esc(told.message)}</strong> {esc(told.hint)}</p></div>')
    usage = _usage(told)
    if usage.requests:
        rows = [
            ("Requests this month", f"{usage.requests:,} of {REQUESTS_A_MONTH:,}"),
            ("Sent this month", f"{usage.bytes / 1e6:,.0f} of {BYTES_A_MONTH / 1e6:,.0f} MB"),
        ]
        parts.append(facts(rows))
    if usage.share >= WARN_SHARE:
        used = "is used up" if usage.share >= 1 else f"is {usage.share:.0%} used"
        parts.append(
            f'<div class="notice warn"><p>The free allowance of ngrok {used} for this month. '
            "Close pages that nobody looks at, and send big files another way.</p></div>"
        )
    return "".join(parts)


def _address(url: str) -> str:
    return f'<p><a href="{esc(url)}" target="_blank" rel="noreferrer">{esc(url)}</a></p>'


def _usage(told: Addresses) -> Usage:
    return Usage(told.month, told.requests, told.bytes)


REGIONS = (Region("link", draw_link, always=True),)
ACTIONS = {"open-link": on_open, "close-link": on_close}
