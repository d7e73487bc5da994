"""The doctor's summary of a set: what is good, what is doubtful and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from masuka.datasets import MOST_COMPARED, embedding
from masuka.datasets.doctor import ALIKE, KINDS
from masuka.errors import InvalidInput
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.studio.doctor import Report
from masuka.ui import cutting
from masuka.ui.cards import UNFINISHED, state_sentence
from masuka.ui.intake import FILLS
from masuka.ui.kit import Outcome, Payload, id_of
from masuka.ui.markup import attributes, bar, button, esc
from masuka.ui.view import View
from masuka.ui.words import plural

BEST = 25
STRICTNESS = (
    ("none", "Look at nothing"),
    ("basic", "Basic: what spoils a training"),
    ("strict", "Strict: small flaws too"),
)
MOST_AT_ONCE = 20_000


def draw_doctor(studio: Studio, view: View) -> str:
    """One calm card: how many are good, how strictly that is judged, the best ones."""
    if view.dataset is None or view.part:
        return ""
    dataset = studio.datasets.get(view.dataset)
    if not dataset.picture_count:
        return ""
    report = studio.doctor.report(dataset.id)
    unfinished = studio.jobs.list(dataset_id=dataset.id, states=UNFINISHED, limit=20)
    if any(job.kind in FILLS and job.state in ("queued", "running") for job in unfinished):
        # What is measured but not yet compared with the others must not be called good.
        so_far = f"<h2>{plural(report.kept, 'picture')} so far</h2>"
        return f'<section class="card doctor" aria-label="Doctor">{so_far}<p class="hint">They are judged when all are in.</p></section>'
    looking = next((job for job in unfinished if job.kind == "check_dataset"), None)
    strictness = str(dataset.options.get("strictness", "basic"))
    # The kinds of findings are told by the filters below; what is left is about the whole set.
    advice = report.sentences[len(report.counts) :]
    if report.unmeasured and not looking:
        advice.insert(
            0, f"{plural(report.unmeasured, 'picture')} not looked at yet. Look again to judge them."
        )
    hint = "".join(f'<p class="hint">{esc(sentence)}</p>' for sentence in advice)
    choices = ""
    if studio.actor.role != "viewer":
        choices = _choices(dataset.id, report, strictness, busy=looking is not None)
    return (
        f'<section class="card doctor" aria-label="Doctor"><div class="row between">'
        f"<h2>{_counts(report)}</h2>{choices}</div>"
        f"{_busy(studio, looking, dataset.picture_count) if looking else hint + _notes(studio, report)}</section>"
    )


def _notes(studio: Studio, report: Report) -> str:
    """How it was judged, behind one click."""
    faces, fetch = cutting.detector(studio)
    said = [*report.notes, *([faces] if faces else [])]
    if not said:
        return ""
    notes = "".join(f'<p class="hint">{esc(note)}</p>' for note in said)
    if any(embedding.REPO in note for note in report.notes):
        fetch += button(f"Download {embedding.REPO}", "datasets-embedder")
    return f'<details id="datasets-how"><summary>How this was judged</summary><div class="stack tight">{notes}<div class="actions">{fetch}</div></div></details>'


def reason(dataset_id: int, report: Report, only: str) -> str:
    """Why these pictures are doubtful, and what is done about all of them at once."""
    count = report.counts.get(only, 0)
    if only not in KINDS or not count:
        return ""
    about = KINDS[only]
    remedy = button(f"{about.remedy} · {count:,}", "datasets-remedy", id=dataset_id, kind=only)
    return (
        f'<ul class="card reasons"><li><p><strong>{esc(about.label)}.</strong> {esc(about.sentence)}</p>'
        f'<div class="actions">{remedy}</div></li></ul>'
    )


def on_look(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that looks at every picture again."""
    studio.doctor.look(id_of(payload))
    return Outcome()


def on_embedder(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that fetches the model by which likeness is told."""
    studio.doctor.download_embedder()
    return Outcome("It is being downloaded. Look again when it is here.")


def on_strictness(studio: Studio, payload: Payload, view: View) -> Outcome:
    """How much the doctor minds from now on."""
    studio.doctor.set_strictness(id_of(payload), str(payload.get("value", "")))
    return Outcome()


def on_remedy(studio: Studio, payload: Payload, view: View) -> Outcome:
    """One remedy for every picture of a set with that finding; it can be taken back."""
    dataset_id, kind = id_of(payload), str(payload.get("kind", ""))
    if kind not in KINDS:
        raise InvalidInput("The doctor knows no such finding.", "Reload the page.")
    if KINDS[kind].does != "aside":
        meant = [p.id for p in studio.datasets.pictures(dataset_id, only=kind, limit=MOST_AT_ONCE)]
        undo = cutting.undo_edits(studio, meant)
        changed = studio.doctor.apply(dataset_id, kind)
        return Outcome(f"{plural(changed, 'picture')} cropped.", undo=undo if changed else None)
    before = kept_ids(studio, dataset_id)
    studio.doctor.apply(dataset_id, kind)
    after = set(kept_ids(studio, dataset_id))
    gone = [id for id in before if id not in after]
    if not gone:
        return Outcome("Nothing was left to do.")
    return Outcome(f"{plural(len(gone), 'picture')} set aside.", undo=take_back(gone))


def on_best(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The best varied pictures stay, the others are set aside; it can be taken back."""
    dataset_id = id_of(payload)
    before = kept_ids(studio, dataset_id)
    studio.doctor.keep_best(dataset_id, BEST)
    after = set(kept_ids(studio, dataset_id))
    gone = [id for id in before if id not in after]
    if not gone:
        return Outcome(f"All {plural(len(before), 'picture')} stay: there are no more than the best {BEST}.")
    return Outcome(
        f"The best {len(after)} stay, {plural(len(gone), 'picture')} set aside.", undo=take_back(gone)
    )


def take_back(ids: Sequence[int]) -> tuple[str, dict[str, object]]:
    """The action that undoes what set these pictures aside."""
    return "datasets-aside", {"ids": list(ids), "on": False}


def kept_ids(studio: Studio, dataset_id: int) -> list[int]:
    """The pictures that a training would learn from."""
    return [p.id for p in studio.datasets.pictures(dataset_id, only="kept", limit=MOST_AT_ONCE)]


def _counts(report: Report) -> str:
    copies = sum(report.counts.get(kind, 0) for kind in ALIKE)
    parts = [f"{max(0, report.kept - report.doubtful):,} good"]
    if report.doubtful:
        folded = f", {copies:,} of them {'a copy' if copies == 1 else 'copies'}" if copies else ""
        parts.append(f"{report.doubtful:,} doubtful{folded}")
    return " · ".join(parts)


def _choices(dataset_id: int, report: Report, strictness: str, *, busy: bool) -> str:
    options = "".join(
        f"<option{attributes({'value': value, 'selected': value == strictness})}>{esc(text)}</option>"
        for value, text in STRICTNESS
    )
    select = {
        "aria-label": "Strictness",
        "data-do-change": "datasets-strictness",
        "data-with": f'{{"id": {dataset_id}}}',
    }
    best = ""
    if report.kept > BEST:
        best = button(f"Keep the best {BEST}", "datasets-best", id=dataset_id, disabled=busy)
    look = button("Look again", "datasets-look", look="quiet", id=dataset_id, disabled=busy)
    return f'<div class="actions"><span class="choice"><select{attributes(select)}>{options}</select></span>{look}{best}</div>'


def _busy(studio: Studio, job: Job, count: int) -> str:
    cancel = button("Cancel", "library-cancel", look="quiet", ids=[job.id]) if job.asked != "cancel" else ""
    said = f'<p class="hint" aria-live="polite">{esc(state_sentence(studio, job))}</p>'
    large = '<p class="hint">So large a set takes a few minutes. The page can be closed.</p>' if count > MOST_COMPARED else ""
    return f'<div class="stack tight" data-job="{job.id}"><div class="row between">{said}{cancel}</div>{bar(job.step, job.total, job.title)}{large}</div>'
