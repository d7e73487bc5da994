"""Models, the part about what is elsewhere: search, a look at a repository, taking in."""

from __future__ import annotations

from masuka.errors import InvalidInput
from masuka.models import licences
from masuka.models.search import Offer
from masuka.studio import Studio
from masuka.ui.forms import form
from masuka.ui.kit import Outcome, Payload, Region, values_of
from masuka.ui.markup import attributes, button, card, chip, empty, esc, facts
from masuka.ui.uploads import batch_folder
from masuka.ui.view import View
from masuka.ui.words import gib, number

SEARCH, REPO, PATH, CIVITAI = "models-search", "models-repo", "models-path", "models-civitai"
WHERE = (("hub", "Hugging Face"), ("civitai", "CivitAI"))
KINDS = (("base", "Base models"), ("lora", "LoRAs"))
GIB = 2**30


def section_of(view: View) -> str:
    """The section that is shown; another tab's is none of this one."""
    return view.section if view.section in ("find", "own") else ""


def draw_search(studio: Studio, view: View) -> str:
    """What to look for, and where."""
    if section_of(view) != "find":
        return ""
    last = studio.sources.last_search()
    nsfw = {"type": "checkbox", "role": "switch", "name": "nsfw", "id": f"{SEARCH}-nsfw", "checked": bool(last and last.nsfw)}
    body = (
        _text(SEARCH, "query", "What to look for", "anime, photo, a name", value=last.query if last else "")
        + _select("where", "Where", WHERE, last.where if last else "hub")
        + _select("kind", "What", KINDS, last.kind if last else "base")
        + f'<label class="switch"><input{attributes(nsfw)}><span>Adult content too</span></label>'
        + button("Search", "models-search", look="primary", form=SEARCH, name=f"{SEARCH}-go")
    )
    return card(form(SEARCH, body, submit=f"{SEARCH}-go"))


def draw_found(studio: Studio, view: View) -> str:
    """What the last search found."""
    if section_of(view) != "find":
        return ""
    last = studio.sources.last_search()
    if last is None:
        return card(empty("library", "Bases and LoRAs that others made. What you take is checked first."))
    if not last.offers:
        return card(f"<p>Nothing found for “{esc(last.query)}”.</p>")
    rows = "".join(_offer(studio, offer) for offer in last.offers)
    place = dict(WHERE)[last.where]
    return card(f'<div class="list bare bases">{rows}</div>', title=f"“{last.query}” at {place}")


def draw_own(studio: Studio, view: View) -> str:
    """Three ways in: a repository, what lies on this machine, a version of CivitAI."""
    if section_of(view) != "own":
        return ""
    seen = studio.sources.last_check() is not None
    repo = (
        _text(REPO, "repo", "Model on Hugging Face", "somebody/model", value=view.query)
        + _text(REPO, "revision", "Version", "the newest")
        + _about("Checked before anything is fetched: whether it is there, needs a licence click, and is of a kind known here. "
                 "Only safetensors are taken, and no code.")
        + button("Look at it", "models-check", look="plain" if seen else "primary", form=REPO, name=f"{REPO}-go")
    )  # fmt: skip
    link = {"type": "checkbox", "role": "switch", "name": "link", "id": f"{PATH}-link"}
    takes = "A base as a single safetensors file, as other tools keep it."
    choose = {"type": "file", "accept": ".safetensors", "aria-label": "A base to add"}
    drop = (
        '<div class="drop" data-upload="-1" data-upload-do="models-sent"><h3>Drop a safetensors file here, or choose it</h3>'
        f'<p class="hint" data-upload-state data-idle="{takes}" aria-live="polite">{takes}</p><input{attributes(choose)}></div>'
    )
    path = (
        _text(PATH, "path", "Folder or file on this machine", "models/my-film-look.safetensors")
        + _text(PATH, "name", "Name", "as the file is called")
        + _about("A folder in diffusers' layout, or a single safetensors file as other tools keep it.")
        + f'<label class="switch full"><input{attributes(link)}><span>Leave a folder where it is</span></label>'
        + button("Take it in", "models-add-path", form=PATH, name=f"{PATH}-go")
    )
    civitai = (
        _text(CIVITAI, "version", "Version on CivitAI", "https://civitai.com/models/…?modelVersionId=…")
        + _text(CIVITAI, "name", "Name", "as it is called there")
        + _about("Many files there ask for a key, which is entered in Settings.")
        + button("Fetch it", "models-add-civitai", form=CIVITAI, name=f"{CIVITAI}-go")
    )
    return (
        card(form(REPO, repo, submit=f"{REPO}-go"), title="From Hugging Face")
        + card(drop, title="From your own machine")
        + card(form(PATH, path, submit=f"{PATH}-go"), title="From the machine that masuka runs on")
        + card(form(CIVITAI, civitai, submit=f"{CIVITAI}-go"), title="From CivitAI")
    )


def draw_checked(studio: Studio, view: View) -> str:
    """The repository that was looked at last, and the button that takes it."""
    checked = studio.sources.last_check() if section_of(view) == "own" else None
    if checked is None:
        return ""
    machine = studio.advice.machine()
    fits = " ".join(studio.advice.fit(checked.entry.id, task, machine).sentence for task in ("draw", "train"))
    rows = [
        ("Kind", esc(f"{checked.found.family.title}, as {checked.entry.title}")),
        ("Licence", esc(licences.sentence(checked.licence, checked.commercial))),
        ("Access", "asks for an account and a click on its licence at its page" if checked.gated else ""),
        ("Version", f"<code>{esc(checked.commit[:12])}</code>"),
        ("Here", esc(fits)),
        ("Left out", esc(" ".join(checked.notes))),
    ]
    take = button(
        f"Download {gib(checked.size_bytes / GIB)}", "models-add-repo", look="primary", repo=checked.repo,
        revision=checked.commit,
    )  # fmt: skip
    return card(f'{facts(rows)}<div class="actions">{take}</div>', title=checked.repo, classes="checked")


def on_search(studio: Studio, payload: Payload, view: View) -> Outcome:
    """What was found, kept for this person until the next search."""
    values = values_of(payload)
    found = studio.sources.search(
        str(values.get("query", "")), where="civitai" if values.get("where") == "civitai" else "hub",
        kind="lora" if values.get("kind") == "lora" else "base", nsfw=values.get("nsfw") is True,
    )  # fmt: skip
    return Outcome("" if found else "Nothing was found.")


def on_check(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The repository, looked at; the page shows what it is."""
    values = payload if "repo" in payload else values_of(payload)
    checked = studio.sources.check(str(values.get("repo", "")), str(values.get("revision") or "") or None)
    return Outcome(go={"section": "own", "q": checked.repo})


def on_add_repo(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that downloads what was looked at."""
    studio.sources.add_repo(str(payload.get("repo", "")), str(payload.get("revision") or "") or None)
    return Outcome("The download is on its way. You can close this page; it goes on.", go={"section": None, "q": None})


def on_add_path(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that takes in a folder or a file of this machine."""
    values = values_of(payload)
    studio.sources.add_path(
        str(values.get("path", "")), name=str(values.get("name", "")), link=values.get("link") is True
    )
    return Outcome("It is being taken in.", clear=PATH, go={"section": None})


def on_sent(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The jobs that take in what was uploaded."""
    files = sorted(f for f in batch_folder(studio, str(payload.get("batch", ""))).rglob("*") if f.is_file())
    if not files:
        raise InvalidInput("Nothing arrived.", "Choose the file again.")
    for file in files:
        studio.sources.add_path(file)
    return Outcome("It is being taken in.", go={"section": None})


def on_add_civitai(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that fetches a version of CivitAI."""
    values = payload if "version" in payload else values_of(payload)
    studio.sources.add_civitai(str(values.get("version", "")), name=str(values.get("name", "")))
    return Outcome("The download is on its way. You can close this page; it goes on.", clear=CIVITAI, go={"section": None})


def on_add_lora(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that fetches a LoRA; it is among the others when it has ended."""
    if "repo" in payload:
        studio.sources.add_repo_lora(str(payload["repo"]))
    else:
        studio.sources.add_civitai_lora(str(payload.get("version", "")))
    return Outcome("The download is on its way. The LoRA will be in the library.")


def _offer(studio: Studio, offer: Offer) -> str:
    fits = f"For {offer.fits}" if offer.fits else f"Made for {offer.made_for or 'something that is not said'}: not known here"
    notes = [f"by {offer.author}" if offer.author else "", f"{number(offer.downloads)} downloads"]
    notes += [gib(offer.size_bytes / GIB)] if offer.size_bytes else []
    licence = licences.sentence(offer.licence, offer.commercial)
    gated = chip("asks for an account") if offer.gated else ""
    page = f'<a href="{esc(offer.page)}" target="_blank" rel="noopener noreferrer">Its page</a>'
    return (
        f'<div><div class="stack tight"><div class="row"><h3>{esc(offer.title)}</h3>{gated}</div>'
        f"<p>{esc(fits)} · {esc(' · '.join(filter(None, notes)))} · {page}</p><p>{esc(licence)}</p></div>"
        f'<div class="actions">{_take(studio, offer)}</div></div>'
    )


def _take(studio: Studio, offer: Offer) -> str:
    """How this one gets here; '' where nothing here can use it."""
    if not offer.fits:
        return ""
    if offer.kind == "lora" and offer.source == "hub":
        return button("Fetch it", "models-add-lora", repo=offer.id)
    if offer.kind == "lora":
        return button(f"Fetch {gib(offer.size_bytes / GIB)}", "models-add-lora", version=offer.id)
    if offer.source == "hub":
        return button("Look at it", "models-check", repo=offer.id)
    return button(f"Fetch {gib(offer.size_bytes / GIB)}", "models-add-civitai", version=offer.id)


def _text(form_name: str, name: str, label: str, placeholder: str, *, value: str = "") -> str:
    element = f"{form_name}-{name}"
    given = {
        "id": element, "name": name, "type": "text", "placeholder": placeholder, "value": value, "data-default": value,
        "aria-describedby": f"{element}-error", "data-label": label,
    }  # fmt: skip
    return (
        f'<div class="field wide"><label for="{element}">{esc(label)}</label><input{attributes(given)}>'
        f'<p class="error" id="{element}-error" role="alert" hidden></p></div>'
    )


def _select(name: str, label: str, choices: tuple[tuple[str, str], ...], chosen: str) -> str:
    element = f"{SEARCH}-{name}"
    options = "".join(
        f"<option{attributes({'value': value, 'selected': value == chosen})}>{esc(text)}</option>" for value, text in choices
    )
    return (
        f'<div class="field"><label for="{element}">{label}</label>'
        f'<select id="{element}" name="{name}" data-default="{esc(chosen)}">{options}</select></div>'
    )


def _about(text: str) -> str:
    return f'<p class="help full">{esc(text)}</p>'


REGIONS = (
    Region("search", draw_search, live=False),
    Region("found", draw_found, live=False),
    Region("checked", draw_checked, live=False),
    Region("own", draw_own, live=False),
)
ACTIONS = {
    "search": on_search,
    "check": on_check,
    "add-repo": on_add_repo,
    "add-path": on_add_path,
    "sent": on_sent,
    "add-civitai": on_add_civitai,
    "add-lora": on_add_lora,
}
