"""The job that takes pictures into a data set: decode, store, caption, report each one.

Knows the folder of the set and the pictures that are in it, not the database.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from masuka.datasets import sources
from masuka.datasets.captions import text as captions
from masuka.datasets.decoding import decode
from masuka.datasets.keeping import Encoded, encode, keep
from masuka.errors import InvalidInput
from masuka.jobs.reporter import Reporter
from masuka.requests.text import clean_filename, without_control

SHOWN_NAME_CHARS = 255


@dataclass
class Intake:
    """The set that pictures go into, and what has become of those offered so far."""

    folder: Path
    reporter: Reporter
    trigger_word: str
    class_word: str
    caption_template: str
    known_sha256: set[str] = field(default_factory=set)
    added: int = 0
    duplicates: int = 0
    ignored: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)

    def take(self, encoded: Encoded, image: Image.Image, *, name: str, caption: str | None) -> None:
        """Stores and reports one picture with its caption, unless the set has it."""
        if encoded.sha256 in self.known_sha256:
            self.duplicates += 1
            return
        text = self._caption(name, caption)
        file = keep(encoded, image, self.folder, self.reporter.scratch)
        self.known_sha256.add(encoded.sha256)
        self.added += 1
        self.reporter.artefact(
            "picture", file, original_name=_file_name(name), sha256=encoded.sha256, width=encoded.width,
            height=encoded.height, bytes=len(encoded.data), caption=text,
        )  # fmt: skip

    def refuse(self, name: str, error: InvalidInput) -> None:
        """Puts one file on the list of those not taken, with its reason."""
        shown = without_control(name)[:SHOWN_NAME_CHARS]
        self.refused.append({"name": shown, "message": error.message, "hint": error.hint})
        self.reporter.note(f"{shown}: {error}")

    def result(self) -> dict[str, Any]:
        """What the job gives back."""
        return {
            "added": self.added,
            "duplicates": self.duplicates,
            "ignored": self.ignored,
            "refused": self.refused,
        }

    def _caption(self, name: str, text: str | None) -> str:
        if text:
            try:
                return captions.written_caption(text, self.trigger_word, self.class_word)
            except InvalidInput as error:
                hint = f"{error.hint} The picture got the template's caption."
                self.refuse(f"caption of {name}", InvalidInput(error.message, hint))
        return captions.fill_template(self.caption_template, self.trigger_word, self.class_word)


def intake_of(params: dict[str, Any], reporter: Reporter) -> Intake:
    """The intake that a job's params describe; makes the set's folder."""
    folder = Path(params["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    return Intake(
        folder=folder,
        reporter=reporter,
        trigger_word=params["trigger_word"],
        class_word=params["class_word"],
        caption_template=params["caption_template"],
        known_sha256=set(params.get("known_sha256", ())),
    )


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Counts of pictures added and known, and each refused file with its reason.

    Only a file that the person can do something about is refused by name; the others of
    the same lot are taken. Raises OutOfDisk, and Stop between two pictures.
    """
    intake = intake_of(params, reporter)
    reporter.stage("Looking for pictures")
    offers = sources.find(params["sources"], reporter.check)
    try:
        intake.ignored = offers.ignored
        for name, error in offers.refused:
            intake.refuse(name, error)
        _take_all(offers, intake)
    finally:
        offers.close()
    if params.get("forget_sources"):
        _forget(params["sources"], offers.files)
    return intake.result()


def _forget(given: Sequence[str], files: Sequence[Path]) -> None:
    """Deletes the files that were looked at, and the folders that are empty then."""
    for file in files:
        file.unlink(missing_ok=True)
    for source in (Path(s) for s in given):
        if source.is_dir() and not source.is_symlink():
            for folder, _, _ in os.walk(source, topdown=False):
                with contextlib.suppress(OSError):  # something that nobody looked at is left in it
                    Path(folder).rmdir()


def _take_all(offers: sources.Offers, intake: Intake) -> None:
    reporter = intake.reporter
    reporter.stage("Adding pictures")
    total = len(offers.pictures)
    for number, offer in enumerate(offers.pictures, start=1):
        reporter.check()
        try:
            _take(offer, intake)
        except InvalidInput as error:
            intake.refuse(offer.name, error)
        reporter.progress(number, total)
    if total == 0 and not offers.refused:
        intake.refuse("", InvalidInput("No picture was found.", "Add PNG, JPEG or WebP pictures."))


def _take(offer: sources.Offer, intake: Intake) -> None:
    data = offer.read()
    if hashlib.sha256(data).hexdigest() in intake.known_sha256:  # spares decoding what was exported here
        intake.duplicates += 1
        return
    decoded = decode(data)
    for remark in decoded.remarks:
        intake.reporter.note(f"{without_control(offer.name)[:SHOWN_NAME_CHARS]}: {remark}")
    caption = offer.caption
    if caption and offer.trigger_word:
        caption = captions.change_trigger(caption, offer.trigger_word, intake.trigger_word)
    intake.take(encode(decoded), decoded.image, name=offer.name, caption=caption)


def _file_name(name: str) -> str:
    try:
        return clean_filename(PurePosixPath(name).name)
    except InvalidInput:
        return "picture"
