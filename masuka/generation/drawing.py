"""A base model kept loaded, that draws one picture at a time and can be stopped inside a step."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from masuka.families.base import AdapterReport, Family
from masuka.generation.previews import Preview
from masuka.models import loading
from masuka.models.catalogue import index_of
from masuka.requests.images import DrawImages

PROMPTS_KEPT = 32
LARGEST_WHOLE_PX = 1_500_000
"""Above this many pixels the VAE's own memory passes that of the step before it."""
_NAME = "character"


@dataclass(frozen=True)
class Identity:
    """What must be equal for a loaded base to serve again."""

    folder: Path
    changed_ns: int
    device: str
    dtype: torch.dtype

    @classmethod
    def of(cls, folder: Path, device: str, dtype: torch.dtype) -> Identity:
        return cls(folder, (index_of(folder) or folder).stat().st_mtime_ns, device, dtype)


@dataclass(frozen=True)
class Adapter:
    """A LoRA file to draw with; `sha256` is of the whole file."""

    file: Path
    sha256: str


Watch = Callable[[int, Callable[[], Image.Image] | None], None]
"""Told (steps done, what makes a small preview) after every denoising step; the preview
is a guess from two steps, so there is none after the first."""


class Drawer:
    """One loaded pipeline, the LoRA in it, and the prompts it has read already."""

    def __init__(self, family: Family, identity: Identity) -> None:
        self.family = family
        self.identity = identity
        self.pipeline = family.pipeline(
            identity.folder, dtype=identity.dtype, device="cpu", computes_on=identity.device
        )
        self.placement = loading.place(self.pipeline, identity.device)
        self.report = AdapterReport(0, 0)
        self.payload_sha256 = ""
        self._preview = Preview(self.pipeline.vae)
        self._encoder = family.text_encoder_of(self.pipeline)
        self._adapter: Adapter | None = None
        self._weight = 0.0
        self._texts: OrderedDict[tuple[Any, ...], dict[str, Tensor]] = OrderedDict()

    def use(self, adapter: Adapter | None, weight: float = 1.0) -> AdapterReport:
        """Draws with this LoRA from now on; the one before is taken out.

        Raises InvalidInput when no layer of it fits; whatever it raises, no LoRA is in then.
        """
        if adapter != self._adapter:
            if self._adapter is not None:
                self.pipeline.unload_lora_weights()
            self._adapter, self.report, self.payload_sha256 = None, AdapterReport(0, 0), ""
            if adapter is not None:
                self._load(adapter)
        if adapter is not None:
            self.pipeline.set_adapters([_NAME], [weight])
        self._weight = weight if adapter else 0.0
        return self.report

    def _load(self, adapter: Adapter) -> None:
        try:
            report = self.family.load_adapter(self.pipeline, adapter.file, _NAME)
            payload_sha256 = _payload_sha256(adapter.file)
        except BaseException:
            # Half of it may be in: it would colour what is drawn next, and keep its name taken.
            self.pipeline.unload_lora_weights()
            raise
        self._adapter, self.report, self.payload_sha256 = adapter, report, payload_sha256

    def draw(self, request: DrawImages, prompt: str, seed: int, watch: Watch | None = None) -> Image.Image:
        """The picture of that seed; the same alone or as one of many."""
        negative = self.family.negative_text(request)
        arguments = self.family.call_arguments(
            request,
            [torch.Generator("cpu").manual_seed(seed)],
            text=self._text(prompt),
            negative=None if negative is None else self._text(negative),
        )
        self._tile(request.width * request.height)
        if watch is not None:
            arguments["callback_on_step_end"] = self._watched(watch, (request.width, request.height))
        picture: Image.Image = self.pipeline(**arguments).images[0]
        return picture

    @contextmanager
    def stoppable(self, check: Callable[[], None]) -> Iterator[None]:
        """Within it `check` is called before every block of every model, and may raise.

        When it does, caches and offload hooks are put back, so that the next picture is
        exactly the one that an untouched pipeline draws.
        """

        def before(_module: nn.Module, _inputs: object) -> None:
            check()

        parts = [p for p in self.pipeline.components.values() if isinstance(p, nn.Module)]
        hooks = [block.register_forward_pre_hook(before) for part in parts for block in _blocks(part)]
        try:
            yield
        except BaseException:
            self.pipeline.maybe_free_model_hooks()
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def _tile(self, pixels: int) -> None:
        """Decodes large pictures in tiles, small ones whole, whatever was drawn before."""
        vae = self.pipeline.vae
        if hasattr(vae, "enable_tiling"):
            vae.enable_tiling() if pixels > LARGEST_WHOLE_PX else vae.disable_tiling()

    def _text(self, prompt: str) -> dict[str, Tensor]:
        key = (prompt, self._adapter, self._weight)
        if key not in self._texts:
            with torch.no_grad():
                text = self.family.encode_text(self._encoder, [prompt])
            self._texts[key] = {name: t.to(self.identity.dtype) for name, t in text.items()}
            if len(self._texts) > PROMPTS_KEPT:
                self._texts.popitem(last=False)
        self._texts.move_to_end(key)
        return self._texts[key]

    def _watched(self, watch: Watch, size_px: tuple[int, int]) -> Callable[..., dict[str, Any]]:
        latents: list[Tensor] = []

        def after_step(pipeline: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            latents.append(values["latents"])
            del latents[:-2]

            def preview() -> Image.Image:
                clean = self.family.clean_latents(pipeline, latents[0], latents[1], step, size_px)
                return self._preview.picture(clean)

            watch(step + 1, preview if len(latents) == 2 else None)
            return values

        return after_step


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost module lists: transformer blocks, encoder layers, …"""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if block is not None)  # a VAE's unused attentions
        else:
            yield from _blocks(child)


def _payload_sha256(file: Path) -> str:
    """The hash other tools know a LoRA by: of everything behind the safetensors header."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        stream.seek(8 + int.from_bytes(stream.read(8), "little"))
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
