"""Which action of the page is for whom; the page hides what its visitor may not do.

What stands in no list is an editor's, and on the Settings tab the owner's. A button that
is hidden is refused as well, here and again in the studio.
"""

from __future__ import annotations

import re

from masuka.errors import NotAllowed
from masuka.requests import Actor
from masuka.requests.actor import Role

RANKS: dict[str, int] = {"viewer": 1, "editor": 2, "owner": 3}
ACTIONS: dict[str, Role] = {
    "library-export": "viewer",
    "library-adapter-bring": "owner",
    "library-adapter-bake": "owner",
    "library-adapter-extract": "owner",
    "training-download": "owner",
    "models-download": "owner",
    "models-delete": "owner",
    "models-table": "owner",
    "models-reset-table": "owner",
    "models-add-repo": "owner",
    "models-add-path": "owner",
    "models-add-civitai": "owner",
    "models-sent": "owner",
    "models-check": "owner",
    "models-detect": "viewer",
    "training-judges": "owner",
    "settings-own-password": "viewer",
    "settings-sign-out": "viewer",
    "datasets-folder": "owner",
    "datasets-embedder": "owner",
    "datasets-detector": "owner",
    "datasets-captions-download": "owner",
}
REGIONS: dict[str, Role] = {
    "home-next": "editor",
    "datasets-add": "editor",
    "datasets-creating": "editor",
    "datasets-settings": "editor",
    "datasets-many": "editor",
    "training-choices": "editor",
    "training-continue": "editor",
    "images-choices": "editor",
    "models-search": "editor",
    "models-found": "editor",
    "models-checked": "owner",
    "models-own": "owner",
    "models-tiers": "owner",
    "settings-me": "viewer",
    "settings-pocket": "viewer",
}
QUIET = frozenset(
    {"training-preset", "images-star", "models-detect", "models-search", "models-check", "datasets-caption", "datasets-aside", "datasets-crop", "datasets-reset", "datasets-edit",
     "datasets-captions-edit", "datasets-captions-rename", "datasets-captions-remove", "datasets-captions-even", "datasets-captions-undo"}
) | frozenset(
    f"settings-{name}"
    for name in ("invite", "revoke", "role", "lock", "end", "remove", "share-all", "unshare", "registration",
                 "own-password", "new-password", "sign-out")
)  # fmt: skip
"""Actions without a line in the history: small ones that are undone as easily, and those
about people, which write their own."""
_BUTTON = re.compile(r'<button type="button"[^>]* data-do="([a-z-]+)"[^>]*>(?:(?!</button>).)*</button>', re.DOTALL)


def needed_for(action: str) -> Role:
    """The least role that may perform the action."""
    return ACTIONS.get(action, "owner" if action.startswith("settings-") else "editor")


def shows(region: str, actor: Actor) -> bool:
    """Whether the region is for this person at all."""
    otherwise: Role = "owner" if region.startswith("settings-") else "viewer"
    return RANKS[actor.role] >= RANKS[REGIONS.get(region, otherwise)]


def must_be_allowed(action: str, actor: Actor) -> None:
    """Raises NotAllowed when the action is not for this person."""
    needed = needed_for(action)
    if RANKS[actor.role] >= RANKS[needed]:
        return
    if needed == "owner":
        actor.must_own()
    actor.must_edit()
    raise NotAllowed("This is not for you.", "Ask the owner of this studio.")


def without_forbidden(body: str, actor: Actor) -> str:
    """The region's HTML without buttons of actions that are not for this person.

    What is typed by people is escaped in it, so that no '<' or '>' of theirs is inside.
    """
    if actor.role == "owner":
        return body
    return _BUTTON.sub(lambda found: found.group() if _may(found.group(1), actor) else "", body)


def _may(action: str, actor: Actor) -> bool:
    return RANKS[actor.role] >= RANKS[needed_for(action)]
