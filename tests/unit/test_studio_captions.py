"""Captions through the studio: who can write them, the job, the table, edits and going back."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from masuka import Settings, Studio
from masuka.config import Workspace
from masuka.datasets.captions import captioners
from masuka.datasets.captions import job as captioning
from masuka.datasets.captions.asked import read_asked
from masuka.errors import (
    AccessDenied,
    Cancelled,
    Conflict,
    ExternalError,
    InvalidInput,
    NotAllowed,
    NotFound,
    OutOfMemory,
    Stop,
)
from masuka.hosting import machine
from masuka.jobs import told
from masuka.models.catalogue import FINISHED
from masuka.pocket.sayings import read
from masuka.pocket.world import character_scenes, draw
from masuka.requests import Actor
from masuka.store import pictures
from masuka.store import settings as rows
from masuka.store.caption_changes import KEPT
from masuka.store.datasets import Dataset
from masuka.studio import captions as studio_captions
from tests import tiny_captioners
from tests.vision_stand_in import KEY, colour_of, running, said

TRIGGER = "bolt7x"


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    """Its environment allows services on this machine (MASUKA_LOCAL_ADDRESSES)."""
    settings = Settings(workspace=Workspace(tmp_path / "home"), device="cpu", local_addresses=("127.0.0.1",))
    with Studio.open(settings) as opened:
        yield opened


@pytest.fixture
def robots(studio: Studio) -> Dataset:
    """Eight pictures of a striped robot with an antenna."""
    made = studio.datasets.create(name="Bolt", trigger_word=TRIGGER, class_word="robot")
    for n, scene in enumerate(character_scenes(7, 8)):
        put(studio, made, draw(scene), f"robot-{n}.png")
    return studio.datasets.get(made.id)


@pytest.fixture
def colours(studio: Studio) -> Dataset:
    """Six pictures of one colour, without captions of their own."""
    made = studio.datasets.create(name="Colours", trigger_word=TRIGGER, class_word="person")
    for n, name in enumerate(("red", "green", "blue") * 2):
        put(studio, made, Image.new("RGB", (64 + n, 64), name), f"{n}-{name}.png")
    return studio.datasets.get(made.id)


def put(studio: Studio, dataset: Dataset, image: Image.Image, name: str) -> int:
    """A picture in the set as an intake leaves it, without the intake's processes."""
    file = studio.workspace.datasets / f"{dataset.id:05d}" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    added = pictures.add_picture(
        studio.store, actor=studio.actor, dataset_id=dataset.id, file=studio.workspace.relative(file), original_name=name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(), width=image.width, height=image.height,
        bytes=file.stat().st_size, caption=f"a picture of {TRIGGER} {dataset.class_word}", caption_from="template",
    )  # fmt: skip
    assert added is not None
    return added.id


def texts(studio: Studio, dataset: Dataset) -> list[str]:
    return [p.caption for p in studio.datasets.every_picture(dataset.id)]


def hosted(studio: Studio, address: str) -> None:
    studio.preferences.set_key("OPENAI_API_KEY", KEY, base_url=address)


def test_who_can_write_is_said_before_the_start(studio: Studio, robots: Dataset) -> None:
    found = {c.name: c for c in studio.captions.captioners()}
    assert found["pocket"].ready and not found["pocket"].why_not
    assert found["florence-2"].why_not == "Florence-2 is not on this machine. Download it first (0.5 GiB)."
    assert found["openai"].why_not == "There is no key for OpenAI or alike. Enter OPENAI_API_KEY in Settings."
    with pytest.raises(Conflict, match="not on this machine"):
        studio.captions.start(robots.id, captioner="florence-2")
    with pytest.raises(Conflict, match="no key"):
        studio.captions.start(robots.id, captioner="openai")
    assert not studio.jobs.list(kind="caption_pictures") and studio.captions.can_undo(robots.id) == ""


def test_too_little_memory_is_said_before_the_start(studio: Studio, robots: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = studio.workspace.models / "blip2-opt-2.7b"
    folder.mkdir(parents=True)
    (folder / FINISHED).write_text("{}")
    monkeypatch.setattr(machine, "memory_gib", lambda: (4.0, 2.0))
    with pytest.raises(OutOfMemory, match=r"machine's free memory has 2\.0 GiB\. BLIP-2 needs 15\.3 GiB"):
        studio.captions.start(robots.id, captioner="blip-2")


def test_the_download_asks_for_safetensors_alone(studio: Studio) -> None:
    job = studio.captions.download("wd-tagger")
    assert (job.kind, job.params["repo"]) == ("download_model", "SmilingWolf/wd-vit-tagger-v3")
    assert len(job.params["revision"]) == 40
    assert not any("bin" in pattern or "onnx" in pattern or ".py" in pattern for pattern in job.params["patterns"])
    with pytest.raises(Conflict, match="needs no download"):
        studio.captions.download("pocket")


@pytest.mark.parametrize("style", ["sentence", "tags", "fixed"])
def test_pocket_captions_a_set(studio: Studio, robots: Dataset, style: str) -> None:
    job = studio.jobs.wait(studio.captions.start(robots.id, style=style, keep_partial=False, constant=("striped, antenna",)))
    assert job.result == {"captioned": 8, "failed": 0, "skipped": 0}
    for picture in studio.datasets.every_picture(robots.id):
        assert picture.caption_from == "pocket" and picture.caption.count(TRIGGER) == 1
        assert "striped" not in picture.caption and "antenna" not in picture.caption
        assert {"face", "place"} <= set(read(picture.caption))
    assert studio.captions.style(robots.id).style == style


def test_only_what_is_selected_is_written(studio: Studio, robots: Dataset) -> None:
    before = studio.datasets.every_picture(robots.id)
    studio.jobs.wait(studio.captions.start(robots.id, picture_ids=(before[2].id,), keep_partial=False))
    after = studio.datasets.every_picture(robots.id)
    assert [b.caption != a.caption for b, a in zip(before, after, strict=True)] == [n == 2 for n in range(8)]
    with pytest.raises(InvalidInput, match="not in this set"):
        studio.captions.start(robots.id, picture_ids=(999,))
    job = studio.captions.start(robots.id, only_empty=True)
    asked = read_asked(Path(job.params["asked"]), job.params["token"])
    assert [p["id"] for p in asked.pictures] == [p.id for n, p in enumerate(before) if n != 2]
    assert all(Path(p["file"]).is_file() for p in asked.pictures) and asked.others == [after[2].caption]
    assert len(str(job.params)) < 1000, "jobs are listed often, with their params"
    studio.jobs.wait(job)
    with pytest.raises(InvalidInput, match="no picture to caption"):
        studio.captions.start(robots.id, only_empty=True)


def test_what_a_person_wrote_is_folded_in(studio: Studio, robots: Dataset) -> None:
    first = studio.datasets.every_picture(robots.id)[0]
    studio.captions.set(first.id, "waving, close-up")
    studio.jobs.wait(studio.captions.start(robots.id, style="fixed"))
    caption = studio.datasets.picture(first.id).caption
    assert caption.startswith(f"{TRIGGER} robot, ") and "waving" in caption and caption.endswith("close-up")


def test_a_picture_it_knows_nothing_about_keeps_its_caption_and_says_why(studio: Studio, robots: Dataset) -> None:
    put(studio, robots, Image.new("RGB", (128, 128), "white"), "white.png")
    job = studio.jobs.wait(studio.captions.start(robots.id))
    assert job.result == {"captioned": 8, "failed": 1, "skipped": 0}
    white = studio.captions.table(robots.id, only="problem")
    assert [p.original_name for p in white] == ["white.png"]
    assert white[0].caption == f"a picture of {TRIGGER} robot"
    assert white[0].caption_problem.startswith("Pocket sees no robot here")


def test_nothing_but_failures_is_a_failure(studio: Studio, colours: Dataset) -> None:
    with pytest.raises(ExternalError, match=r"No caption could be written\. Pocket sees no robot"):
        studio.jobs.wait(studio.captions.start(colours.id))


def test_it_describes_the_edited_picture(studio: Studio, colours: Dataset) -> None:
    two = Image.new("RGB", (100, 50), "red")
    two.paste("blue", (50, 0, 100, 50))
    id = put(studio, colours, two, "two.png")
    studio.edits.set(id, crop=(0.5, 0.0, 1.0, 1.0))
    with running(lambda n, image: said(f"a person, {colour_of(image)}, {image.width} wide")) as service:
        hosted(studio, service.address)
        studio.jobs.wait(studio.captions.start(colours.id, captioner="openai", picture_ids=(id,)))
    assert studio.datasets.picture(id).caption == f"a {TRIGGER} person, blue, 50 wide"


def test_a_service_captions_a_set_in_the_net_lane(studio: Studio, colours: Dataset) -> None:
    with running(lambda n, image: said(f"A man in a {colour_of(image)} coat, smiling.")) as service:
        hosted(studio, service.address)
        assert next(c for c in studio.captions.captioners() if c.name == "openai").ready
        job = studio.jobs.wait(studio.captions.start(colours.id, captioner="openai", style="tags", model="eyes-2"))
    assert job.kind == "ask_captions" and KEY not in str(job.params)
    assert len(service.asked) == 6 and service.asked[0]["model"] == "eyes-2"
    assert set(service.keys) == {f"Bearer {KEY}"}
    assert texts(studio, colours)[0] == f"{TRIGGER}, person, in a red coat, smiling"


def test_a_key_that_changed_goes_nowhere(studio: Studio, colours: Dataset) -> None:
    with running(lambda n, image: said("red")) as service:
        hosted(studio, service.address)
        job = studio.captions.start(colours.id, captioner="openai")
        studio.preferences.set_key("OPENAI_API_KEY", "sk-another-0123456789abcdef", base_url="http://127.0.0.1:9/v1")
        with pytest.raises(AccessDenied, match="has changed since"):
            studio.jobs.wait(job)
    assert service.asked == []


def test_only_the_environment_allows_an_address_inside(tmp_path: Path) -> None:
    """Not when it is typed, and not when it was kept before there was such a rule."""
    with running(lambda n, image: said("red")) as service:
        with Studio.open(Settings(workspace=Workspace(tmp_path / "home"), device="cpu")) as studio:
            made = studio.datasets.create(name="One", trigger_word=TRIGGER, class_word="robot")
            put(studio, made, Image.new("RGB", (64, 64), "red"), "red.png")
            with pytest.raises(InvalidInput, match="not https"):
                hosted(studio, service.address)
            studio.preferences.set_key("OPENAI_API_KEY", KEY)
            rows.set_setting(studio.store, actor=studio.actor, key="OPENAI_BASE_URL", value=service.address)
            with pytest.raises(AccessDenied, match="not https"):
                studio.jobs.wait(studio.captions.start(made.id, captioner="openai"))
        assert service.asked == []


def test_the_environments_key_goes_to_the_environments_address(tmp_path: Path) -> None:
    with running(lambda n, image: said("red")) as service:
        settings = Settings(
            workspace=Workspace(tmp_path / "home"), device="cpu", secrets={"OPENAI_API_KEY": KEY},
            openai_base_url=service.address,
        )  # fmt: skip
        with Studio.open(settings) as studio:
            made = studio.datasets.create(name="One", trigger_word=TRIGGER, class_word="robot")
            put(studio, made, Image.new("RGB", (64, 64), "red"), "red.png")
            with pytest.raises(InvalidInput, match="environment's address alone"):
                studio.preferences.set_key("OPENAI_API_KEY", KEY, base_url="https://elsewhere.example/v1")
            studio.jobs.wait(studio.captions.start(made.id, captioner="openai"))
    assert len(service.asked) == 1


def test_a_refused_picture_does_not_take_the_others_along(studio: Studio, colours: Dataset) -> None:
    def answer(n: int, image: Image.Image) -> Any:
        if colour_of(image) == "green":
            return 400, {"error": {"code": "content_policy_violation", "message": "Not this."}}, {}
        return said(f"a person in {colour_of(image)}")

    with running(answer) as service:
        hosted(studio, service.address)
        job = studio.jobs.wait(studio.captions.start(colours.id, captioner="openai"))
    assert job.result == {"captioned": 4, "failed": 2, "skipped": 0}
    problems = [p.caption_problem for p in studio.captions.table(colours.id, only="problem")]
    assert problems == ["OpenAI or alike will not describe this picture: Not this. Write this caption yourself."] * 2
    assert len(service.asked) == 6  # nothing is paid for twice


def test_a_job_that_was_interrupted_asks_only_about_what_is_left(
    studio: Studio, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("masuka.providers.vision.HostedSpeaker.batch", 2)
    with running(lambda n, image: said(f"a person in {colour_of(image)}")) as service:
        hosted(studio, service.address)
        job = studio.captions.start(colours.id, captioner="openai")
        whole = captioning._Writing._keep
        kept = 0

        def keep(self: Any, said: Any) -> None:
            nonlocal kept
            whole(self, said)
            kept += 1
            if kept == 3:
                raise Stop("pause")

        monkeypatch.setattr(captioning._Writing, "_keep", keep)
        done = studio.jobs.wait(job)  # inline, an interrupted job goes on by itself
    assert len(service.asked) == 7  # the fourth was asked about and not kept
    assert done.result == {"captioned": 6, "failed": 0, "skipped": 3}
    assert done.attempt == 2
    assert texts(studio, colours)[:2] == [f"a {TRIGGER} person in red", f"a {TRIGGER} person in green"]


def test_a_correction_spares_what_a_person_changed_meanwhile(studio: Studio, robots: Dataset) -> None:
    job, (first, second) = studio.captions.start(robots.id), studio.datasets.every_picture(robots.id)[:2]
    studio.captions.set(first.id, "my own words")
    for picture in (first, second):
        about = {"picture_id": picture.id, "caption": "evened out", "caption_from": "pocket", "problem": ""}
        told.APPLIERS["caption"](studio.store, studio.actor, job, {**about, "was": picture.caption})
    assert texts(studio, robots)[:2] == ["my own words", "evened out"]


def test_what_was_asked_is_true_in_another_place_and_its_loss_is_said(
    studio: Studio, robots: Dataset, tmp_path: Path
) -> None:
    job = studio.captions.start(robots.id)
    file = Path(job.params["asked"])
    moved = tmp_path / "elsewhere"
    shutil.copytree(file.parent, moved)
    assert all(Path(p["file"]).parent == moved for p in read_asked(moved / file.name, job.params["token"]).pictures)
    studio.jobs.cancel([job.id])
    studio.captions.start(robots.id)  # what it was asked stands where the first one's stood
    again = studio.jobs.retry(job.id)
    with pytest.raises(NotFound, match="not known any more"):
        studio.jobs.wait(again)


def test_a_change_that_changed_nothing_is_passed_over_by_undo(studio: Studio, robots: Dataset) -> None:
    first = studio.datasets.every_picture(robots.id)[0]
    studio.captions.edit(action="set", text=f"{TRIGGER}, by hand", picture_ids=(first.id,))
    studio.jobs.cancel([studio.captions.start(robots.id).id])
    assert "by" in studio.captions.can_undo(robots.id)
    assert studio.captions.undo(robots.id) == "Undone: a text for several captions. 1 caption is as before."
    assert studio.datasets.picture(first.id).caption == first.caption
    for _ in range(2):
        with pytest.raises(Conflict, match="nothing to undo"):
            studio.captions.undo(robots.id)
    studio.jobs.cancel([studio.captions.start(robots.id).id])
    with pytest.raises(Conflict, match="nothing to undo"):
        studio.captions.undo(robots.id)
    assert studio.captions.can_undo(robots.id) == ""


def test_what_is_typed_while_captions_are_written_stays(studio: Studio, robots: Dataset) -> None:
    first = studio.datasets.every_picture(robots.id)[0]
    job = studio.captions.start(robots.id)
    studio.captions.set(first.id, "my own words")
    studio.jobs.wait(job)
    written = studio.datasets.every_picture(robots.id)
    assert (written[0].caption, written[0].caption_from) == ("my own words", "person")
    assert {picture.caption_from for picture in written[1:]} == {"pocket"}


def test_what_is_typed_while_tags_are_changed_stays(
    studio: Studio, robots: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = studio.datasets.every_picture(robots.id)[:2]
    for picture in (first, second):
        studio.captions.set(picture.id, f"{TRIGGER}, grey hat, number {picture.id}")
    settle = studio_captions.wording.settled

    def typed_meanwhile(texts: dict[int, str], **values: Any) -> dict[int, str]:
        studio.captions.set(first.id, "my own words")
        return settle({**texts, first.id: "evened out", second.id: "evened out"})

    monkeypatch.setattr(studio_captions.wording, "settled", typed_meanwhile)
    assert studio.captions.even_out(robots.id) >= 1
    assert texts(studio, robots)[:2] == ["my own words", "evened out"]


def test_captions_stay_whose_they_are_under_a_new_trigger_word(studio: Studio, robots: Dataset) -> None:
    studio.jobs.wait(studio.captions.start(robots.id))
    studio.datasets.update(robots.id, trigger_word="nova9")
    renamed = studio.datasets.every_picture(robots.id)
    assert {picture.caption_from for picture in renamed} == {"pocket"}
    assert all("nova9" in picture.caption for picture in renamed)


def test_captions_of_thousands_are_written_at_once(studio: Studio) -> None:
    dataset = studio.datasets.create(name="Many", trigger_word=TRIGGER, class_word="person")
    with studio.store.write():
        for number in range(2000):
            pictures.add_picture(
                studio.store, actor=studio.actor, dataset_id=dataset.id, file=f"{number}.png", original_name="a.png",
                sha256=f"{number:064x}", width=64, height=64, bytes=1, caption=f"number {number}",
            )  # fmt: skip
    ids = tuple(p.id for p in studio.datasets.every_picture(dataset.id))
    statements: list[str] = []
    with studio.store.read() as conn:
        conn.conn.set_trace_callback(statements.append)
    assert studio.captions.edit(action="suffix", text=", nice", picture_ids=ids) == 2000
    assert sum("count(*)" in s.lower() for s in statements) < 10, "pictures are not counted for each of them"
    assert texts(studio, dataset)[1999] == "number 1999, nice"


def test_a_service_that_is_down_ends_the_job(studio: Studio, colours: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masuka.providers.vision.HostedSpeaker._rest", lambda self, seconds: None)
    with running(lambda n, image: (503, {}, {})) as service:
        hosted(studio, service.address)
        with pytest.raises(ExternalError, match="out of order"):
            studio.jobs.wait(studio.captions.start(colours.id, captioner="openai"))
    assert len(service.asked) <= 8 * 4


def test_a_cancelled_job_leaves_what_is_written(studio: Studio, robots: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Any, *_: Any) -> None:
        raise Stop("cancel")

    monkeypatch.setattr(captioning._Writing, "_settle", stop)
    with pytest.raises(Cancelled):
        studio.jobs.wait(studio.captions.start(robots.id))
    assert {p.caption_from for p in studio.datasets.every_picture(robots.id)} == {"pocket"}


def test_memory_that_runs_out_is_a_sentence(studio: Studio, robots: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy:
        batch = 4
        asked: list[int] = []

        def say(self, images: Any, wish: Any) -> list[str]:
            self.asked.append(len(images))
            raise MemoryError

    monkeypatch.setattr(captioning, "loaded", lambda *_: Greedy())
    with pytest.raises(OutOfMemory, match="memory ran out"):
        studio.jobs.wait(studio.captions.start(robots.id))
    assert Greedy.asked == [4, 1]


def test_words_are_evened_out_with_those_that_stay(studio: Studio, colours: Dataset) -> None:
    ids = [p.id for p in studio.datasets.every_picture(colours.id)]
    for id in ids[1:]:
        studio.captions.set(id, f"{TRIGGER} person, on a sofa")
    with running(lambda n, image: said("a person on a couch, gray wall")) as service:
        hosted(studio, service.address)
        studio.jobs.wait(studio.captions.start(colours.id, captioner="openai", picture_ids=(ids[0],)))
    assert texts(studio, colours)[0] == f"a {TRIGGER} person on a sofa, gray wall"


def test_a_tiny_tagger_works_from_the_queue(studio: Studio, colours: Dataset) -> None:
    folder = tiny_captioners.wd_tagger(studio.workspace.models / "wd-vit-tagger-v3")
    (folder / FINISHED).write_text("{}")
    job = studio.jobs.wait(studio.captions.start(colours.id, captioner="wd-tagger", style="tags"))
    assert job.result is not None and job.result["captioned"] + job.result["failed"] == 6


def test_each_change_can_be_taken_back(studio: Studio, robots: Dataset) -> None:
    first = texts(studio, robots)
    id = studio.datasets.every_picture(robots.id)[0].id
    studio.captions.set(id, "one")
    studio.captions.set(id, "one two")  # still typing
    ids = tuple(p.id for p in studio.datasets.every_picture(robots.id))
    studio.captions.edit(action="suffix", text=", nice", picture_ids=ids)
    studio.jobs.wait(studio.captions.start(robots.id, keep_partial=False))
    assert studio.captions.undo(robots.id) == "Undone: captions by Pocket. 8 captions are as before."
    assert studio.captions.undo(robots.id).startswith("Undone: words after captions. 8 captions")
    assert texts(studio, robots)[0] == "one two"
    assert studio.captions.undo(robots.id) == "Undone: what was typed. 1 caption is as before."
    assert texts(studio, robots) == first
    with pytest.raises(Conflict, match="nothing to undo"):
        studio.captions.undo(robots.id)


def test_the_last_fifty_changes_are_kept(studio: Studio, robots: Dataset) -> None:
    ids = tuple(p.id for p in studio.datasets.every_picture(robots.id))[:1]
    for n in range(KEPT + 5):
        studio.captions.edit(action="set", text=f"{TRIGGER} {n}", picture_ids=ids)
    for _ in range(KEPT):
        studio.captions.undo(robots.id)
    assert texts(studio, robots)[0] == f"{TRIGGER} 4" and studio.captions.can_undo(robots.id) == ""


def test_a_new_trigger_word_is_not_undone_by_accident(studio: Studio, robots: Dataset) -> None:
    studio.captions.set(studio.datasets.every_picture(robots.id)[0].id, f"{TRIGGER}, by hand")
    studio.datasets.update(robots.id, trigger_word="nova9")
    assert studio.captions.can_undo(robots.id) == ""


def test_no_undo_while_captions_are_written(studio: Studio, robots: Dataset) -> None:
    studio.captions.start(robots.id)
    for act in (studio.captions.undo, studio.captions.start):
        with pytest.raises(Conflict, match="being written"):
            act(robots.id)


def test_search_and_filters(studio: Studio, robots: Dataset) -> None:
    every = studio.datasets.every_picture(robots.id)
    studio.captions.set(every[3].id, "100% red_hat")
    studio.captions.set(every[4].id, "")
    studio.datasets.set_aside([every[5].id])
    found = studio.captions.table
    assert [p.id for p in found(robots.id, search="100%")] == [every[3].id]
    assert [p.id for p in found(robots.id, search="RED_H")] == [every[3].id]
    assert found(robots.id, search="red%hat") == []
    assert [p.id for p in found(robots.id, only="empty")] == [every[4].id]
    assert len(found(robots.id)) == 7 and len(found(robots.id, only="all")) == 8
    assert [p.id for p in found(robots.id, after=every[5].id, limit=1)] == [every[6].id]
    assert [p.id for p in found(robots.id, search=every[6].original_name)] == [every[6].id]
    with pytest.raises(InvalidInput, match="no filter"):
        found(robots.id, only="nice")


def test_tags_of_a_set(studio: Studio, robots: Dataset) -> None:
    studio.jobs.wait(studio.captions.start(robots.id, style="tags", keep_partial=False))
    counts = dict(studio.captions.statistics(robots.id))
    assert counts[TRIGGER] == counts["striped"] == 8
    always = studio.captions.always(robots.id)
    assert {"striped", "antenna"} <= set(always) and TRIGGER not in always
    assert studio.captions.rename_tag(robots.id, "Striped", "with stripes") == 8
    assert studio.captions.remove_tag(robots.id, "antenna") == 8
    after = dict(studio.captions.statistics(robots.id))
    assert after["with stripes"] == 8 and not {"striped", "antenna"} & set(after)
    studio.captions.undo(robots.id)
    assert dict(studio.captions.statistics(robots.id))["antenna"] == 8


def test_a_viewer_changes_nothing(studio: Studio, robots: Dataset) -> None:
    viewer = studio.acting_as(Actor(user_id=1, role="viewer"))
    assert viewer.captions.table(robots.id)
    for act in (
        lambda: viewer.captions.start(robots.id),
        lambda: viewer.captions.undo(robots.id),
        lambda: viewer.captions.remove_tag(robots.id, "striped"),
        lambda: viewer.captions.set(1, "x"),
        lambda: viewer.captions.download("wd-tagger"),
    ):
        with pytest.raises(NotAllowed):
            act()


def test_every_captioner_of_the_table_is_listed(studio: Studio) -> None:
    assert [c.name for c in studio.captions.captioners()] == list(captioners.CAPTIONERS)
    assert set(studio_captions.KINDS) <= {"caption_pictures", "ask_captions"}
