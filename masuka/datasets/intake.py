"""The job that takes pictures into a data set: decode, store, caption, report each one.

Knows the folder of the set and the pictures that are in it, not the database. Decoding is
done in the pool's processes; here is decided what becomes of each picture.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from masuka.datasets import MOST_COMPARED, doctor, pool, sources
from masuka.datasets.captions import text as captions
from masuka.datasets.decoding import shrunk
from masuka.datasets.exchange import forget_asked
from masuka.datasets.keeping import Encoded, keep, keep_staged
from masuka.datasets.layouts import TRIGGER_MARK
from masuka.datasets.ledger import Ledger, rows_of_added
from masuka.datasets.taking import PICTURE, THUMBNAIL, scores_of, take
from masuka.errors import InvalidInput, MasukaError
from masuka.jobs.reporter import Reporter
from masuka.requests.datasets import TRIGGER_SLOT
from masuka.requests.intake import given_name
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
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What `doctor` compares: the measures of the set's pictures, and of those that are new."""
    compares: bool = True
    """False where there will be too many of them."""
    added: int = 0
    duplicates: int = 0
    ignored: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)
    unlooked: bool = False
    """Whether nobody compared the new pictures with the others: there are too many."""

    def take(self, encoded: Encoded, image: Image.Image, *, name: str, caption: str | None) -> None:
        """Stores and reports one picture with its caption, unless the set has it."""
        if encoded.sha256 in self.known_sha256:
            self.duplicates += 1
            return
        small = shrunk(image)
        file = keep(encoded, small, self.folder, self.reporter.scratch)
        about = {
            "sha256": encoded.sha256, "width": encoded.width, "height": encoded.height,
            "bytes": len(encoded.data), "scores": scores_of(small, encoded),
        }  # fmt: skip
        self._report(file, about, name=name, caption=caption)

    def take_staged(self, staged: Path, about: dict[str, Any], *, name: str, caption: str | None) -> bool:
        """Whether the picture that `taking.take` left there was new; it is stored then."""
        picture, small = staged.with_suffix(f".{PICTURE}"), staged.with_suffix(f".{THUMBNAIL}")
        if about["sha256"] in self.known_sha256:
            self.duplicates += 1
            picture.unlink()
            small.unlink()
            return False
        for remark in about["remarks"]:
            self.reporter.note(f"{_shown(name)}: {remark}")
        file = keep_staged(picture, small, self.folder / f"{about['sha256'][:16]}{about['suffix']}")
        self._report(file, about, name=name, caption=caption)
        return True

    def refuse(self, name: str, error: MasukaError) -> None:
        """Puts one file on the list of those not taken, with its reason."""
        shown = _shown(name)
        self.refused.append({"name": shown, "message": error.message, "hint": error.hint})
        self.reporter.note(f"{shown}: {error}")

    def result(self) -> dict[str, Any]:
        """What the job gives back; with `unlooked` the studio has the set looked at next."""
        return {
            "added": self.added,
            "duplicates": self.duplicates,
            "ignored": self.ignored,
            "refused": self.refused,
            **({"unlooked": True} if self.unlooked else {}),
        }

    def _report(self, file: Path, about: dict[str, Any], *, name: str, caption: str | None) -> None:
        text, caption_from = self._caption(name, caption)
        self.known_sha256.add(about["sha256"])
        if self.compares:
            self.rows.append(row_of(about))
        self.added += 1
        self.reporter.artefact(
            "picture", file, original_name=_file_name(name), sha256=about["sha256"], width=about["width"],
            height=about["height"], bytes=about["bytes"], caption=text, caption_from=caption_from,
            scores=about["scores"],
        )  # fmt: skip

    def _caption(self, name: str, text: str | None) -> tuple[str, str]:
        """The caption, and where it is from."""
        if text:
            try:
                text = text.replace(TRIGGER_MARK, TRIGGER_SLOT)
                return captions.written_caption(text, self.trigger_word, self.class_word), "file"
            except InvalidInput as error:
                hint = f"{error.hint} The picture got the template's caption."
                self.refuse(f"caption of {given_name(name)}", InvalidInput(error.message, hint))
        filled = captions.fill_template(self.caption_template, self.trigger_word, self.class_word)
        return filled, "template"


def row_of(about: dict[str, Any]) -> dict[str, Any]:
    """The part of what is known of a picture that `doctor` asks for."""
    return {name: about[name] for name in ("sha256", "scores", "width", "height")}


def intake_of(params: dict[str, Any], reporter: Reporter) -> Intake:
    """The intake that a job's params describe; makes the set's folder."""
    folder = Path(params["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    known = _known(params.get("rows", ""))
    return Intake(
        folder=folder,
        reporter=reporter,
        trigger_word=params["trigger_word"],
        class_word=params["class_word"],
        caption_template=params["caption_template"],
        known_sha256=set(params.get("known_sha256", ())) | {row["sha256"] for row in known},
        rows=[row for row in known if "scores" in row],
    )


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Counts of pictures added and known, and each refused file with its reason.

    Only a file that the person can do something about is refused by name; the others of
    the same lot are taken. An attempt that follows a lost one goes on behind what that
    one did. Raises OutOfDisk, and Stop between two pictures.
    """
    intake = intake_of(params, reporter)
    reporter.stage("Looking for pictures")
    offers = sources.find(params["sources"], reporter.check, scratch=reporter.scratch)
    try:
        intake.ignored = offers.ignored
        for name, error in offers.refused:
            intake.refuse(name, error)
        _take_all(offers, intake, params)
    finally:
        offers.close()
    look(intake, params)
    if params.get("forget_sources"):
        _forget(params["sources"], offers.files)
    forget_asked(params)
    return intake.result()


def _known(file: str) -> list[dict[str, Any]]:
    """The set's pictures as the studio wrote them down; [] where that is gone.

    Without it files are only decoded in vain: the database knows a picture that it has.
    """
    if not file or not Path(file).is_file():
        return []
    with Path(file).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def look(intake: Intake, params: dict[str, Any]) -> None:
    """Tells what is wrong with the set as it is now; a large one is left alone."""
    if not intake.added:
        return
    # What other imports added since this one was asked for is compared too.
    for row in rows_of_added(intake.folder):
        if row["sha256"] not in intake.known_sha256:
            intake.known_sha256.add(row["sha256"])
            intake.rows.append(row)
    total = len(intake.known_sha256)
    if len(intake.rows) < total or total > MOST_COMPARED:
        intake.unlooked = True
        intake.reporter.note("So large a set is looked through by a job of its own.")
        return
    intake.reporter.stage("Looking for copies and flaws")
    found = doctor.examine(
        intake.rows,
        strictness=params.get("strictness", "basic"),
        class_word=intake.class_word,
        resolution_px=int(params.get("resolution_px", 0)),
        thumbnail=doctor.thumbnails_in(intake.folder),
        check=intake.reporter.check,
    )
    intake.reporter.tell("findings", rows=found, looked=[row["sha256"] for row in intake.rows])


def _forget(given: Sequence[str], files: Sequence[Path]) -> None:
    """Deletes the files that were looked at, and the folders that are empty then."""
    for file in files:
        file.unlink(missing_ok=True)
    for source in (Path(s) for s in given):
        if source.is_dir() and not source.is_symlink():
            for folder, _, _ in os.walk(source, topdown=False):
                with contextlib.suppress(OSError):  # something that nobody looked at is left in it
                    Path(folder).rmdir()


def _take_all(offers: sources.Offers, intake: Intake, params: dict[str, Any]) -> None:
    reporter = intake.reporter
    reporter.stage("Adding pictures")
    total = len(offers.pictures)
    intake.compares = len(intake.known_sha256) + total <= MOST_COMPARED
    if total == 0 and not offers.refused:
        intake.refuse("", InvalidInput("No picture was found.", "Add PNG, JPEG or WebP pictures."))
    ledger = Ledger(intake.folder, params.get("token", ""))
    left = [offer for offer in offers.pictures if offer.key not in ledger.earlier]
    for line in (ledger.earlier[o.key] for o in offers.pictures if o.key in ledger.earlier):
        _count_again(line, intake)
    known = reporter.scratch / f"known-{os.getpid()}-{id(intake)}.txt"
    known.write_text("\n".join(intake.known_sha256 | ledger.sources_of(intake.known_sha256)))
    staged = [reporter.scratch / f"{number:06}" for number in range(len(left))]
    items = (_item(offer, place, known) for offer, place in zip(left, staged, strict=True))
    results = pool.each(take, items, reporter=reporter, processes=params.get("processes"))
    with contextlib.closing(results):
        for number, (offer, place, result) in enumerate(zip(left, staged, results, strict=True), start=1):
            reporter.check()
            _settle(offer, place, result, intake, ledger)
            reporter.progress(total - len(left) + number, total)
    known.unlink()


def _item(offer: sources.Offer, staged: Path, known: Path) -> pool.Item:
    about: dict[str, Any] = {"staged": str(staged), "known": str(known)}
    if offer.path is not None:
        return {**about, "file": str(offer.path)}
    try:
        return {**about, "data": offer.read()}
    except InvalidInput as error:
        return error


def _settle(offer: sources.Offer, staged: Path, result: pool.Result, intake: Intake, ledger: Ledger) -> None:
    if isinstance(result, MasukaError):
        if not isinstance(result, InvalidInput):
            raise result
        intake.refuse(offer.name, result)
        ledger.add(key=offer.key, what="refused", row=intake.refused[-1])
        return
    if result["known"]:
        intake.duplicates += 1
        ledger.add(key=offer.key, what="duplicate", source=result["source"])
        return
    caption = offer.caption
    if caption and offer.trigger_word:
        caption = captions.change_trigger(caption, offer.trigger_word, intake.trigger_word)
    new = intake.take_staged(staged, result, name=offer.name, caption=caption)
    what = "added" if new else "duplicate"
    row = row_of(result) if new and intake.compares else None
    ledger.add(key=offer.key, what=what, source=result["source"], sha256=result["sha256"], row=row)


def _count_again(line: dict[str, Any], intake: Intake) -> None:
    """Counts what an earlier attempt of this job has done."""
    if line["what"] == "refused":
        intake.refused.append(line["row"])
    elif line["what"] == "duplicate":
        intake.duplicates += 1
    else:
        intake.added += 1
        if line["row"] and intake.compares:
            intake.rows.append(line["row"])
    if line["sha256"]:
        intake.known_sha256.add(line["sha256"])


def _shown(name: str) -> str:
    return given_name(without_control(name))[:SHOWN_NAME_CHARS]


def _file_name(name: str) -> str:
    try:
        return clean_filename(PurePosixPath(name).name)
    except InvalidInput:
        return "picture"
