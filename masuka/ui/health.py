"""Settings, the part about whether all is well: what `masuka doctor` says."""

from __future__ import annotations

from masuka.hosting.doctor import Finding, examine
from masuka.studio import Studio
from masuka.ui.kit import Region
from masuka.ui.markup import card, chip, esc
from masuka.ui.view import View

_CHIPS = {"bad": ("needs help", "bad"), "note": ("worth knowing", "warn"), "good": ("well", "good")}
_ORDER = ("bad", "note", "good")


def draw_health(studio: Studio, view: View) -> str:
    """Everything that was looked at, the bad first, each with what to do; the owner's."""
    if studio.actor.role != "owner":
        return ""
    found = sorted(examine(studio.settings), key=lambda finding: _ORDER.index(finding.state))
    worst = found[0].state
    open_ones = "".join(_row(finding) for finding in found if finding.state != "good")
    well = "".join(_row(finding) for finding in found if finding.state == "good")
    rest = f"<details><summary>{sum(f.state == 'good' for f in found)} things are well</summary>{well}</details>"
    return card(f'<div class="list bare">{open_ones}</div>{rest}', title="Health", aside=chip(*_CHIPS[worst]))


def _row(finding: Finding) -> str:
    remedy = f'<p class="hint">{esc(finding.remedy)}</p>' if finding.remedy else ""
    return (
        f'<div class="row between" data-finding="{esc(finding.name)}"><div><p>{esc(finding.text)}</p>{remedy}</div>'
        f"{chip(*_CHIPS[finding.state])}</div>"
    )


REGIONS = (Region("health", draw_health, live=False),)
