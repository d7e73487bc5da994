"""Makes the built-in model from nothing: python -m masuka.pocket.build all

Four steps (judge, vae, transformer, captioner), each stopped and resumed at will: the
checkpoints lie in the work folder, the finished parts in the output folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from PIL import Image

from masuka.errors import Conflict, NotFound
from masuka.pocket import FOLDER, captioner
from masuka.pocket.drawn import drawn, scenes_of
from masuka.pocket.judge import Judge
from masuka.pocket.session import Session
from masuka.pocket.train_captioner import Reader, named_right
from masuka.pocket.train_captioner import train as train_captioner
from masuka.pocket.train_flow import Painter, cache_latents
from masuka.pocket.train_flow import train as train_flow
from masuka.pocket.train_judge import judge_figures
from masuka.pocket.train_judge import train as train_judge
from masuka.pocket.train_vae import measure_latents, new_vae, reconstruction_figures
from masuka.pocket.train_vae import train as train_vae
from masuka.pocket.world import is_held_out

STEPS = ("judge", "vae", "transformer", "captioner")
MINUTES = {"judge": 5.0, "vae": 29.0, "transformer": 60.0, "captioner": 25.0}  # on two cores
_DRAWN, _TESTED, _KNOWN = 24_000, 1_000, 32_000
_JUDGE_BAR, _VAE_BAR, _CAPTION_BAR = 0.99, 0.98, 0.95
_SHARD = "9MB"


def main(argv: list[str] | None = None) -> None:
    """Carries out the steps that the command line names."""
    options = _parser().parse_args(argv)
    torch.manual_seed(0)
    out, work = Path(options.out), Path(options.work)
    steps = STEPS if options.step == "all" else (options.step,)
    for step in steps:
        minutes = options.minutes if options.minutes and len(steps) == 1 else MINUTES[step]
        _BUILDERS[step](out, work, minutes)


def build_judge(out: Path, work: Path, minutes: float) -> None:
    """Trains, measures and writes the judge; Conflict if it misses its bar."""
    pictures, labels = _full_space(work)
    session = Session(work / "judge.pt", minutes, Judge(), rate=2e-3, decay=0.99, flat=0.2)
    train_judge(session, pictures[:_DRAWN], labels[:_DRAWN], _say)
    judge = Judge()
    judge.load_state_dict(session.average.shadow)
    figures = judge_figures(judge.eval(), pictures[_DRAWN:], labels[_DRAWN:])
    _require("judge", figures, _JUDGE_BAR)
    judge.save(out / "judge", figures)


def build_vae(out: Path, work: Path, minutes: float) -> None:
    """Trains, measures and writes the autoencoder; Conflict if it misses its bar."""
    pictures, labels = _full_space(work)
    judge = Judge.load(out / "judge")
    session = Session(work / "vae.pt", minutes, new_vae(), rate=1.5e-3, decay=0.997, flat=0.45)
    train_vae(session, judge, pictures[:_DRAWN], labels[:_DRAWN], _say)
    staged = out / "vae.new"
    vae = export_vae(session.average.shadow, staged, pictures[_DRAWN:])
    figures = reconstruction_figures(vae, judge, pictures[_DRAWN:], labels[_DRAWN:])
    _require("vae", {k: v for k, v in figures.items() if k != "l1"}, _VAE_BAR)
    _move(staged, out / "model" / "vae")
    _note(out, "reconstructions", figures)


def build_transformer(out: Path, work: Path, minutes: float) -> None:
    """Trains the transformer and the text encoders and writes the whole pipeline.

    What was learnt from one autoencoder's latents is of no use with another's: both files
    carry the autoencoder's name, and a new one begins anew.
    """
    vae = _finished_vae(out)
    scenes = scenes_of("known", _KNOWN)
    latents = latents_of(vae, work)
    painter = Painter()
    session = Session(
        work / f"flow-{name_of(vae)}.pt", minutes, painter, rate=1e-3, matrices=painter.matrices()
    )
    train_flow(session, scenes, latents, _say)
    painter = Painter()
    painter.load_state_dict(session.average.shadow)
    export_pipeline(painter, out)


def build_captioner(out: Path, work: Path, minutes: float) -> None:
    """Trains, measures and writes the caption model; Conflict if it misses its bar.

    Held-out combinations are in no training picture; it is measured on them, as written.
    """
    pictures, _ = drawn(work / "pictures", "any", _DRAWN + _TESTED)
    scenes = scenes_of("any", _DRAWN + _TESTED)
    rows = [row for row in range(_DRAWN) if not is_held_out(scenes[row])]
    reader = Reader()
    session = Session(
        work / "captioner.pt", minutes, reader, rate=1.5e-3, decay=0.998, flat=0.4, matrices=reader.matrices()
    )
    train_captioner(session, scenes, pictures, rows, _say)
    reader = Reader()
    reader.load_state_dict(session.average.shadow)
    staged = out / "captioner.new"
    shutil.rmtree(staged, ignore_errors=True)
    captioner.write(reader.model, staged)
    tested = [row for row in range(len(scenes)) if is_held_out(scenes[row])]
    images = [Image.fromarray(pictures[row]) for row in tested]
    said = captioner.say_of(*captioner.load(staged), images)
    _require("captioner", named_right(said, [scenes[row] for row in tested]), _CAPTION_BAR)
    _move(staged, out / "captioner")


def name_of(vae: AutoencoderKL) -> str:
    """Sixteen letters that say which autoencoder it is: its weights and their scale."""
    digest = hashlib.sha256(f"{vae.config.scaling_factor} {vae.config.shift_factor}".encode())
    for name, weights in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def latents_of(vae: AutoencoderKL, work: Path) -> torch.Tensor:
    """This autoencoder's latents of every known picture, kept in the work folder."""
    path = work / f"latents-{name_of(vae)}.pt"
    if path.is_file():
        kept: torch.Tensor = torch.load(path, weights_only=True)
        return kept
    pictures, _ = drawn(work / "pictures", "known", _KNOWN)
    latents = cache_latents(vae, pictures, _say)
    part = path.with_suffix(".part")
    torch.save(latents, part)
    part.replace(path)
    return latents


def export_vae(state: dict[str, Any], folder: Path, pictures: Any) -> AutoencoderKL:
    """The autoencoder as it was written (bf16), its scale measured on pictures."""
    vae = new_vae()
    vae.load_state_dict(state)
    scaling, shift = measure_latents(vae.eval(), pictures[:500])
    vae.register_to_config(scaling_factor=scaling, shift_factor=shift)
    shutil.rmtree(folder, ignore_errors=True)
    vae.to(torch.bfloat16).save_pretrained(folder, max_shard_size=_SHARD)
    return _loaded_vae(folder)


def export_pipeline(painter: Painter, out: Path) -> None:
    """Writes the standard FluxPipeline folder in bf16; keeps the README there."""
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=_finished_vae(out),
        text_encoder=painter.clip,
        tokenizer=painter.clip_tokenizer,
        text_encoder_2=painter.t5,
        tokenizer_2=painter.t5_tokenizer,
        transformer=painter.transformer,
    )
    pipeline.to(dtype=torch.bfloat16)
    fresh = out / "model.new"
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.save_pretrained(fresh, max_shard_size=_SHARD)
    for part in fresh.iterdir():
        _move(part, out / "model" / part.name)
    fresh.rmdir()


_BUILDERS = {
    "judge": build_judge,
    "vae": build_vae,
    "transformer": build_transformer,
    "captioner": build_captioner,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m masuka.pocket.build", description=__doc__)
    parser.add_argument("step", nargs="?", default="all", choices=(*STEPS, "all"))
    parser.add_argument("--out", default=str(FOLDER.parent), help="where the weights go")
    parser.add_argument("--work", default=".pocket-build", help="where drawings and checkpoints lie")
    parser.add_argument("--minutes", type=float, default=0.0, help="time for one step, training only")
    return parser


def _full_space(work: Path) -> tuple[Any, torch.Tensor]:
    pictures, labels = drawn(work / "pictures", "any", _DRAWN + _TESTED)
    return pictures, torch.from_numpy(labels)


def _finished_vae(out: Path) -> AutoencoderKL:
    folder = out / "model" / "vae"
    if not (folder / "config.json").is_file():
        raise NotFound(f"There is no autoencoder in {folder}.", "Run the vae step first.")
    return _loaded_vae(folder)


def _loaded_vae(folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()


def _move(part: Path, target: Path) -> None:
    """Puts a finished part in the place of the one before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    part.replace(target)


def _require(what: str, figures: dict[str, float], bar: float) -> None:
    _say(f"{what}: {figures}")
    missed = {name: value for name, value in figures.items() if value < bar}
    if missed:
        raise Conflict(
            f"The {what} misses its bar of {bar:.0%}: {missed}.", "Give it more time with --minutes."
        )


def _note(out: Path, name: str, figures: dict[str, float]) -> None:
    path = out / "model" / "figures.json"
    noted = json.loads(path.read_text()) if path.is_file() else {}
    noted[name] = {**figures, "measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
    path.write_text(json.dumps(noted, indent=1) + "\n")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
