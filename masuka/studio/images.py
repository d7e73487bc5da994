"""Drawing pictures."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from masuka.errors import InvalidInput, NotFound
from masuka.families import draw_limits_of, drawing_bases, family_of, preset_named
from masuka.families.base import Preset
from masuka.generation import prompts
from masuka.requests.base import Param, params
from masuka.requests.images import DrawImages
from masuka.requests.training import LARGEST_SEED
from masuka.store.jobs import Job
from masuka.store.models import Model
from masuka.studio.context import Context, parsed
from masuka.studio.jobs import Jobs
from masuka.studio.models import Models


class Images:
    """Draw with a base model, with a character's LoRA or without."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)
        self._models = Models(context)

    def defaults(self, base: str = "pocket") -> dict[str, Param]:
        """Every setting with the base's own range and default, for form and command line."""
        return params(DrawImages, draw_limits_of(base))

    def presets(self, base: str) -> Sequence[Preset]:
        """Settings by name that this base offers; raises NotFound."""
        return family_of(base)[1].presets

    def bases_for(self, adapter: Model) -> tuple[str, ...]:
        """The bases that draw with this LoRA, its own first."""
        return drawing_bases(adapter.base)

    def draw(
        self,
        request: DrawImages | Mapping[str, Any] | None = None,
        /,
        *,
        preset: str = "",
        key: str | None = None,
        **values: Any,
    ) -> Job:
        """The queued drawing of 1 to 8 pictures.

        A LoRA draws with the base it was trained on unless one is given that was distilled
        from it, at the best weight that its training measured unless another is given. A `preset` gives the base and what is
        not given besides. The same `key` again gives the same job again. Raises
        InvalidInput for a setting out of the base's range or a base that the LoRA is
        not for, NotFound for an unknown preset, Conflict when the base is not installed.
        """
        self._context.actor.must_edit()
        if preset:
            request, values = _with_preset(preset, request, values), {}
        first = parsed(DrawImages, request, values)
        adapter = None if first.adapter_id is None else self._models.adapter(first.adapter_id)
        base_id = self._base_of(first, adapter)
        values = {**values, "base": base_id, "seed": _seed(first)}
        best = None if adapter is None else adapter.best_weight
        if best is not None and "adapter_weight" not in first.model_fields_set:
            values["adapter_weight"] = best
        wanted = parsed(DrawImages, request, values, draw_limits_of(base_id))
        prompt = prompts.with_trigger(
            wanted.prompt,
            trigger_word=adapter.trigger_word if adapter else "",
            class_word=adapter.class_word if adapter else "",
        )
        return self._jobs.add(
            "draw_images",
            title=_title(wanted, adapter),
            request=wanted.as_dict(),
            params=self._params(wanted, adapter, prompt),
            character_id=adapter.character_id if adapter else None,
            idempotency_key=key,
        )

    def _base_of(self, request: DrawImages, adapter: Model | None) -> str:
        if adapter is None:
            return request.base
        if "base" not in request.model_fields_set:
            return adapter.base
        able = self.bases_for(adapter)
        if request.base not in able:
            raise InvalidInput(
                f"{adapter.name} was trained on {adapter.base}, not on {request.base}.",
                f"Draw with {' or '.join(able)}.",
                field="base",
            )
        return request.base

    def _params(self, wanted: DrawImages, adapter: Model | None, prompt: str) -> dict[str, Any]:
        base = self._models.must_be_installed(wanted.base)
        return {
            "request": wanted.as_dict(),
            "family": base.family,
            "base": self._models.base_params(wanted.base),
            "adapter": None if adapter is None else self._adapter(wanted, adapter),
            "prompt": prompt,
            "items_folder": str(self._context.workspace.items),
            "device": self._context.settings.device,
        }

    def _adapter(self, wanted: DrawImages, adapter: Model) -> dict[str, Any]:
        file = self._context.here(self._context.workspace.resolve(adapter.path))
        if not file.exists():
            raise NotFound(f"The file of {adapter.name} is gone.", "Train it again or delete it.")
        return {
            "id": adapter.id,
            "file": str(file),
            "name": adapter.name,
            "sha256": adapter.sha256,
            "weight": wanted.adapter_weight,
        }


def _with_preset(name: str, request: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a preset, and over them what was given."""
    entry, preset = preset_named(name)
    if request is not None and not isinstance(request, Mapping):
        request = DrawImages.parse(request).model_dump(exclude_unset=True)
    own = {n: v for n, v in {**(request or {}), **values}.items() if v is not None}
    if own.get("base", entry.id) != entry.id:
        raise InvalidInput(
            f"{preset.name} is a preset of {entry.id}, not of {own['base']}.",
            "Leave the base out, or the preset.",
            field="base",
        )
    return {"base": entry.id, **preset.values, **own}


def _seed(request: DrawImages) -> int:
    return secrets.randbelow(LARGEST_SEED - 8) if request.seed is None else request.seed


def _title(wanted: DrawImages, adapter: Model | None) -> str:
    noun = "picture" if wanted.num_images == 1 else "pictures"
    return f"{wanted.num_images} {noun}" + (f" of {adapter.name}" if adapter else "")
