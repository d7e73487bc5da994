"""Settings, the part about keys: which are there, a form for a new one, a test of each."""

from __future__ import annotations

from masuka.hosting.keys import SERVICES, can_be_tested
from masuka.studio import Studio
from masuka.studio.preferences import Key
from masuka.ui.kit import Outcome, Payload, Region, values_of
from masuka.ui.markup import attributes, button, card, chip, esc
from masuka.ui.view import View

FORM = "settings-key"
_STATES = {
    "environment": ("from the environment", "good"),
    "stored": ("stored, encrypted", "good"),
    "enter again": ("enter again", "warn"),
    "": ("not set", ""),
}


def draw_keys(studio: Studio, view: View) -> str:
    """Which keys are there; of a key never more than its last four characters."""
    if studio.actor.role != "owner":
        return ""
    known = {key.name: key for key in studio.preferences.list_keys()}
    rows = "".join(_row(known[name]) for name in SERVICES)
    lost = any(known[name].source == "enter again" for name in SERVICES)
    note = (
        '<div class="notice warn"><p>Keys marked “enter again” came from another machine: what unlocks them '
        "stayed there.</p></div>"
    )
    return card(f'{note if lost else ""}<div class="list bare">{rows}</div>', title="Keys for outside services")


def draw_form(studio: Studio, view: View) -> str:
    """Where a key is typed in."""
    if studio.actor.role != "owner":
        return ""
    options = "".join(f'<option value="{name}">{esc(s.title)}</option>' for name, s in SERVICES.items())
    own = studio.preferences.base_url()
    address = {
        "id": f"{FORM}-base_url", "name": "base_url", "type": "url", "value": own, "data-default": own,
        "placeholder": "https://api.openai.com/v1", "spellcheck": "false",
        "aria-describedby": f"{FORM}-base_url-help {FORM}-base_url-error",
    }  # fmt: skip
    body = (
        f'<div class="field wide"><label for="{FORM}-name">Service</label><select id="{FORM}-name" name="name">{options}</select></div>'
        f'<div class="field wide"><label for="{FORM}-value">Key</label>'
        f'<input id="{FORM}-value" name="value" type="password" autocomplete="off" spellcheck="false" data-default="" '
        f'aria-describedby="{FORM}-value-help {FORM}-value-error">'
        f'<p class="help" id="{FORM}-value-help">Kept encrypted on this machine and never shown again. Empty removes it.</p>'
        f'<p class="error" id="{FORM}-value-error" role="alert" hidden></p></div>'
        f'<div class="field wide"><label for="{FORM}-base_url">Address, for OpenAI or alike</label>'
        f"<input{attributes(address)}>"
        f'<p class="help" id="{FORM}-base_url-help">Only for a service of your own that speaks OpenAI’s language.</p>'
        f'<p class="error" id="{FORM}-base_url-error" role="alert" hidden></p></div>'
        + button("Save key", "settings-key", form=FORM, name=f"{FORM}-go")
    )
    form = f'<form id="{FORM}" class="form" data-submit="{FORM}-go" novalidate autocomplete="off">{body}</form>'
    return card(form, title="Enter a key")


def on_key(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The key is kept, or forgotten when it is empty."""
    values = values_of(payload)
    name = str(values.get("name", ""))
    address = str(values.get("base_url", "")) if name == "OPENAI_API_KEY" else None
    studio.preferences.set_key(name, str(values.get("value", "")), base_url=address)
    done = "saved" if values.get("value") else "removed"
    title = SERVICES[name].title if name in SERVICES else name
    return Outcome(f"{title}: key {done}.", clear=FORM)


def on_test(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The service itself says whether it accepts the key."""
    return Outcome(studio.preferences.test_key(str(payload.get("name", ""))))


def _row(key: Key) -> str:
    service = SERVICES[key.name]
    label, mood = _STATES[key.source]
    end = f" <code>…{esc(key.ending)}</code>" if key.ending else ""
    there = key.source in ("environment", "stored")
    test = _test_button(key.name, service.title) if there and can_be_tested(key.name) else ""
    return (
        f"<div><div><h3>{esc(service.title)}</h3><p>{esc(service.about)}{end}</p></div>"
        f'<div class="actions">{chip(label, mood)}{test}</div></div>'
    )


def _test_button(name: str, title: str) -> str:
    given = {
        "type": "button", "class": "button quiet", "data-do": "settings-test-key", "id": f"test-{name.lower()}",
        "data-with": f'{{"name": "{name}"}}', "aria-label": f"Test the key of {title}",
    }  # fmt: skip
    return f"<button{attributes(given)}>Test</button>"


REGIONS = (Region("keys", draw_keys), Region("key-form", draw_form, live=False))
ACTIONS = {"key": on_key, "test-key": on_test}
