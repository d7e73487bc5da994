"""The job in which a captioner writes captions: in batches, told as they come, never twice.

What was said of each picture is kept in the job's folder, so that a job that was
interrupted asks only about what is left.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from masuka.datasets.captions.asked import read_asked
from masuka.datasets.captions.captioners import Speaker, Wish, captioner_named, loaded
from masuka.datasets.captions.loading import small
from masuka.datasets.captions.wording import Rules, compose, settled
from masuka.datasets.edits import Recipe
from masuka.datasets.rendered import rendered
from masuka.errors import (
    AccessDenied,
    ExternalError,
    InvalidInput,
    MasukaError,
    OutOfMemory,
    RemoteUnavailable,
)
from masuka.jobs.reporter import Reporter
from masuka.models import loading

KEPT = "captions.said"
"""In the job's folder: what was said so far, one picture a line. Attempts sweep up .jsonl files."""
_FATAL = (OutOfMemory, AccessDenied)
"""What is wrong with every picture alike, so that asking about the next one helps nobody."""
_GIVES_UP_AFTER = 5
"""So many pictures in a row without an answer, and the service is down."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Said:
    """What a captioner said of a picture, or why it could not.

    `caption` is what was told to the studio.
    """

    picture_id: int
    text: str = ""
    problem: str = ""
    caption: str = ""
    unanswered: bool = False


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Captions the pictures in the file `asked`; returns {captioned, failed, skipped}.

    Raises the captioner's error where nothing could be written at all, OutOfMemory where
    one picture is too much, NotFound where that was lost, and Stop between two batches.
    """
    return _Writing(params, reporter).run()


class _Writing:
    """One attempt of the job."""

    def __init__(self, params: dict[str, Any], reporter: Reporter) -> None:
        self.params, self.reporter = params, reporter
        self.entry = captioner_named(params["captioner"])
        self.rules = Rules(
            params["style"], params["trigger_word"], params["class_word"], tuple(params["constant"])
        )
        asked = read_asked(Path(params["asked"]), params["token"])
        self.pictures: dict[int, Mapping[str, Any]] = {p["id"]: p for p in asked.pictures}
        self.others = asked.others
        self.unanswered = 0
        self.file = reporter.scratch.parent / KEPT
        # What a service did not answer is asked again; what it refused is not.
        self.said = {
            s.picture_id: s for s in _read(self.file) if s.picture_id in self.pictures and not s.unanswered
        }

    def run(self) -> dict[str, Any]:
        before = len(self.said)
        left = [picture for id, picture in self.pictures.items() if id not in self.said]
        if left:
            self.reporter.stage(f"Loading {self.entry.title}")
            self.reporter.check()
            try:
                self._write(loaded(self.entry, self.params, self.reporter.check), left, before)
            finally:
                loading.free_memory()
        if self.params["consistent"]:
            self._settle()
        failed = sum(bool(said.problem) for said in self.said.values())
        self._must_have_worked(failed)
        return {"captioned": len(self.said) - failed, "failed": failed, "skipped": before}

    def _write(self, speaker: Speaker, left: Sequence[Mapping[str, Any]], before: int) -> None:
        wish = Wish(self.rules.style, self.rules.class_word, self.rules.constant)
        self.reporter.stage("Writing captions")
        self.reporter.progress(before, len(self.pictures))
        for batch in _batches(left, speaker.batch):
            self.reporter.check()
            for said in self._ask(speaker, batch, wish):
                self._keep(said)
                self._must_answer(said)
            self.reporter.progress(len(self.said), len(self.pictures))

    def _ask(self, speaker: Speaker, batch: Sequence[Mapping[str, Any]], wish: Wish) -> Iterator[Said]:
        """What is said of each picture; one that fails does not take its neighbours along."""
        images: list[tuple[int, Image.Image]] = []
        for picture in batch:
            try:
                images.append((picture["id"], _opened(picture)))
            except MasukaError as error:
                yield _failed(picture["id"], error)
        if not images:
            return
        try:
            texts = speaker.say([image for _, image in images], wish)
        except Exception as error:  # each captioner's libraries have their own
            failure = self._failure(error)
            if len(images) == 1:
                if isinstance(failure, _FATAL):
                    raise failure from error
                yield _failed(images[0][0], failure)
                return
            log.warning("%s: %s; asking one by one", type(error).__name__, error)
            for picture in [self.pictures[id] for id, _ in images]:
                self.reporter.check()
                yield from self._ask(speaker, [picture], wish)
            return
        for (id, _), text in zip(images, texts, strict=True):
            if isinstance(text, _FATAL):
                raise text
            yield _failed(id, text) if isinstance(text, MasukaError) else self._composed(id, text)

    def _composed(self, id: int, text: str) -> Said:
        if not text:
            return Said(id, problem=f"{self.entry.title} had nothing to say about this picture.")
        try:
            return Said(id, text, caption=compose(text, self.rules, partial=self.pictures[id]["partial"]))
        except InvalidInput as error:
            return Said(id, text, problem=str(error))

    def _failure(self, error: Exception) -> MasukaError:
        shortage = loading.as_out_of_memory(error, "Close other programs, or choose a smaller captioner.")
        if shortage is not None:
            loading.free_memory()
            return shortage
        if isinstance(error, MasukaError):
            return error
        log.error("a picture could not be captioned", exc_info=error)
        return MasukaError(
            f"{self.entry.title} failed at this picture ({type(error).__name__}).", "Try it again."
        )

    def _keep(self, said: Said) -> None:
        self.said[said.picture_id] = said
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(said)) + "\n")
        # What a person typed since the job was asked for stays; nothing would bring it back.
        was = self.pictures[said.picture_id].get("was")
        self._tell(said.picture_id, None if said.problem else said.caption, said.problem, was=was)

    def _tell(self, id: int, caption: str | None, problem: str = "", *, was: str | None = None) -> None:
        self.reporter.tell(
            "caption", picture_id=id, caption=caption, caption_from=self.entry.name, problem=problem, was=was
        )

    def _settle(self) -> None:
        """One word for one thing in the whole set; what a person changed meanwhile stays."""
        self.reporter.stage("Choosing one wording")
        written = {id: said.caption for id, said in self.said.items() if said.caption}
        even = settled(
            written,
            self.others,
            self.entry.synonyms,
            trigger_word=self.params["trigger_word"],
        )
        for id, caption in even.items():
            if caption != written[id]:
                self._tell(id, caption, was=written[id])

    def _must_have_worked(self, failed: int) -> None:
        """Raises where no picture got a caption: that is no success with remarks."""
        if failed and failed == len(self.said):
            problem = next(said.problem for said in self.said.values() if said.problem)
            raise ExternalError("No caption could be written.", problem)

    def _must_answer(self, said: Said) -> None:
        """Raises RemoteUnavailable where a service has not answered about picture after picture."""
        self.unanswered = self.unanswered + 1 if said.unanswered else 0
        if self.unanswered >= _GIVES_UP_AFTER:
            raise RemoteUnavailable(said.problem, "Try again later; captions that are there stay.")


def _failed(id: int, error: MasukaError) -> Said:
    return Said(id, problem=str(error), unanswered=isinstance(error, RemoteUnavailable))


def _batches(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for at in range(0, len(rows), size):
        yield rows[at : at + size]


def _opened(picture: Mapping[str, Any]) -> Image.Image:
    """The picture as edited: what a training will see is what is described."""
    matte = Path(picture["matte"]) if picture["matte"] else None
    recipe = replace(Recipe.from_row(picture["edits"]), mask_sha256="")
    try:
        return small(rendered(Path(picture["file"]), recipe, matte=matte).image)
    except OSError as error:
        raise InvalidInput(
            f"This picture cannot be opened ({type(error).__name__}).", "Add it again."
        ) from error


def _read(file: Path) -> Iterator[Said]:
    """What an attempt before this one kept; half a line at the end is left out."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            yield Said(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            log.warning("a torn line in %s", file.name)
