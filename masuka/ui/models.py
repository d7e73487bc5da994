"""Models: what suits this machine, every base, and how more of them get here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from masuka.errors import InvalidInput
from masuka.models import licences
from masuka.models.memory import Machine
from masuka.models.tiers import TASKS, Advice
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.studio.models import BRINGING, Base, Use
from masuka.ui import finding
from masuka.ui.cards import UNFINISHED, job_actions, state_chip, state_sentence
from masuka.ui.kit import Outcome, Payload, Region, Tab, values_of
from masuka.ui.markup import address, attributes, bar, button, card, chip, disclosure, esc, go
from masuka.ui.view import View
from masuka.ui.words import gib, plural

SECTIONS = (("", "Catalogue"), ("find", "Search"), ("own", "Add your own"))
TABLE = "models-table"
NAMES_SHOWN = 3
ADVISED = 3
"""Bases named for each task."""
GIB = 2**30


def draw_head(studio: Studio, view: View) -> str:
    """Title and sections."""
    section, role = finding.section_of(view), studio.actor.role
    needed = {"": "viewer editor owner", "find": "editor owner", "own": "owner"}
    shown = [pair for pair in SECTIONS if role in needed[pair[0]]]
    links = "".join(
        f'<a href="{address(section=name)}" data-go{attributes({"aria-current": "page" if name == section else None})}>{title}</a>'
        for name, title in shown
    )
    return (
        '<div class="title"><div><h1>Models</h1></div></div>'
        f'<nav class="sections" aria-label="Sections">{links}</nav>'
    )


def draw_machine(studio: Studio, view: View) -> str:
    """The GPU's memory now, and a way to have it back."""
    if finding.section_of(view):
        return ""
    cards = studio.advice.gpus()
    if not cards:
        machine = studio.machine()
        text = (
            f"<p>No NVIDIA GPU here. {gib(machine.ram_free_gib)} of {gib(machine.ram_total_gib)} memory and "
            f"{gib(machine.disk_free_gib)} of disk are free.</p>"
        )
        return card(f'{text}<div class="actions">{_detect()}</div>', title="This machine")
    rows = ""
    for gpu in cards:
        used = max(0.0, gpu.vram_total_gib - gpu.vram_free_gib)
        label = f"{gib(used)} of {gib(gpu.vram_total_gib)} GPU memory in use"
        rows += (
            f"<div class='stack tight'><h3>{esc(gpu.name)}</h3>"
            f"{bar(round(used * 100), max(1, round(gpu.vram_total_gib * 100)), label)}<p class='hint'>{label}</p></div>"
        )
    free = button("Free GPU memory", "models-free", name="models-free")
    note = '<p class="hint">Models stay loaded after a drawing, so that the next begins at once. A job that runs is left alone.</p>'
    return card(f'{rows}{note}<div class="actions">{free}{_detect()}</div>', title="This machine")


def draw_advice(studio: Studio, view: View) -> str:
    """What suits this machine, each proposal with its proof."""
    if finding.section_of(view):
        return ""
    machine = studio.advice.machine()
    found = studio.advice.recommended(machine)
    known = {base.id: base for base in studio.models.bases()}
    groups = ""
    for task, title in TASKS.items():
        mine = [advice for advice in found if advice.task == task and advice.entry.id in known][:ADVISED]
        rows = "".join(_advised(advice, known[advice.entry.id], first=n == 0) for n, advice in enumerate(mine))
        groups += f'<div><h3>{title}</h3><div class="list bare">{rows}</div></div>'
    aside = chip(studio.advice.tier(machine))
    return card(f'<div class="advice">{groups}</div>', title="Good on this machine", aside=aside)


def draw_table(studio: Studio, view: View) -> str:
    """The table behind the recommendations, to be edited."""
    if finding.section_of(view):
        return ""
    field = (
        f'<div class="field wide full"><label for="{TABLE}-table">Recommendations, as JSON</label>'
        f'<textarea id="{TABLE}-table" name="table" rows="14" spellcheck="false" class="code" '
        f'aria-describedby="{TABLE}-help {TABLE}-table-error">{esc(studio.advice.table_text())}</textarea>'
        f'<p class="help" id="{TABLE}-help">A tier holds from so much GPU memory and main memory on. Of the bases that it '
        "names, only those are shown that fit here.</p>"
        f'<p class="error" id="{TABLE}-table-error" role="alert" hidden></p></div>'
    )
    keep = button("Save the table", "models-table", form=TABLE, name=f"{TABLE}-go")
    reset = button(
        "Reset the table", "models-reset-table", look="quiet", confirm="Reset the table?",
        detail="What you wrote into it goes; masuka's own recommendations come back.", yes="Reset it",
    )  # fmt: skip
    body = f'<form id="{TABLE}" class="form" novalidate autocomplete="off">{field}<div class="actions full">{keep}{reset if studio.advice.is_edited else ""}</div></form>'
    return f'<details id="models-edit-table"><summary>Edit the recommendations</summary>{card(body)}</details>'


def draw_catalogue(studio: Studio, view: View) -> str:
    """Every base by family: what it is, what it may be used for, whether it is here."""
    if finding.section_of(view):
        return ""
    bases, uses, machine = studio.models.bases(), studio.models.uses(), studio.advice.machine()
    jobs = _bringing(studio)
    here = [base for base in bases if base.folder is not None]
    rest = sorted((base for base in bases if base.folder is None), key=lambda b: (b.family_title, b.own))
    large = [base for base in rest if base.id not in jobs and not base.own and not _usable(studio, base, machine)]

    def families(some: Sequence[Base]) -> str:
        groups = groupby(some, key=lambda b: b.family_title)
        return "".join(_group(studio, title, list(members), jobs, uses, machine) for title, members in groups)

    body = _group(studio, "On this machine", here, jobs, uses, machine)
    body += families([base for base in rest if base not in large])
    if large:
        title = f"{plural(len(large), 'more base')}, too large for this machine"
        body += disclosure(title, families(large), name="models-large")
    return body


def on_download(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that fetches a base model."""
    studio.models.download(_base_id(payload))
    return Outcome("The download is on its way. You can close this page; it goes on.")


def on_delete(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The base is gone, with what that freed."""
    freed = studio.models.delete_base(_base_id(payload))
    return Outcome(f"Deleted. {gib(freed / GIB)} are free again." if freed else "It is off the list.")


def on_free(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The worker that kept models loaded leaves."""
    if studio.advice.free_gpu():
        return Outcome("The loaded models leave the GPU.")
    return Outcome("Nothing was kept loaded. A job that runs keeps its memory until it ends.")


def on_detect(studio: Studio, payload: Payload, view: View) -> Outcome:
    """What was found; the page is drawn anew with it."""
    machine = studio.advice.machine()
    name = f"{machine.name} with {gib((machine.vram_bytes or 0) / GIB)}" if machine.vram_bytes else "no NVIDIA GPU"
    return Outcome(f"Found {name}, and {gib(machine.ram_bytes / GIB)} of main memory.")


def on_table(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The table as it was typed, once it is right."""
    studio.advice.set_table(str(values_of(payload).get("table", "")))
    return Outcome("The table is saved.")


def on_reset_table(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The table is MASUKA's own again."""
    studio.advice.reset_table()
    return Outcome("The table is as it came.")


def _usable(studio: Studio, base: Base, machine: Machine) -> bool:
    """Whether it can draw or learn here, or nobody knows."""
    fits = [studio.advice.fit(base.id, task, machine) for task in TASKS]
    return any(fit.works for fit in fits) or not any(fit.need_bytes for fit in fits)


def _group(
    studio: Studio, title: str, bases: Sequence[Base], jobs: dict[str, Job], uses: dict[str, Use], machine: Machine
) -> str:
    rows = "".join(_row(studio, base, jobs.get(base.id), uses.get(base.id, Use()), machine) for base in bases)
    return card(f'<div class="list bare bases">{rows}</div>', title=title) if rows else ""


def _row(studio: Studio, base: Base, job: Job | None, use: Use, machine: Machine) -> str:
    notes = [licences.sentence(base.licence, base.commercial)]
    if base.gated and base.folder is None:
        notes.append("asks for an account and a click on its licence at its page")
    if base.folder is None and base.size_gib:
        notes.append(gib(base.size_gib))
    fits = " ".join(studio.advice.fit(base.id, task, machine).sentence for task in TASKS)
    kind = chip("yours") if base.own else ""
    return (
        f'<div data-base="{esc(base.id)}"><div class="stack tight"><div class="row"><h3>{esc(base.title)}</h3>{kind}</div>'
        f"<p>{esc(base.about)}</p><p>{esc(' · '.join(notes))}</p><p>{esc(fits)}</p>{_used(use)}{_progress(studio, job)}</div>"
        f'<div class="actions">{_state(base, job, use)}</div></div>'
    )


def _state(base: Base, job: Job | None, use: Use) -> str:
    """Whether it is here, and what can be done about it."""
    if job is not None and job.state in UNFINISHED:
        return state_chip(job)
    if base.built_in:
        return chip("comes with masuka", "good")
    delete = _delete(base, use)
    if base.folder is not None:
        more = "" if base.complete else button("Download what it learns with", "models-download", base=base.id)
        return f"{chip('on this machine', 'good')}{go('Draw', look='plain', tab='images', base=base.id, adapter=0)}{more}{delete}"
    fetch = button(
        f"Download {gib(base.size_gib)}" if base.size_gib else "Download", "models-download", base=base.id
    )
    return fetch + (delete if base.own else "")


def _delete(base: Base, use: Use) -> str:
    parts = [f"Its files go from this machine ({gib(base.size_gib)})." if base.size_gib else "Its files go from this machine."]
    if use.adapters:
        names = ", ".join(a.name for a in use.adapters[:NAMES_SHOWN])
        more = len(use.adapters) - NAMES_SHOWN
        names += f" and {more} more" if more > 0 else ""
        stay = "stays" if len(use.adapters) == 1 else "stay"
        parts.append(f"{plural(len(use.adapters), 'LoRA')} of it {stay} but cannot draw without it: {names}.")
    return button(
        "Delete", "models-delete", look="danger", base=base.id, confirm=f"Delete {base.title}?",
        detail=" ".join(parts), yes="Delete it",
    )  # fmt: skip


def _used(use: Use) -> str:
    counts = [plural(len(use.adapters), "LoRA")] if use.adapters else []
    counts += [plural(use.runs, "training")] if use.runs else []
    if not counts:
        return ""
    of = f" of {', '.join(use.characters[:NAMES_SHOWN])}" if use.characters else ""
    said = f"Used by {' and '.join(counts)}{of}"
    return f'<p class="used">{esc(said)}</p>'


def _progress(studio: Studio, job: Job | None) -> str:
    """How far it is, or why it did not arrive."""
    if job is None or job.state not in (*UNFINISHED, "failed"):
        return ""
    running = bar(job.step, job.total, f"Progress of {job.title}") if job.state == "running" else ""
    hint = f' {esc((job.error or {}).get("hint", ""))}' if job.state == "failed" else ""
    how = "notice bad" if job.state == "failed" else "stack tight"
    return f'<div class="{how}"><p>{esc(_amount(studio, job))}{hint}</p>{running}{job_actions(job)}</div>'


def _amount(studio: Studio, job: Job) -> str:
    """A download counts in MiB, which are no steps."""
    if job.state == "running" and job.total and job.kind in ("download_model", "fetch_base"):
        said = f"{job.stage} · {gib(job.step / 1024)} of {gib(job.total / 1024)}"
        left = studio.jobs.eta_s(job)
        return said if left is None else f"{said} · {round(left / 60)} min left" if left > 90 else f"{said} · {round(left)} s left"
    return state_sentence(studio, job)


def _advised(advice: Advice, base: Base, *, first: bool) -> str:
    view = {"tab": "images", "base": base.id, "adapter": 0} if advice.task == "draw" else {"tab": "training", "base": base.id}
    if base.folder is not None:
        do = go("Use it", look="plain", **view)
    else:
        do = button(f"Download {gib(base.size_gib)}", "models-download", base=base.id)
    mark = chip("recommended", "good") if first else ""
    return (
        f'<div><div class="stack tight"><div class="row"><strong>{esc(base.title)}</strong>{mark}</div>'
        f"<p>{esc(advice.fit.sentence)}</p></div><div>{do}</div></div>"
    )


def _bringing(studio: Studio) -> dict[str, Job]:
    """The newest job that brings each base."""
    found: dict[str, Job] = {}
    jobs = [job for kind in BRINGING for job in studio.jobs.list(kind=kind, limit=100)]
    for job in sorted(jobs, key=lambda j: -j.id):
        found.setdefault(str(job.request.get("base", "")), job)
    return found


def _detect() -> str:
    return button("Detect again", "models-detect", look="quiet", name="models-detect")


def _base_id(payload: Payload) -> str:
    base = payload.get("base")
    if not isinstance(base, str) or not base:
        raise InvalidInput("No base is chosen.", "Reload the page.")
    return base


TAB = Tab(
    "models",
    "Models",
    columns=(
        (
            Region("head", draw_head, live=False),
            Region("machine", draw_machine, always=True),
            Region("advice", draw_advice),
            Region("tiers", draw_table, live=False),
            Region("catalogue", draw_catalogue, waiting='<div class="skeleton"></div>'),
            *finding.REGIONS,
        ),
    ),
    actions={
        "download": on_download,
        "delete": on_delete,
        "free": on_free,
        "detect": on_detect,
        "table": on_table,
        "reset-table": on_reset_table,
        **finding.ACTIONS,
    },
)
