"""What jobs do to chosen pictures: cut them out of their background, find their faces."""

from __future__ import annotations

from collections.abc import Sequence

from masuka.studio import Studio
from masuka.ui.cards import UNFINISHED, job_card
from masuka.ui.kit import Outcome, Payload, Region, ids_of, key_of
from masuka.ui.markup import button
from masuka.ui.view import View
from masuka.ui.words import plural

MOST_UNDONE = 1000
"""Recipes in one action: more do not fit into what the page may send."""
KINDS = ("cut_out_pictures", "find_faces")


def draw_cutting(studio: Studio, view: View) -> str:
    """The jobs of this kind that are not done."""
    if view.dataset is None:
        return ""
    jobs = studio.jobs.list(dataset_id=view.dataset, states=UNFINISHED, limit=20)
    return "".join(job_card(studio, job, log=False) for job in jobs if job.kind in KINDS)


def buttons(grid: str) -> str:
    """The buttons for the pictures that are selected in the grid."""
    return button(
        "Cut out of the background", "datasets-cut-out", look="quiet", selection=grid,
        confirm="Cut {count} pictures out of their background?",
        detail="By colour, without a model: plain backgrounds come out well, busy ones roughly. "
               "What is behind becomes grey and is hardly learnt from. The files stay as they are.",
        yes="Cut out",
    ) + button("Look for faces again", "datasets-find-faces", look="quiet", selection=grid)  # fmt: skip


def detector(studio: Studio) -> tuple[str, str]:
    """How faces are found, and the button for the better way; '' where it is here."""
    found = studio.edits.detector()
    if not found.can_download:
        return "", ""
    how = found.why_none or (
        f"Faces are found by {found.title}: people who look at the camera. YuNet finds turned and small ones too."
    )
    return how, button("Download YuNet (0.2 MB)", "datasets-detector")


def undo_edits(studio: Studio, ids: Sequence[int]) -> tuple[str, dict[str, object]] | None:
    """The action that edits these pictures as they are now; None for too many."""
    if len(ids) > MOST_UNDONE:
        return None
    return "datasets-edit", {"recipes": [[id, studio.edits.recipe(id).as_dict()] for id in ids]}


def on_detector(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that fetches the better face detector."""
    studio.edits.download_detector()
    return Outcome("It is being downloaded. Then look for faces again in chosen pictures.")


def on_cut_out(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that cuts the pictures out."""
    ids = ids_of(payload)
    studio.edits.cut_out(ids, key=key_of(payload))
    return Outcome(f"{plural(len(ids), 'picture')} on the way. 'Back to the original' undoes it.")


def on_find_faces(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that looks for faces thoroughly."""
    ids = ids_of(payload)
    studio.edits.find_faces(ids, key=key_of(payload))
    return Outcome(f"Looking for faces in {plural(len(ids), 'picture')}.")


REGIONS = (Region("cutting", draw_cutting),)
ACTIONS = {"detector": on_detector, "cut-out": on_cut_out, "find-faces": on_find_faces}
