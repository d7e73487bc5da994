"""How a set's pictures are varied: the settings, a warning, and some variants to look at."""

from __future__ import annotations

import base64

from masuka.requests.base import params
from masuka.requests.edits import Augment
from masuka.studio import Studio
from masuka.ui import forms
from masuka.ui.kit import Outcome, Payload, Region, id_of, values_of
from masuka.ui.markup import button, card, disclosure, esc, picture
from masuka.ui.view import View

FORM = "varying-form"
SHOWN = 6
_SHOWN_PX = 192


def draw_varying(studio: Studio, view: View) -> str:
    """The settings behind one click, with some variants where something is varied."""
    if view.dataset is None or view.part != "trainer":
        return ""
    pictures = studio.datasets.pictures(view.dataset, limit=1)
    if not pictures:
        return ""
    varied = studio.edits.augment(view.dataset)
    values = varied.augment.as_dict()
    fields = "".join(forms.field(FORM, p, value=values[name]) for name, p in params(Augment).items())
    save = button("Save", "datasets-vary", look="primary", form=FORM, id=view.dataset, name="varying-save")
    warning = f'<div class="notice warn full"><p>{esc(varied.warning)}</p></div>' if varied.warning else ""
    body = forms.form(FORM, fields + f'<div class="actions full">{save}</div>', submit="varying-save")
    seen = _variants(studio, pictures[0].id) if varied.augment.is_on else ""
    hint = '<p class="hint">Nothing is copied: a training varies the pictures itself, the same way for the same seed.</p>'
    shown = "Pictures are varied" if varied.augment.is_on else "Pictures are learnt from as they are"
    inside = disclosure(shown, f'<div class="stack">{hint}{warning}{seen}{body}</div>', name="varying")
    return f'<div class="whole">{card(inside, title="Variations")}</div>'


def on_vary(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The set's pictures are varied like that from the next training on."""
    varied = studio.edits.set_augment(id_of(payload), values_of(payload))
    return Outcome(
        "Saved. It counts from the next training on." if varied.augment.is_on else "Nothing is varied."
    )


def _variants(studio: Studio, picture_id: int) -> str:
    tiles = []
    for seed in range(1, SHOWN + 1):
        made = base64.b64encode(studio.edits.preview_augment(picture_id, seed, longest_px=_SHOWN_PX)).decode()
        tiles.append(f"<figure>{picture(f'data:image/webp;base64,{made}', f'Variant {seed}')}</figure>")
    return f'<div class="strip">{"".join(tiles)}</div>'


REGIONS = (Region("varying", draw_varying, live=False),)
ACTIONS = {"vary": on_vary}
