"""The job that makes a base of what a person brings: a folder, a single file, a CivitAI version.

Everything is read as safetensors and JSON, nothing is asked of a net but the file itself:
a single file takes its configurations and tokenizers from an installed base of its kind.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from masuka.config import Settings
from masuka.errors import InvalidInput
from masuka.families import family_of
from masuka.jobs.reporter import Reporter
from masuka.models import civitai, recognising
from masuka.models.catalogue import FINISHED, digest_of, index_of, parts_in, size_bytes
from masuka.models.download import MIB, alone, finish, must_have_room
from masuka.models.fetch import RemoteFile
from masuka.models.files import IN_FULL, has_weights, pipeline_files
from masuka.models.search import must_need_no_code

PIECE_BYTES = 2**22
_WHOLE = frozenset({"vae", "text"})
KEY = "CIVITAI_API_KEY"


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Puts a base together in its place in the workspace.

    `how` is 'copy' or 'link' for a diffusers folder, 'file' for a single safetensors file,
    'civitai' for one that is fetched first. Returns {folder, bytes}. Raises InvalidInput
    for what is not what it was taken for, OutOfDisk, ExternalErrors, Conflict.
    """
    place = Path(params["place"])
    with alone(place):
        if not (place / FINISHED).is_file():
            place.mkdir(parents=True, exist_ok=True)
            about = _ways()[params["how"]](params, place, reporter)
            finish(place, {**about, "bytes": size_bytes(place), "source": params["said"]})
            if params.get("forget"):
                Path(params["source"]).unlink()
    return {"folder": str(place), "bytes": size_bytes(place)}


def local_files(folder: Path) -> list[RemoteFile]:
    """The files of a folder on this machine, as those of a repository are listed."""
    found = [file for file in folder.rglob("*") if file.is_file()]
    return [RemoteFile(f.relative_to(folder).as_posix(), f.stat().st_size, "", "") for f in found]


def chosen_in(folder: Path) -> tuple[RemoteFile, ...]:
    """What of the folder is a base.

    Raises InvalidInput where its weights are pickles or missing, or it needs code.
    """
    index = index_of(folder)
    found = recognising.of_folder(folder)
    assert index is not None
    read = json.loads(index.read_text(encoding="utf-8"))
    must_need_no_code(folder.name, read)
    chosen = pipeline_files(local_files(folder), parts_in(read))
    for part in (found.family.denoiser_part, IN_FULL):
        if part in parts_in(read) and not has_weights(chosen, part):
            raise InvalidInput(
                f"{folder.name}/{part} has no safetensors.",
                "Only safetensors are taken: other files can run code when they are opened.", field="path",
            )  # fmt: skip
    return chosen


def _ways() -> dict[str, Callable[[dict[str, Any], Path, Reporter], dict[str, Any]]]:
    return {"copy": _copied, "link": _linked, "file": _converted, "civitai": _fetched}


def _copied(params: dict[str, Any], place: Path, reporter: Reporter) -> dict[str, Any]:
    source = Path(params["source"])
    chosen = chosen_in(source)
    must_have_room(source.name, sum(file.size for file in chosen), place)
    reporter.stage(f"Copying {source.name}")
    hashes, total, done = {}, sum(file.size for file in chosen), 0
    for file in chosen:
        to = place / file.place
        to.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with to.open("wb") as out:
            for piece in _pieces(source / file.path):
                reporter.check()
                out.write(piece)
                digest.update(piece)
                done += len(piece)
                reporter.progress(done // MIB, max(1, total // MIB))
        hashes[file.place] = digest.hexdigest()
    return {"files": hashes}


def _linked(params: dict[str, Any], place: Path, reporter: Reporter) -> dict[str, Any]:
    """Leaves the files where they are; what they hold is written down."""
    source = Path(params["source"])
    chosen = chosen_in(source)
    renamed = [file.path for file in chosen if file.to and file.to != file.path]
    if renamed:
        raise InvalidInput(
            f"{source.name} has its weights under another name ({Path(renamed[0]).name}).",
            "Copy it instead: the copy gets the names that are looked for.", field="path",
        )  # fmt: skip
    reporter.stage(f"Checking {source.name}")
    total = sum(file.size for file in chosen)
    hashes, done = {}, 0
    for file in chosen:
        hashes[file.path] = _sha256(source / file.path, reporter, done, total)
        done += file.size
    return {"files": hashes, "linked": str(source)}


def _fetched(params: dict[str, Any], place: Path, reporter: Reporter) -> dict[str, Any]:
    """The file from CivitAI first; what it really is decides its header."""
    asks = civitai.Civitai(
        Settings.from_environment().secrets.get(KEY, ""),
        address=params.get("address") or civitai.ADDRESS, local=params.get("local") or (),
    )  # fmt: skip
    version = asks.version(int(params["version"]))
    must_have_room(version.title, 2 * version.size_bytes, place)
    file = place / version.file
    if not file.is_file():
        reporter.stage(f"Downloading {version.title}")
        total = max(1, version.size_bytes // MIB)

        def tell(here: int) -> None:
            reporter.check()
            reporter.progress(here // MIB, total)

        asks.fetch(version, file, tell)
    try:
        about = _converted({**params, "source": str(file)}, place, reporter)
    except InvalidInput:
        file.unlink()
        raise
    file.unlink()
    return {**about, "repo": f"civitai:{version.id}"}


def _converted(params: dict[str, Any], place: Path, reporter: Reporter) -> dict[str, Any]:
    """The single file as a diffusers folder, completed from the installed base of its kind."""
    file, donor = Path(params["source"]), Path(params["donor"])
    found = recognising.of_file(file)
    wanted, entry = family_of(params["id"])
    if found.family.name != wanted.name:
        raise InvalidInput(
            f"{file.name} is made for {found.family.title}, not for {wanted.title}.",
            "Choose the file again; it is taken for what it is.",
        )
    must_have_room(file.name, file.stat().st_size, place)
    reporter.stage("Checking the file")
    sha256 = _sha256(file, reporter, 0, file.stat().st_size)
    index_file = index_of(donor)
    assert index_file is not None
    index = json.loads(index_file.read_text(encoding="utf-8"))
    reporter.stage("Turning it into a folder")
    part = found.family.denoiser_part
    own = {part}
    if found.parts >= _WHOLE:
        # A replacement of the VAE is kept: the file's own one overflows in fp16.
        own |= {name for name in index if name.startswith("text_encoder") and index[name][0]}
        own |= set() if entry.autoencoder_repo else {IN_FULL}
    _save_parts(file, donor, place, index, part, own, reporter)
    reporter.stage("Completing it")
    for name in parts_in(index):
        if name not in own:
            _hard_linked(donor / name, place / name)
    _hard_linked(index_file, place / index_file.name)
    donor_note = json.loads((donor / FINISHED).read_text()) if (donor / FINISHED).is_file() else {}
    return {"files": {file.name: sha256, "completed from": digest_of(donor_note)}}


def _save_parts(
    file: Path, donor: Path, place: Path, index: dict[str, Any], denoiser: str, own: set[str], reporter: Reporter
) -> None:
    import diffusers

    from masuka.models.loading import quiet_libraries

    quiet_libraries()
    options: dict[str, Any] = {
        "config": str(donor), "local_files_only": True, "torch_dtype": _dtype(file, denoiser),
    }  # fmt: skip
    if own == {denoiser}:
        kind = getattr(diffusers, index[denoiser][1])
        parts = {denoiser: kind.from_single_file(str(file), subfolder=denoiser, **options)}
    else:
        pipeline = getattr(diffusers, index["_class_name"]).from_single_file(str(file), **options)
        parts = {name: getattr(pipeline, name) for name in sorted(own)}
        del pipeline
    for number, name in enumerate(sorted(own), start=1):
        reporter.check()
        parts.pop(name).save_pretrained(place / name, safe_serialization=True)
        gc.collect()
        reporter.progress(number, len(own))


def _dtype(file: Path, denoiser: str) -> Any:
    """Half precision: the file's own, else what models with this denoiser are published in."""
    import torch

    formats = {str(about.get("dtype")) for about in recognising.header_of(file).values()}
    if "BF16" in formats or denoiser == "transformer":
        return torch.bfloat16
    return torch.float16


def _hard_linked(source: Path, to: Path) -> None:
    """The same file under another name, or a copy where the disk knows no second names."""
    if source.is_dir():
        for file in source.rglob("*"):
            if file.is_file():
                _hard_linked(file, to / file.relative_to(source))
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), to)
    except OSError:
        shutil.copyfile(source, to)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece


def _sha256(file: Path, reporter: Reporter, before: int, total: int) -> str:
    digest = hashlib.sha256()
    done = before
    for piece in _pieces(file):
        reporter.check()
        digest.update(piece)
        done += len(piece)
        reporter.progress(done // MIB, max(1, total // MIB))
    return digest.hexdigest()
