"""LoRAs in the library: their versions, and one of them with what can be made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from masuka.errors import InvalidInput, MasukaError
from masuka.models.adapter_files import Found
from masuka.store.jobs import Job
from masuka.store.models import Model
from masuka.studio import Studio
from masuka.studio.adapters import Version
from masuka.ui import adapter_forms
from masuka.ui.cards import UNFINISHED, job_card
from masuka.ui.kit import Outcome, Payload, Region, id_of, values_of
from masuka.ui.markup import bar, button, card, chip, disclosure, download, empty, esc, facts, go
from masuka.ui.uploads import batch_folder
from masuka.ui.view import View
from masuka.ui.words import moment, number, plural

KINDS = ("edit_adapter", "bake_adapter", "push_adapter")
FORMS = {"own": "Download", "lokr": "The LoKr itself"}
BLOCKS_SHOWN = 12
JOBS_SHOWN = 5
_MIB = 2**20


def draw_list(studio: Studio, view: View) -> str:
    """Every LoRA of the character, hidden ones behind one click."""
    versions = studio.adapters.versions(character_id=view.character)
    shown = "".join(_row(studio, v) for v in versions if not v.hidden)
    hidden = [v for v in versions if v.hidden]
    none = empty("library", "No LoRA yet. A training makes one.", go("Train one", look="primary", tab="training"))
    body = f'<div class="list bare">{shown}</div>' if shown else none
    if hidden:
        rows = "".join(_hidden_row(studio, v) for v in hidden)
        body += disclosure(f"{plural(len(hidden), 'hidden LoRA')}", f'<div class="list bare">{rows}</div>', name="adapters-hidden")
    bases = f'<p class="hint">What they are trained on and drawn with is under {go("Models", tab="models", section=None)}.</p>'
    return card(f"{body}{bases}", title="LoRAs")


def draw_one(studio: Studio, view: View) -> str:
    """The chosen LoRA: what it is and what can be made of it."""
    if view.section != "models" or not view.adapter:
        return ""
    adapter = studio.models.adapter(view.adapter)
    try:
        found = studio.adapters.inspect(adapter.id, measure=True)
    except MasukaError as error:
        return card(f"<p>{esc(error.message)} {esc(error.hint)}</p>", title=adapter.name)
    tools = adapter_forms.tools(studio, adapter, found) if studio.actor.role != "viewer" else ""
    close = go("Close", look="quiet", adapter=None)
    return card(_about(studio, adapter, found), title=adapter.name, aside=close) + tools


def draw_bring(studio: Studio, view: View) -> str:
    """A place for a LoRA from elsewhere."""
    return adapter_forms.bring(studio) if view.section == "models" and studio.actor.role != "viewer" else ""


def draw_work(studio: Studio, view: View) -> str:
    """What is being made, what went wrong last, and the files that are there."""
    if view.section != "models":
        return ""
    jobs = [job for kind in KINDS for job in studio.jobs.list(kind=kind, limit=JOBS_SHOWN)]
    running = [job_card(studio, job) for job in jobs if job.state in UNFINISHED]
    last = max(jobs, key=lambda job: job.id, default=None)
    if last is not None and last.state == "failed":
        running.append(job_card(studio, last))
    if last is not None and last.state == "done":
        running.append(_ended(last))
    body = "".join(running) + _files(studio, view)
    return f'<div class="stack" aria-live="polite">{body}</div>' if body else ""


def on_convert(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that writes the LoRA under other names."""
    studio.adapters.convert({**values_of(payload), "adapter_id": id_of(payload)})
    return Outcome("It is being written. The download shows here.")


def on_resize(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that makes a LoRA of another rank."""
    studio.adapters.resize({**_given(payload), "adapter_id": id_of(payload)})
    return Outcome("A smaller one is being made. It joins the list.")


def on_merge(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that makes one of two."""
    values = _given(payload)
    other = str(values.pop("other", ""))
    if not other.isdigit():
        raise InvalidInput("There is nothing to merge it with.", "Choose another LoRA.", field="other")
    weights = [_weight(values.pop(name, ""), name) for name in ("weight", "other_weight")]
    studio.adapters.merge({**values, "adapter_ids": [id_of(payload), int(other)], "weights": weights})
    return Outcome("They are being merged. The result joins the list.")


def on_bake(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that makes a base of one's own."""
    studio.adapters.bake({**_given(payload), "adapter_id": id_of(payload)})
    return Outcome("A base is being made. It joins those on the Models page.")


def on_push(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that sends the LoRA to Hugging Face."""
    studio.adapters.push({**_given(payload), "adapter_id": id_of(payload)})
    return Outcome("It is on its way. You can close this page; it goes on.")


def on_bring(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that takes in a file of this machine."""
    studio.actor.must_own()  # it reads any path this process may read
    studio.adapters.bring(_given(payload))
    return Outcome("It is being taken in.", clear=adapter_forms.BRING)


def on_extract(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that makes a LoRA of what one base knows beyond another."""
    studio.adapters.extract(_given(payload))
    return Outcome("It is being extracted. It joins the list.")


def on_sent(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The jobs that take in what was uploaded."""
    files = sorted(f for f in batch_folder(studio, str(payload.get("batch", ""))).rglob("*") if f.is_file())
    if not files:
        raise InvalidInput("Nothing arrived.", "Choose the file again.")
    for file in files:
        studio.adapters.bring(path=str(file), character_id=view.character)
    return Outcome(f"{plural(len(files), 'LoRA')} being taken in.")


def on_use(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The version that is used from now on."""
    return Outcome(f"{studio.adapters.use(id_of(payload)).name} is the one that is used.")


def on_hide(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The LoRA is out of the lists; one click brings it back."""
    adapter = studio.adapters.hide(id_of(payload))
    return Outcome(f"{adapter.name} is hidden.", go={"adapter": None}, undo=("library-adapter-show", {"id": adapter.id}))


def on_show(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A hidden LoRA is in the lists again."""
    return Outcome(f"{studio.adapters.show(id_of(payload)).name} is back.")


def on_rename(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The LoRA's new name."""
    studio.models.rename(id_of(payload), str(values_of(payload).get("name", "")))
    return Outcome("Renamed.")


def on_delete(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The LoRA is gone, with its files."""
    studio.adapters.delete(id_of(payload))
    return Outcome("The LoRA is deleted.", go={"adapter": None})


def _row(studio: Studio, version: Version) -> str:
    adapter = version.adapter
    said = [
        esc(_base(studio, adapter)),
        f"called by {esc(adapter.trigger_word)}" if adapter.trigger_word else "",
        esc(version.run_name) if version.run_name and version.run_name != adapter.name else "",
        f"step {number(version.step)}" if version.step else "",
        f"likeness {version.likeness:.2f}" if version.likeness is not None else "",
        moment(adapter.created_at),
    ]
    mark = chip("used", "good") if version.used else ""
    use = "" if version.used else button("Use this one", "library-adapter-use", look="quiet", id=adapter.id)
    hide = button("Hide", "library-adapter-hide", look="quiet", id=adapter.id)
    actions = (
        go("Draw with it", look="plain", tab="images", adapter=adapter.id)
        + download("Download", f"download/adapter/{adapter.id}")
        + go("More", look="quiet", tab="library", section="models", adapter=adapter.id)
    )
    return (
        f'<div><div><div class="row"><h3>{esc(adapter.name)}</h3>{mark}</div><p>{" · ".join(filter(None, said))}</p></div>'
        f'<div class="actions">{actions}{use}{hide}</div></div>'
    )


def _hidden_row(studio: Studio, version: Version) -> str:
    adapter = version.adapter
    actions = button("Bring back", "library-adapter-show", look="quiet", id=adapter.id) + _delete(adapter)
    return (
        f"<div><div><h3>{esc(adapter.name)}</h3><p>{esc(_base(studio, adapter))} · {moment(adapter.created_at)}</p></div>"
        f'<div class="actions">{actions}</div></div>'
    )


def _base(studio: Studio, adapter: Model) -> str:
    """The base's title, or its id where it is gone."""
    return next((base.title for base in studio.models.bases() if base.id == adapter.base), str(adapter.base or ""))


def _delete(adapter: Model) -> str:
    return button(
        "Delete", "library-adapter-delete", look="danger", id=adapter.id, confirm=f"Delete {adapter.name}?",
        detail="Its files go too. Pictures drawn with it stay.", yes="Delete",
    )  # fmt: skip


def _about(studio: Studio, adapter: Model, found: Found) -> str:
    kind = {"lora": "LoRA", "dora": "DoRA", "lokr": "LoKr"}[found.kind]
    ranks = ", ".join(map(str, found.ranks))
    readers = "<br>".join(esc(reading.sentence) for reading in found.readers)
    rows = facts(
        [
            ("Kind", f"{kind}{f' of rank {ranks}' if ranks else ''}, {plural(found.layers, 'layer')}"),
            ("For", esc(_base(studio, adapter))),
            ("Called by", esc(found.trigger or adapter.trigger_word)),
            ("Best weight", f"{adapter.best_weight:g}" if adapter.best_weight else ""),
            ("File", f"{_size(found.bytes)}, {', '.join(found.dtypes)}"),
            ("Read by", readers),
        ]
    )
    name = f"rename-{adapter.id}"
    rename = (
        f'<form id="{name}" class="form" data-submit="{name}-go"><div class="field wide">'
        f'<label for="{name}-name">Name</label><input id="{name}-name" name="name" type="text" value="{esc(adapter.name)}">'
        f'<p class="error" id="{name}-name-error" role="alert" hidden></p></div>'
        f"{button('Save', 'library-adapter-rename', form=name, id=adapter.id, name=f'{name}-go')}</form>"
    )
    ends = f'<div class="actions">{_delete(adapter)}</div>'
    return rows + _blocks(found) + disclosure("Rename", rename, name=f"{name}-box") + ends


def _blocks(found: Found) -> str:
    """Where it changes most, the strongest first."""
    strongest = sorted(found.norms.items(), key=lambda pair: -pair[1])[:BLOCKS_SHOWN]
    if not strongest:
        return ""
    most = strongest[0][1] or 1.0
    rows = "".join(
        f"<div><dt>{esc(block)}</dt><dd>{bar(max(1, round(100 * value / most)), 100, f'{block}: {value:.3g}')}</dd></div>"
        for block, value in strongest
    )
    return disclosure("Where it changes most", f'<dl class="facts wide">{rows}</dl>', name="adapter-blocks")


def _files(studio: Studio, view: View) -> str:
    """The chosen LoRA's other forms, to fetch."""
    if not view.adapter:
        return ""
    try:
        files = studio.adapters.files(view.adapter)
    except MasukaError:  # the card above says that its file is gone
        return ""
    rows = "".join(_file_row(view.adapter, form, file) for form, file in files.items() if form != "own")
    return card(f'<div class="list bare">{rows}</div>', title="Its other files") if rows else ""


def _file_row(adapter_id: int, form: str, file: Path) -> str:
    label = FORMS.get(form) or f"For {adapter_forms.READ_BY[form.removesuffix(' plain')]}"
    link = download("Download", f"download/adapter/{adapter_id}?as={form.replace(' ', '+')}")
    return f"<div><div><h3>{esc(label)}</h3><p>{esc(file.name)} · {_size(file.stat().st_size)}</p></div>{link}</div>"


def _ended(job: Job) -> str:
    """What the last one came to, where that is not in the list."""
    result = job.result or {}
    kept = result.get("kept")
    said = [f"It keeps {100 * kept:.1f} % of the change."] if isinstance(kept, float) and kept < 0.9995 else []
    url = str(result.get("url", ""))
    if url.startswith(("https://", "http://")):
        said.append(f'It is at <a href="{esc(url)}" target="_blank" rel="noopener noreferrer">{esc(result.get("repo", url))}</a>.')
    if job.kind == "bake_adapter":
        said.append(go("Look at the base", tab="models", section=None))
    if not said:
        return ""
    text = " ".join(said)
    return f'<article class="card"><h3>{esc(job.title)}</h3><p class="hint">{text} {moment(job.finished_at)}</p></article>'


def _size(bytes: int) -> str:
    return f"{bytes / _MIB:,.1f} MiB" if bytes >= _MIB / 10 else f"{max(1, round(bytes / 1024))} KiB"


def _given(payload: Payload) -> dict[str, object]:
    """The form's values without those that were left empty."""
    return {name: value for name, value in values_of(payload).items() if value not in ("", None)}


def _weight(value: object, field: str) -> float:
    try:
        return float(str(value or 1))
    except ValueError:
        raise InvalidInput("A weight is no number.", "Write one like 0.8.", field=field) from None


ABOVE: Sequence[Region] = (Region("adapter", draw_one, live=False), Region("adapter-work", draw_work))
BELOW: Sequence[Region] = (Region("adapter-bring", draw_bring, live=False),)
"""Around the list of LoRAs."""
ACTIONS = {
    "adapter-convert": on_convert, "adapter-resize": on_resize, "adapter-merge": on_merge, "adapter-bake": on_bake,
    "adapter-push": on_push, "adapter-extract": on_extract, "adapter-bring": on_bring, "adapter-sent": on_sent, "adapter-use": on_use,
    "adapter-hide": on_hide, "adapter-show": on_show, "adapter-rename": on_rename, "adapter-delete": on_delete,
}  # fmt: skip
