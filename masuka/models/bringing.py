"""The job that fetches a LoRA from CivitAI and takes it in as those of this machine are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from masuka.config import Settings
from masuka.errors import InvalidInput
from masuka.families import family_named
from masuka.jobs.reporter import Reporter
from masuka.models import adapter_files, civitai
from masuka.models.download import MIB, must_have_room
from masuka.models.importing import KEY


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Fetches the version's file, then does what taking in a file of this machine does.

    Raises InvalidInput where the file is no LoRA, or for another family than was said.
    """
    asks = civitai.Civitai(
        Settings.from_environment().secrets.get(KEY, ""),
        address=params.get("address") or civitai.ADDRESS, local=params.get("local") or (),
    )  # fmt: skip
    version = asks.version(int(params["version"]))
    file = Path(params["file"])
    must_have_room(version.title, 2 * version.size_bytes, file.parent)
    if not file.is_file():
        reporter.stage(f"Downloading {version.title}")
        total = max(1, version.size_bytes // MIB)

        def tell(here: int) -> None:
            reporter.check()
            reporter.progress(here // MIB, total)

        asks.fetch(version, file, tell)
    try:
        found = adapter_files.inspect(file)
        if found.family != params["family"]:
            said, is_for = family_named(params["family"]).title, family_named(found.family).title
            raise InvalidInput(f"{version.title} is for {is_for}, not for {said}.", "Its page there says something else.")
    except InvalidInput:
        file.unlink()
        raise
    # Reads tensors, which nothing before does.
    from masuka.training import tools

    return tools.run(params, reporter)
