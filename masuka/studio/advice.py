"""What this machine can do with which base, and what its GPU's memory holds."""

from __future__ import annotations

import json
from typing import Any

from masuka.errors import Conflict, NotFound
from masuka.families import family_of
from masuka.hosting.machine import Gpu, list_gpus
from masuka.hosting.machine import machine as look
from masuka.models import tiers
from masuka.models.memory import GIB, Machine
from masuka.models.tiers import Advice, Fit, Task
from masuka.store import settings as rows
from masuka.studio.context import Context
from masuka.studio.models import STUDIO

TABLE = "recommended_bases"
KEPT_FREE = 0.06
"""Of a GPU's memory: what drivers and screens take of it."""
SYSTEM_BYTES = 2 * GIB
"""Main memory that is left to everything else."""
BF16_SINCE = (8, 0)


class Advising:
    """Recommendations are judged by what the machine has when nothing else runs on it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def machine(self) -> Machine:
        """What there is for models here, as if nothing ran; looked at anew at each call."""
        settings = self._context.settings
        found = look(settings.workspace.root, device=settings.device)
        first = found.gpus[0] if found.gpus else None
        vram = int(found.vram_total_gib * GIB) if first is not None and found.device.startswith("cuda") else None
        ram = int(found.ram_total_gib * GIB)
        return Machine(
            device=found.device, name=found.gpu, vram_bytes=vram,
            free_vram_bytes=None if vram is None else int(vram * (1 - KEPT_FREE)), ram_bytes=ram,
            free_ram_bytes=max(0, ram - SYSTEM_BYTES), free_disk_bytes=int(found.disk_free_gib * GIB),
            bf16=first is None or first.compute_capability >= BF16_SINCE, devices=max(1, len(found.gpus)),
        )  # fmt: skip

    def tier(self, machine: Machine | None = None) -> str:
        """The name of the tier that this machine is in."""
        return str(tiers.tier_of(self.table(), machine or self.machine())["name"])

    def recommended(self, machine: Machine | None = None) -> list[Advice]:
        """For each task the bases that suit this machine and fit; the best first."""
        return tiers.recommended(self.table(), machine or self.machine())

    def fit(self, base_id: str, task: Task, machine: Machine | None = None) -> Fit:
        """Whether the base can be used for the task here, in a sentence."""
        return tiers.fit_of(family_of(base_id)[1], machine or self.machine(), task)

    def table(self) -> dict[str, Any]:
        """The table as the person edited it, else MASUKA's own."""
        try:
            text = rows.get_setting(self._context.store, actor=STUDIO, key=TABLE).value
        except NotFound:
            return tiers.DEFAULT
        stored: dict[str, Any] = json.loads(text)
        return stored

    @property
    def is_edited(self) -> bool:
        """Whether the table is the person's own."""
        return any(setting.key == TABLE for setting in rows.list_settings(self._context.store, actor=STUDIO))

    def table_text(self) -> str:
        """The table as JSON, to be edited."""
        return json.dumps(self.table(), indent=2)

    def set_table(self, text: str) -> None:
        """Keeps the table; raises InvalidInput that says what is wrong where."""
        self._context.actor.must_own()
        table = tiers.parsed(text)
        rows.set_setting(self._context.store, actor=STUDIO, key=TABLE, value=json.dumps(table))

    def reset_table(self) -> None:
        """MASUKA's own table again."""
        self._context.actor.must_own()
        rows.delete_setting(self._context.store, actor=STUDIO, key=TABLE)

    def gpus(self) -> list[Gpu]:
        """The cards with their memory now, read from the driver."""
        return list_gpus()

    def free_gpu(self) -> bool:
        """Whether a worker that only kept models loaded is leaving; what runs goes on.

        Raises Conflict where models are not kept loaded between jobs.
        """
        self._context.actor.must_edit()
        if self._context.supervisor is None:
            raise Conflict("Nothing is kept loaded here: jobs run in this process and end with it.")
        return self._context.supervisor.empty("gpu")
