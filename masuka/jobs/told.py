"""What a job tells about pictures and trainings that are there becomes their rows.

A picture that was deleted meanwhile is passed over: the job went on without knowing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from masuka.errors import NotFound
from masuka.requests.actor import Actor
from masuka.store import findings, pictures, runs, scores
from masuka.store.connect import Store
from masuka.store.jobs import Job


def _scores(store: Store, actor: Actor, job: Job, about: dict[str, Any]) -> None:
    if _there(store, actor, job, about["picture_id"]):
        pictures.set_scores(store, actor=actor, id=about["picture_id"], scores=about["scores"])


def _findings(store: Store, actor: Actor, job: Job, about: dict[str, Any]) -> None:
    """Replaces the findings of the pictures that the job looked at, by their SHA-256."""
    findings.set_findings(
        store,
        actor=actor,
        dataset_id=job.params["dataset_id"],
        rows=about["rows"],
        looked=about.get("looked"),
    )


def _caption(store: Store, actor: Actor, job: Job, about: dict[str, Any]) -> None:
    """Takes a captioner's caption, where what it was asked to replace still stands."""
    if _there(store, actor, job, about["picture_id"]) and _stands(store, actor, about):
        pictures.set_told_caption(
            store,
            actor=actor,
            id=about["picture_id"],
            caption=about["caption"],
            caption_from=about["caption_from"],
            problem=about["problem"],
        )


def _stands(store: Store, actor: Actor, about: dict[str, Any]) -> bool:
    if about.get("was") is None:
        return True
    return bool(pictures.get_picture(store, actor=actor, id=about["picture_id"]).caption == about["was"])


def _faces(store: Store, actor: Actor, job: Job, about: dict[str, Any]) -> None:
    """Other measurements of the picture stay as they are."""
    if _there(store, actor, job, about["picture_id"]):
        picture = pictures.get_picture(store, actor=actor, id=about["picture_id"])
        scores = {**picture.scores, "faces": about["faces"]}
        pictures.set_scores(store, actor=actor, id=picture.id, scores=scores)


def _cut_out(store: Store, actor: Actor, job: Job, about: dict[str, Any]) -> None:
    """The rest of the picture's recipe stays as it is."""
    if _there(store, actor, job, about["picture_id"]):
        picture = pictures.get_picture(store, actor=actor, id=about["picture_id"])
        told = {"matte_sha256": about["matte_sha256"], "background": about["background"]}
        pictures.set_edits(store, actor=actor, id=picture.id, edits={**picture.edits, **told})


def _score(store: Store, actor: Actor, job: Job, about: dict[str, Any]) -> None:
    if job.run_id is not None:
        scores.put_score(store, run_id=job.run_id, **about)


def _measured(store: Store, actor: Actor, job: Job, about: dict[str, Any]) -> None:
    """What the training takes, by the keys of its estimate; later figures replace earlier ones."""
    if job.run_id is not None:
        before = runs.get_run(store, actor=actor, id=job.run_id).measured
        runs.set_run(store, actor=actor, id=job.run_id, measured={**before, **about})


def _report(store: Store, actor: Actor, job: Job, about: dict[str, Any]) -> None:
    """What was found out about the result; later findings replace earlier ones of their name."""
    if job.run_id is not None:
        before = runs.get_run(store, actor=actor, id=job.run_id).report
        runs.set_run(store, actor=actor, id=job.run_id, report={**before, **about})


def _there(store: Store, actor: Actor, job: Job, picture_id: int) -> bool:
    try:
        found = pictures.get_picture(store, actor=actor, id=picture_id)
    except NotFound:
        return False
    return bool(found.dataset_id == job.params["dataset_id"])


APPLIERS: dict[str, Callable[[Store, Actor, Job, dict[str, Any]], None]] = {
    "scores": _scores,
    "findings": _findings,
    "caption": _caption,
    "faces": _faces,
    "cut_out": _cut_out,
    "score": _score,
    "measured": _measured,
    "report": _report,
}
