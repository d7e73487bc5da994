"""The doctor of a studio: looking, telling, mending, keeping the best; and whose it is."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from masuka.config import Settings, Workspace
from masuka.datasets import checking, doctor, embedding, faces, intake
from masuka.errors import InvalidInput, NotAllowed, NotFound
from masuka.pocket import world
from masuka.requests.actor import Actor
from masuka.store import findings, pictures, users
from masuka.store import jobs as rows
from masuka.store.datasets import Dataset
from masuka.studio import Studio
from masuka.studio import intake as asking
from masuka.studio.edits import LOOKED_AT_ONCE
from masuka.ui.intake import draw_progress
from masuka.ui.view import View
from tests import scenes

SIZE = (560, 540)


@dataclass(frozen=True)
class Messy:
    """An open studio and its set of pictures good and bad."""

    studio: Studio
    id: int


@pytest.fixture
def studio(workspace: Workspace) -> Iterator[Studio]:
    with Studio.open(Settings(workspace=workspace), workers="inline") as studio:
        yield studio


def filled(studio: Studio, folder: Path, images: dict[str, Image.Image], **values: Any) -> Dataset:
    """A set with these pictures, by name, taken in and looked at."""
    given = {"name": "Set", "trigger_word": "mira7", "class_word": "robot", **values}
    dataset = studio.datasets.create(given)
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    studio.jobs.wait(studio.datasets.add_pictures(dataset.id, [folder]))
    return studio.datasets.get(dataset.id)


def ids_of(studio: Studio, dataset: Dataset | Messy) -> dict[str, int]:
    every = studio.datasets.every_picture(dataset.id)
    return {Path(p.original_name).stem: p.id for p in every}


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose set 1 has six good pictures, a blurred one, a copy and a narrow one."""
    images = {f"good{n}": scenes.scene(n, SIZE) for n in (1, 2, 3, 6, 7, 8)}
    images["blurred"] = scenes.scene(11, SIZE).filter(ImageFilter.GaussianBlur(6))
    images["copy"] = scenes.recompressed(images["good3"], random.Random(2))
    images["long"] = scenes.scene(12, (1300, 520))
    folder = tmp_path_factory.mktemp("messy")
    with Studio.open(Settings(workspace=Workspace(folder / "home")), workers="inline") as studio:
        filled(studio, folder / "messy", images)
    return folder / "home"


@pytest.fixture
def messy(taken_in: Path, tmp_path: Path) -> Iterator[Messy]:
    """That set, in a copy of the workspace that the test may change."""
    shutil.copytree(taken_in, tmp_path / "copied")
    with Studio.open(Settings(workspace=Workspace(tmp_path / "copied")), workers="inline") as studio:
        yield Messy(studio, 1)


def test_two_imports_that_were_asked_for_at_once_are_compared(studio: Studio, tmp_path: Path) -> None:
    dataset = studio.datasets.create(name="Set", trigger_word="mira7", class_word="robot")
    lots = {"one": [1, 2], "two": [6, 3]}
    changed = {"one": 1, "two": 2}  # a copy within the first lot, and one across the two
    for lot, seeds in lots.items():
        (tmp_path / lot).mkdir()
        for seed in seeds:
            scenes.scene(seed, SIZE).save(tmp_path / lot / f"{lot}{seed}.png")
        copy = scenes.recompressed(scenes.scene(changed[lot], SIZE), random.Random(2))
        copy.save(tmp_path / lot / f"{lot}-copy.png")
    asked = [studio.datasets.add_pictures(dataset.id, [tmp_path / lot]) for lot in lots]
    for job in asked:
        studio.jobs.wait(job)
    assert studio.doctor.report(dataset.id).counts == {"near_duplicate": 2}


def test_the_strictness_of_last_is_the_one_that_counts(messy: Messy) -> None:
    studio = messy.studio
    studio.doctor.set_strictness(messy.id, "strict")
    first = studio.doctor.look(messy.id)
    studio.doctor.set_strictness(messy.id, "basic")
    second = studio.doctor.look(messy.id)
    assert (first.params["strictness"], second.params["strictness"]) == ("strict", "basic")
    assert studio.jobs.get(first.id).state == "cancelled" and studio.doctor.look(messy.id).id == second.id


def test_an_import_is_looked_at(messy: Messy) -> None:
    studio = messy.studio
    report = studio.doctor.report(messy.id)
    assert report.counts == {"near_duplicate": 1, "blurred": 1, "narrow": 1}
    assert (report.kept, report.aside, report.doubtful, report.unmeasured) == (9, 0, 3, 0)
    assert report.sentences[0].startswith("1 picture: Nearly the same.")
    assert any("from 10 on" in sentence for sentence in report.sentences)


def test_findings_name_the_better_picture(messy: Messy) -> None:
    studio = messy.studio
    ids = ids_of(studio, messy)
    found = studio.doctor.findings(list(ids.values()))
    assert set(found) == {ids["blurred"], ids["copy"], ids["long"]}
    assert [f.other_id for f in found[ids["copy"]] if f.kind == "near_duplicate"] == [ids["good3"]]
    assert studio.doctor.alike(messy.id) == {ids["copy"]: ids["good3"]}


def test_one_click_sets_all_of_a_kind_aside_and_nothing_is_deleted(messy: Messy) -> None:
    studio = messy.studio
    ids = ids_of(studio, messy)
    assert studio.doctor.apply(messy.id, "near_duplicate") == 1
    assert studio.doctor.apply(messy.id, "near_duplicate") == 0
    report = studio.doctor.report(messy.id)
    assert (report.kept, report.aside, report.doubtful) == (8, 1, 2)
    assert [p.id for p in studio.datasets.pictures(messy.id, only="aside")] == [ids["copy"]]
    assert len(studio.datasets.every_picture(messy.id)) == 9


def test_a_narrow_picture_is_cropped_by_its_recipe(messy: Messy) -> None:
    studio = messy.studio
    ids = ids_of(studio, messy)
    assert [remedy.does for remedy in studio.doctor.remedies("narrow")] == ["smart", "aside"]
    assert studio.doctor.apply(messy.id, "narrow") == 1
    assert "narrow" not in studio.doctor.report(messy.id).counts
    assert studio.datasets.picture(ids["long"]).edits
    studio.jobs.wait(studio.doctor.look(messy.id))
    assert "narrow" not in studio.doctor.report(messy.id).counts


def test_strictness_is_kept_and_the_set_looked_at_again(messy: Messy) -> None:
    studio = messy.studio
    assert studio.doctor.set_strictness(messy.id, "none").options["strictness"] == "none"
    (job,) = studio.jobs.list(dataset_id=messy.id, kind="check_dataset")
    studio.jobs.wait(job)
    report = studio.doctor.report(messy.id)
    assert report.counts == {} and "strictness is none" in report.notes[0]
    studio.doctor.set_strictness(messy.id, "strict", resolution_px=1024)
    studio.jobs.wait(studio.doctor.look(messy.id))
    assert studio.doctor.report(messy.id).counts["small"] == 9
    assert studio.datasets.get(messy.id).options["resolution_px"] == 1024


@pytest.mark.parametrize("strictness", ["", "Strict", "very", "none; DROP TABLE"])
def test_another_strictness_is_refused(messy: Messy, strictness: str) -> None:
    studio = messy.studio
    with pytest.raises(InvalidInput):
        studio.doctor.set_strictness(messy.id, strictness)


def test_a_look_that_waits_is_not_added_twice(messy: Messy) -> None:
    studio = messy.studio
    assert studio.doctor.look(messy.id).id == studio.doctor.look(messy.id).id


def test_what_was_not_measured_is_measured_by_a_look(messy: Messy) -> None:
    studio = messy.studio
    ids = ids_of(studio, messy)
    before = studio.datasets.picture(ids["good1"]).scores
    for id in ids.values():
        pictures.set_scores(studio.store, actor=studio.actor, id=id, scores={})
    assert studio.doctor.report(messy.id).unmeasured == 9
    gone = studio.workspace.resolve(studio.datasets.picture(ids["good2"]).file)
    gone.unlink()
    job = studio.jobs.wait(studio.doctor.look(messy.id))
    assert job.result is not None and job.result["measured"] == 8
    (problem,) = job.result["unreadable"]
    assert problem.startswith("good2.png: ") and studio.doctor.report(messy.id).unmeasured == 1
    assert studio.datasets.picture(ids["good1"]).scores == before


def test_the_best_are_good_and_varied(studio: Studio, tmp_path: Path) -> None:
    """Five scenes, each sharp, soft, and as a copy: the five sharp ones are the best."""
    images: dict[str, Image.Image] = {}
    for number in (1, 2, 3, 6, 7):
        image = scenes.scene(number, SIZE)
        images[f"sharp{number}"] = image
        images[f"copy{number}"] = scenes.recompressed(image, random.Random(number))
        images[f"soft{number}"] = scenes.rival(number, SIZE).filter(ImageFilter.GaussianBlur(5))
    dataset = filled(studio, tmp_path / "set", images)
    names = {id: name for name, id in ids_of(studio, dataset).items()}
    best = [names[id] for id in studio.doctor.best(dataset.id, 5)]
    assert len({name[-1] for name in best}) == 5 and not [name for name in best if name.startswith("soft")]
    assert studio.doctor.keep_best(dataset.id, 5) == 10
    assert {names[p.id] for p in studio.datasets.pictures(dataset.id)} == set(best)
    assert studio.doctor.keep_best(dataset.id, 5) == 0
    assert studio.doctor.keep_best(dataset.id, 400) == 0


def test_pictures_at_one_place_in_one_light_are_told(studio: Studio, tmp_path: Path) -> None:
    drawn = [world.draw(replace(scene, place="meadow"), 128) for scene in world.character_scenes(3, 12)]
    same = filled(studio, tmp_path / "same", {f"{n}": image for n, image in enumerate(drawn)})
    said = " ".join(studio.doctor.report(same.id).sentences)
    assert "same light" in said and "same background" in said
    drawn = [image for image, _ in world.character_set(3, 12)]
    varied = filled(studio, tmp_path / "varied", {f"{n}": i for n, i in enumerate(drawn)}, name="Varied")
    assert studio.doctor.report(varied.id).sentences == []


def test_captions_are_linted(messy: Messy) -> None:
    studio = messy.studio
    ids = ids_of(studio, messy)
    studio.datasets.set_caption(ids["good1"], "a robot")
    studio.datasets.set_caption(ids["good2"], "mira7 robot, mira7 waves")
    found = studio.doctor.lint(messy.id)
    assert found[ids["good1"]] == ["The trigger word mira7 is missing."]
    assert found[ids["good2"]] == ["The trigger word mira7 stands in it more than once."]
    studio.datasets.set_aside([ids["good1"]])
    assert ids["good1"] not in studio.doctor.lint(messy.id)


def test_the_note_names_the_model_and_goes_once_it_is_there(studio: Studio, tmp_path: Path) -> None:
    drawn = {f"{n}": image for n, (image, _) in enumerate(world.character_set(3, 12))}
    dataset = filled(studio, tmp_path / "set", drawn)
    (note,) = studio.doctor.report(dataset.id).notes
    assert "colour and shape only" in note and embedding.REPO in note
    job = studio.doctor.download_embedder()
    assert (job.kind, job.params["revision"]) == ("download_model", embedding.REVISION)


def test_an_empty_set_is_well(studio: Studio) -> None:
    dataset = studio.datasets.create(name="Empty", trigger_word="mira7")
    report = studio.doctor.report(dataset.id)
    assert (report.counts, report.sentences, report.notes, report.kept) == ({}, [], [], 0)
    assert studio.doctor.best(dataset.id) == [] and studio.doctor.lint(dataset.id) == {}
    assert studio.doctor.findings([]) == {}


def test_an_unknown_finding_has_no_remedy(messy: Messy) -> None:
    studio = messy.studio
    for kind, does in (("ugly", None), ("blurred", "face"), ("blurred", "delete")):
        with pytest.raises(InvalidInput):
            studio.doctor.apply(messy.id, kind, does)
    assert all(studio.doctor.remedies(kind) for kind in doctor.KINDS)


def test_anothers_set_is_not_there_and_a_viewer_changes_nothing(messy: Messy) -> None:
    studio = messy.studio
    user = users.add_user(studio.store, actor=studio.actor, username="kim", role="editor")
    other = studio.acting_as(Actor(user.id, "editor", "kim")).doctor
    some = studio.datasets.pictures(messy.id)[0].id
    for ask in (other.look, other.report, other.best, other.keep_best, other.lint, other.alike):
        with pytest.raises(NotFound):
            ask(messy.id)  # type: ignore[operator]
    for act in (
        lambda d: d.findings([some]), lambda d: d.apply(messy.id, "blurred"), lambda d: d.set_strictness(messy.id, "strict"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            act(other)
    viewer = studio.acting_as(Actor(1, "viewer")).doctor
    for act in (
        lambda d: d.look(messy.id), lambda d: d.keep_best(messy.id), lambda d: d.apply(messy.id, "blurred"),
        lambda d: d.set_strictness(messy.id, "none"), lambda d: d.download_embedder(),
    ):  # fmt: skip
        with pytest.raises(NotAllowed):
            act(viewer)
    assert studio.doctor.report(messy.id).aside == 0


def test_rows_are_written_whole(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    checking.write_rows([{"a": 1}, {"a": "ä\n"}], file)
    assert file.read_text(encoding="utf-8").splitlines() == ['{"a": 1}', '{"a": "\\u00e4\\n"}']
    assert list(tmp_path.iterdir()) == [file]


def test_many_pictures_are_cropped_without_looking_for_faces_in_each(
    messy: Messy, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, store = messy.studio, messy.studio.store
    long = studio.datasets.picture(ids_of(studio, messy)["long"])
    sums = [f"{number:064x}" for number in range(LOOKED_AT_ONCE + 1)]
    for sha256 in sums:
        pictures.add_picture(
            store, actor=studio.actor, dataset_id=messy.id, file=long.file, original_name="long.png", sha256=sha256,
            width=long.width, height=long.height, bytes=1, caption="",
        )  # fmt: skip
    told = [{"sha256": sha256, "kind": "narrow", "severity": "doubtful"} for sha256 in sums]
    findings.set_findings(store, actor=studio.actor, dataset_id=messy.id, rows=told)
    looked: list[Any] = []
    monkeypatch.setattr(faces, "detect", lambda *args, **options: looked.append(args) or [])
    assert studio.doctor.apply(messy.id, "narrow") == len(sums) and not looked
    assert "narrow" not in studio.doctor.report(messy.id).counts


def test_a_set_too_large_for_its_import_is_looked_at_next_and_once(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (intake, asking):
        monkeypatch.setattr(module, "MOST_COMPARED", 1)
    users.add_user(studio.store, actor=studio.actor, username="kim", role="editor")
    kim = studio.acting_as(Actor(2, "editor", "kim"))
    shared = kim.datasets.create(name="Set", trigger_word="mira7", class_word="robot")
    lots = [(1, "one"), (2, "two")]
    jobs = []
    for seed, lot in lots:
        folder = kim.workspace.uploads / f"2-{lot}"
        folder.mkdir(parents=True)
        scenes.scene(seed, SIZE).save(folder / "first.png")
        scenes.recompressed(scenes.scene(seed, SIZE), random.Random(2)).save(folder / "copy.png")
        jobs.append(kim.datasets.add_pictures(shared.id, [folder]))
    done = [kim.jobs.wait(job) for job in jobs]
    assert all(job.result is not None and job.result["unlooked"] for job in done)
    waiting = kim.jobs.list(dataset_id=shared.id, kind="check_dataset")
    assert len(waiting) == 1 and waiting[0].user_id == 2, "one look is queued, for whoever imported"
    assert kim.doctor.report(shared.id).counts == {}
    kim.jobs.wait(waiting[0])
    assert kim.doctor.report(shared.id).counts == {"near_duplicate": 2}


def test_an_import_that_was_not_followed_says_so(studio: Studio, tmp_path: Path) -> None:
    dataset = filled(studio, tmp_path / "in", {"one": scenes.scene(1, SIZE)})
    view = View(tab="datasets", dataset=dataset.id)
    assert "not compared" not in draw_progress(studio, view)
    (job,) = studio.jobs.list(dataset_id=dataset.id)
    rows.set_job(studio.store, id=job.id, fence=job.fence, result={**(job.result or {}), "unlooked": True})
    assert "not compared" in draw_progress(studio, view) and "datasets-look" in draw_progress(studio, view)
    studio.doctor.look(dataset.id)
    assert "not compared" not in draw_progress(studio, view)
