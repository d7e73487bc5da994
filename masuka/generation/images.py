"""The job that draws pictures: a base kept warm, one picture after the other, each a file."""

from __future__ import annotations

import platform
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from masuka import __version__
from masuka.errors import InvalidInput, NotFound
from masuka.families import family_named, family_of
from masuka.families.base import Family
from masuka.generation import infotext
from masuka.generation.drawing import Adapter, Drawer, Identity
from masuka.jobs.reporter import Reporter
from masuka.models import loading
from masuka.models.catalogue import has_index
from masuka.requests.images import DrawImages

SECONDS_BETWEEN_PREVIEWS = 1.0
THUMBNAIL_PX = 384
LIBRARIES = ("torch", "diffusers", "transformers", "peft")

_warm: Drawer | None = None
"""The one base that stays loaded between the jobs of this worker."""


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Draws what `params["request"]` asks for; each picture is an 'item' once done.

    Returns {items, applied, total}: pictures, and layers that the LoRA reached of all it has.
    Raises NotFound when files are gone, InvalidInput when the LoRA fits nowhere,
    OutOfMemory, and Stop from inside a step.
    """
    request = DrawImages.parse(params["request"])
    family = family_named(params["family"])
    if request.negative_prompt and not family.capabilities.negative_prompt:
        raise InvalidInput(
            f"{family.title} takes no negative prompt.", "Leave it empty.", field="negative_prompt"
        )
    try:
        return _Drawing(params, request, family, reporter).run()
    except (RuntimeError, MemoryError) as error:
        hint = "Draw smaller pictures, or end other programs that use the GPU."
        shortage = loading.as_out_of_memory(error, hint)
        if shortage is None:
            raise
        release()
        raise shortage from error


def release() -> None:
    """Drops the warm base and gives its memory back."""
    global _warm
    _warm = None
    loading.free_memory()


def warm_drawer(family: Family, folder: Path, device: str) -> Drawer:
    """The drawer of that base: the warm one, or a new one in its place."""
    global _warm
    identity = Identity.of(folder, device, loading.choose_dtype(device, family))
    if _warm is None or _warm.identity != identity or _warm.family.name != family.name:
        release()
        _warm = Drawer(family, identity)
    return _warm


@dataclass
class _Clock:
    """Counts denoising steps over all pictures of a job."""

    total: int
    reporter: Reporter
    done: int = 0
    began_s: float = 0.0

    def step(self) -> None:
        self.done += 1
        seconds = (time.monotonic() - self.began_s) / self.done
        self.reporter.progress(self.done, self.total, seconds_per_step=seconds)


class _Drawing:
    """One job's way from its parameters to its files."""

    def __init__(
        self, params: dict[str, Any], request: DrawImages, family: Family, reporter: Reporter
    ) -> None:
        self.params, self.request, self.family, self.reporter = params, request, family, reporter
        self.folder = Path(params["items_folder"])
        # The attempt's scratch folder lies in jobs/<id>, and the page asks for the job's preview.
        self.preview_file = self.folder / "previews" / f"{reporter.scratch.parent.name}.webp"
        self._previewed_s = time.monotonic()

    def run(self) -> dict[str, Any]:
        self.reporter.stage("Loading the model")
        drawer = self._drawer()
        report = drawer.use(self._adapter(), self.request.adapter_weight)
        if 0 < report.applied < report.total:
            self.reporter.note(f"The LoRA fits {report.applied} of its {report.total} layers.")
        count, steps = self.request.num_images, self.request.num_inference_steps
        clock = _Clock(count * steps, self.reporter)
        self.reporter.stage("Drawing")
        clock.began_s = self._previewed_s = time.monotonic()
        try:
            with drawer.stoppable(self.reporter.check):
                for index in range(count):
                    self._draw(drawer, clock, (self.request.seed or 0) + index)
        finally:
            self.preview_file.unlink(missing_ok=True)
        return {"items": count, "applied": report.applied, "total": report.total}

    def _drawer(self) -> Drawer:
        loading.quiet_libraries()
        folder = Path(self.params["base"]["folder"])
        if not has_index(folder):
            raise NotFound("The files of the base model are gone.", "Download it again in Settings.")
        return warm_drawer(self.family, folder, loading.choose_device(self.params.get("device", "auto")))

    def _adapter(self) -> Adapter | None:
        asked = self.params.get("adapter")
        if asked is None:
            return None
        file = Path(asked["file"])
        if not file.is_file():
            raise NotFound(f"The file of {asked['name']} is gone.", "Train it again or delete it.")
        return Adapter(file, asked["sha256"])

    def _draw(self, drawer: Drawer, clock: _Clock, seed: int) -> None:
        def watch(_steps: int, preview: Callable[[], Image.Image] | None) -> None:
            clock.step()
            if preview is not None and time.monotonic() - self._previewed_s >= SECONDS_BETWEEN_PREVIEWS:
                self._previewed_s = time.monotonic()
                self._show(preview())

        picture = drawer.draw(self.request, self.params["prompt"], seed, watch)
        self._keep(picture, self._record(drawer, picture, seed))

    def _show(self, preview: Image.Image) -> None:
        self.preview_file.parent.mkdir(parents=True, exist_ok=True)
        staged = self.preview_file.with_suffix(".part")
        preview.save(staged, "WEBP", quality=70, method=0)
        staged.replace(self.preview_file)
        self.reporter.artefact("preview", self.preview_file)

    def _keep(self, picture: Image.Image, record: dict[str, Any]) -> None:
        """Puts the picture, its thumbnail and the event about both where they belong."""
        now = datetime.now(UTC)
        stem = f"{now:%H%M%S}-{record['seed']}-{secrets.token_hex(4)}"
        file = self.folder / f"{now:%Y-%m-%d}" / f"{stem}.png"
        thumbnail = self.folder / "thumbs" / f"{stem}.webp"
        staged, small = self.reporter.scratch / file.name, self.reporter.scratch / thumbnail.name
        # Level 1: higher ones save a tenth of the size and cost several times the time.
        picture.save(staged, "PNG", pnginfo=infotext.chunks(record), compress_level=1)
        reduced = picture.copy()
        reduced.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
        reduced.save(small, "WEBP", quality=85, method=2)
        _move(small, thumbnail)
        _move(staged, file)
        self.reporter.artefact(
            "item",
            file,
            width=picture.width,
            height=picture.height,
            prompt=self.params["prompt"],
            seed=record["seed"],
            settings=record,
        )

    def _record(self, drawer: Drawer, picture: Image.Image, seed: int) -> dict[str, Any]:
        """Everything that drew the picture; see `infotext.parameters_text` for the keys."""
        base, asked = self.params["base"], self.params.get("adapter")
        _, entry = family_of(base["id"])
        adapter = None
        if asked is not None:
            adapter = {
                "name": asked["name"],
                "sha256": asked["sha256"],
                "payload_sha256": drawer.payload_sha256,
                "weight": self.request.adapter_weight,
                "applied": drawer.report.applied,
                "total": drawer.report.total,
            }
        return {
            "made_by": f"MASUKA {__version__}",
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "request": self.request.as_dict(),
            "prompt": self.params["prompt"],
            "seed": seed,
            "width": picture.width,
            "height": picture.height,
            "base": {key: base.get(key) for key in ("id", "repo", "revision")} | {"title": entry.title},
            "family": self.family.name,
            "guidance": entry.guidance,
            "scheduler": type(drawer.pipeline.scheduler).__name__,
            "adapter": adapter,
            "device": drawer.identity.device,
            "dtype": str(drawer.identity.dtype).removeprefix("torch."),
            "noise_from": "cpu",
            "versions": _versions(),
        }


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def _move(staged: Path, file: Path) -> None:
    """Puts a finished file in its place at once, also across file systems."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if staged.stat().st_dev != file.parent.stat().st_dev:
        near = file.with_suffix(".part")
        shutil.copyfile(staged, near)
        staged.unlink()
        staged = near
    staged.replace(file)
