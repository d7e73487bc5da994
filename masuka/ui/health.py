"""Settings, the part about whether all is well: what `masuka doctor` says."""

from __future__ import annotations

from masuka.hosting.doctor import Finding, examine
from masuka.studio import Studio
from masuka.ui.kit import Region
from masuka.ui.markup import card, chip, esc
from masuka.ui.view import View
from masuka.ui.words import plural

_CHIPS = {"bad": ("needs help", "bad"), "note": ("note", "warn"), "good": ("well", "good")}
_ORDER = ("bad", "note", "good")


def draw_health(studio: Studio, view: View) -> str:
    """Everything that was looked at, the bad first, each with what to do; the owner's."""
    if studio.actor.role != "owner":
        return ""
    found = sorted(examine(studio.settings, serving=True), key=lambda finding: _ORDER.index(finding.state))
    worst = found[0].state
    problems = "".join(_row(finding) for finding in found if finding.state != "good")
    well = [f'<p class="hint" data-finding="{esc(f.name)}">{esc(f.text)}</p>' for f in found if f.state == "good"]
    rest = f"<details><summary>{plural(len(well), 'thing')} found well</summary>{''.join(well)}</details>"
    return card(f'<div class="list bare">{problems}</div>{rest}', title="Health", aside=chip(*_CHIPS[worst]))


def _row(finding: Finding) -> str:
    return (
        f'<div data-finding="{esc(finding.name)}"><div><h3>{esc(finding.text)}</h3>'
        f'<p class="hint">{esc(finding.remedy)}</p></div>{chip(*_CHIPS[finding.state])}</div>'
    )


REGIONS = (Region("health", draw_health, live=False),)
