"""The job that fetches a LoRA from CivitAI or the Hub and takes it in as those of this machine are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from masuka.config import Settings
from masuka.errors import InvalidInput
from masuka.families import family_named, family_of
from masuka.jobs.reporter import Reporter
from masuka.models import adapter_files, civitai
from masuka.models.adapter_files import Found
from masuka.models.download import MIB, must_have_room
from masuka.models.fetch import fetch_file, plan
from masuka.models.importing import KEY

USUAL = "pytorch_lora_weights.safetensors"
"""What diffusers calls the LoRA of a repository."""
NAMES_TOLD = 3


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Fetches the file, then does what taking in a file of this machine does.

    Which base it is for its layers say; `bases` are those that it may be bound to. Raises
    InvalidInput where it is no LoRA, or for another family than was said; ExternalErrors.
    """
    file = (_from_hub if params.get("repo") else _from_civitai)(params, reporter)
    try:
        found = adapter_files.inspect(file)
        _must_be_as_said(found, params)
    except InvalidInput:
        file.unlink()
        raise
    # Reads tensors, which nothing before does.
    from masuka.training import tools

    word = params["trigger_word"] or found.trigger.partition(" ")[0]
    said = params["base"]
    fits = bool(said["id"]) and family_of(said["id"])[0].name == found.family
    base = said if fits else params["bases"][found.base]
    given = {"family": found.family, "base": base, "trigger_word": word}
    told = {"family": found.family, "base": base["id"], "trigger_word": word}
    return tools.run({**params, **given, "file": str(file)}, cast(Reporter, _Telling(reporter, told)))


class _Telling:
    """The job's reporter; what it tells of the LoRA says too what was found out about it."""

    def __init__(self, reporter: Reporter, about: Mapping[str, Any]) -> None:
        self._reporter = reporter
        self._about = about

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)

    def artefact(self, kind: str, path: Path, **about: Any) -> None:
        """Tells that the file is there."""
        self._reporter.artefact(kind, path, **{**about, **self._about})


def _must_be_as_said(found: Found, params: Mapping[str, Any]) -> None:
    if params["family"] and found.family != params["family"]:
        said, is_for = family_named(params["family"]).title, family_named(found.family).title
        raise InvalidInput(f"{params['name']} is for {is_for}, not for {said}.", "Its page says something else.")
    if found.base not in params["bases"]:
        raise InvalidInput(f"Nothing here knows the base of {params['name']}.", "Choose another one.")


def _from_civitai(params: Mapping[str, Any], reporter: Reporter) -> Path:
    asks = civitai.Civitai(
        Settings.from_environment().secrets.get(KEY, ""),
        address=params.get("address") or civitai.ADDRESS, local=params.get("local") or (),
    )  # fmt: skip
    version = asks.version(int(params["version"]))
    file = Path(params["folder"]) / version.file
    must_have_room(version.title, 2 * version.size_bytes, file.parent)
    if not file.is_file():
        reporter.stage(f"Downloading {version.title}")
        asks.fetch(version, file, _telling(reporter, version.size_bytes))
    return file


def _from_hub(params: Mapping[str, Any], reporter: Reporter) -> Path:
    wanted = plan(params["repo"], None, ("*.safetensors",), endpoint=params.get("endpoint"))
    names = [file.path for file in wanted.files]
    usual = [file for file in wanted.files if PurePosixPath(file.path).name == USUAL]
    if len(names) > 1 and len(usual) != 1:
        told = ", ".join(names[:NAMES_TOLD])
        raise InvalidInput(
            f"{params['repo']} holds {len(names)} LoRAs: {told}.",
            "Download the one that you want at its page, and bring it in the library.",
        )
    chosen = usual[0] if usual else wanted.files[0]
    folder = Path(params["folder"])
    must_have_room(params["repo"], 2 * chosen.size, folder)
    reporter.stage(f"Downloading {params['repo']}")
    fetch_file(wanted, chosen, folder, _telling(reporter, chosen.size))
    return folder / chosen.place


def _telling(reporter: Reporter, size: int) -> Callable[[int], None]:
    total = max(1, size // MIB)

    def tell(here: int) -> None:
        reporter.check()
        reporter.progress(here // MIB, total)

    return tell
