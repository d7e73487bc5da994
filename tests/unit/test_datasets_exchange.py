"""Data sets handed out in three layouts, as jobs, as edited, without what was set aside."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from masuka.config import Settings, Workspace
from masuka.datasets import exchange, sources
from masuka.datasets.checking import write_rows
from masuka.datasets.exchange import About, Entry
from masuka.errors import AccessDenied, InvalidInput, MasukaError, NotAllowed, NotFound, Stop
from masuka.jobs.reporter import EventFile
from masuka.requests.actor import Actor
from masuka.studio import Studio
from tests.unit.test_datasets_intake import picture, write

ABOUT = About("Mira", "mira7x", "robot", "a picture of {trigger} {class}")


def entries(root: Path, count: int) -> list[Entry]:
    write(root / "set", {f"{i}.png": picture(i) for i in range(count)})
    return [
        Entry(str(root / "set" / f"{i}.png"), f"pic {i}.jpg", f"mira7x, {i}", f"{i:064}", 48, 32)
        for i in range(count)
    ]


def names_in(file: Path) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        return archive.namelist()


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("zip", ["pic 0.png", "pic 0.txt", "pic 1.png", "pic 1.txt", "dataset.json"]),
        ("kohya", [f"10_mira7x robot/pic {i}.{e}" for i in (0, 1) for e in ("png", "txt")]),
        ("imagefolder", ["pic 0.png", "pic 1.png", "metadata.jsonl"]),
    ],
)
def test_each_layout_is_what_its_readers_expect_and_is_read_back(
    tmp_path: Path, layout: str, names: list[str]
) -> None:
    file = exchange.write(ABOUT, entries(tmp_path, 2), to=tmp_path / "out" / "a.zip", layout=layout)
    assert names_in(file) == names
    offers = sources.find([file])
    assert [(o.caption, o.read()) for o in offers.pictures] == [(f"mira7x, {i}", picture(i)) for i in (0, 1)]
    offers.close()


def test_edited_pictures_go_out_as_edited(tmp_path: Path) -> None:
    (entry,) = entries(tmp_path, 1)
    edited = replace(entry, edits={"crop": [0.0, 0.0, 0.5, 1.0]})
    file = exchange.write(ABOUT, [edited], to=tmp_path / "a.zip")
    with zipfile.ZipFile(file) as archive:
        told = json.loads(archive.read("dataset.json"))["pictures"][0]
        with Image.open(io.BytesIO(archive.read("pic 0.png"))) as image:
            assert image.size == (24, 32) == (told["width"], told["height"])
    assert told["sha256"] != entry.sha256


def test_a_class_word_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    about = replace(ABOUT, class_word="../../x")
    file = exchange.write(about, entries(tmp_path, 1), to=tmp_path / "a.zip", layout="kohya")
    assert all(".." not in name.split("/") and not name.startswith("/") for name in names_in(file))


def test_packing_stops_when_asked_and_leaves_nothing(tmp_path: Path) -> None:
    reporter = EventFile(tmp_path / "events.jsonl", tmp_path / "scratch", lambda: "cancel")
    params = {"to": str(tmp_path / "out" / "a.zip"), "layout": "zip", "about": vars(ABOUT),
              "rows": str(tmp_path / "rows.jsonl")}  # fmt: skip
    write_rows(map(vars, entries(tmp_path, 2)), tmp_path / "rows.jsonl")
    with pytest.raises(Stop):
        exchange.run(params, reporter)
    reporter.close()
    assert list((tmp_path / "out").iterdir()) == []


def test_many_pictures_of_one_name_are_named_quickly() -> None:
    rows = [Entry("a.png", "same.png", "", "", 1, 1)] * 10_000
    names = exchange.file_names(rows)
    assert len(set(names)) == 10_000 and names[-1] == "same-10000.png"


# Through the studio


@pytest.fixture
def studio(workspace: Workspace) -> Iterator[Studio]:
    with Studio.open(Settings(workspace=workspace, device="cpu"), workers="inline") as opened:
        yield opened


@pytest.fixture
def filled(studio: Studio, tmp_path: Path) -> int:
    """A data set of three pictures, the last one set aside."""
    dataset = studio.datasets.create(name="Mira / summer", trigger_word="mira7x", class_word="robot")
    folder = write(tmp_path / "in", {f"{i}.png": picture(i) for i in range(3)} | {"0.txt": "waving"})
    studio.jobs.wait(studio.datasets.add_pictures(dataset.id, folder))
    last = studio.datasets.every_picture(dataset.id)[-1]
    assert studio.datasets.set_aside([last.id]) == 1
    return dataset.id


@pytest.mark.parametrize("layout", ["zip", "kohya", "imagefolder"])
def test_an_export_is_a_job_whose_zip_can_be_fetched(studio: Studio, filled: int, layout: str) -> None:
    job = studio.jobs.wait(studio.datasets.export_job(filled, layout))
    file = studio.datasets.exported(job.id)
    assert job.result == {"file": str(file), "pictures": 2, "bytes": file.stat().st_size}
    assert file.name.endswith(f"-{layout}.zip") and sum(n.endswith(".png") for n in names_in(file)) == 2
    again = studio.jobs.wait(studio.datasets.export_job(filled, "zip"))
    assert studio.datasets.exported(again.id).is_file()
    if layout != "zip":
        with pytest.raises(NotFound, match="Pack the data set again"):
            studio.datasets.exported(job.id)


def test_a_deleted_set_takes_its_zips_with_it(studio: Studio, filled: int) -> None:
    job = studio.jobs.wait(studio.datasets.export_job(filled))
    file = studio.datasets.exported(job.id)
    studio.datasets.delete(filled)
    assert not file.exists()


def test_what_cannot_be_packed(studio: Studio, filled: int) -> None:
    empty = studio.datasets.create(name="Empty", trigger_word="nobody1")
    with pytest.raises(InvalidInput, match="The set has no pictures"):
        studio.datasets.export_job(empty.id)
    with pytest.raises(InvalidInput):
        studio.datasets.export_job(filled, "rar")
    with pytest.raises(NotFound):
        studio.datasets.exported(studio.jobs.list(kind="import_pictures")[0].id)


def test_sending_needs_a_token_and_who_agreed(studio: Studio, filled: int) -> None:
    with pytest.raises(AccessDenied, match="There is no Hugging Face token"):
        studio.datasets.push(filled, "mira/new", licence="other", consent="Nobody is shown.")
    for missing in ({"licence": "other"}, {"consent": "Nobody is shown."}):
        with pytest.raises(MasukaError):
            studio.datasets.push(filled, "mira/new", **missing)  # type: ignore[arg-type]
    assert not studio.jobs.list(kind="push_dataset")


def test_links_and_hub_sets_are_asked_for_in_the_net_lane(studio: Studio, filled: int) -> None:
    links = studio.datasets.add_links(filled, "https://a.example.com/1\nhttps://a.example.com/2", key="k")
    assert studio.datasets.add_links(filled, "https://a.example.com/3", key="k").id == links.id
    fetched = studio.datasets.add_from_hub(filled, "https://huggingface.co/datasets/mira/set")
    assert (links.lane, fetched.lane) == ("net", "net") and fetched.title.startswith("Adding mira/set to")
    assert len(Path(links.params["rows"]).read_text().splitlines()) == 3
    for wrong in (
        lambda: studio.datasets.add_links(filled, " "),
        lambda: studio.datasets.add_from_hub(filled, "x"),
    ):
        with pytest.raises(InvalidInput):
            wrong()


def test_viewers_take_nothing_in_and_send_nothing(studio: Studio, filled: int) -> None:
    viewer = studio.acting_as(Actor(user_id=1, role="viewer"))
    for act in (
        lambda: viewer.datasets.add_links(filled, "https://a.example.com/1"),
        lambda: viewer.datasets.add_from_hub(filled, "mira/set"),
        lambda: viewer.datasets.export_job(filled),
        lambda: viewer.datasets.push(filled, "mira/new", licence="other", consent="Nobody."),
        lambda: viewer.datasets.set_aside([1]),
    ):
        with pytest.raises(NotAllowed):
            act()


def test_an_import_leaves_measures_and_findings(studio: Studio, filled: int) -> None:
    for shown in studio.datasets.every_picture(filled):
        assert shown.scores["v"] >= 1 and 0 <= shown.scores["exposure"] <= 1
    assert {p.caption_from for p in studio.datasets.every_picture(filled)} == {"file", "template"}
    kept = studio.datasets.pictures(filled)
    assert len(kept) == 2 and len(studio.datasets.pictures(filled, only="all", sort="size")) == 3
