"""The studio: one door for app, command line and notebooks."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from masuka import Settings, Studio, logs
from masuka.config import Workspace
from masuka.errors import Conflict, InvalidInput, NotAllowed, NotFound
from masuka.hosting.machine import Gpu
from masuka.jobs.recovery import lock_of
from masuka.models import catalogue
from masuka.requests import Actor
from masuka.requests.datasets import CreateDataset
from masuka.requests.images import DrawImages
from masuka.store import pictures, users
from masuka.store.datasets import Dataset
from masuka.store.jobs import Job
from masuka.studio.training import next_name


@pytest.fixture(autouse=True)
def large_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver says: trainings that can never fit are refused before they are queued."""
    found = Gpu("a card", 80.0, 80.0, (9, 0), "570")
    monkeypatch.setattr("masuka.hosting.machine.list_gpus", lambda: [found])


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio.open(Settings(workspace=Workspace(tmp_path / "home"))) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(3):
        Image.new("RGB", (300, 200), (40 * n, 80, 120)).save(folder / f"photo{n}.png")
    return folder


def filled(studio: Studio, photos: Path, name: str = "Mira") -> Dataset:
    made = studio.datasets.create(name=name, trigger_word="mira7x", class_word="robot")
    studio.jobs.wait(studio.datasets.add_pictures(made.id, photos))
    return studio.datasets.get(made.id)


def with_a_base(studio: Studio) -> str:
    """A base whose files are there, as after its download."""
    folder = studio.workspace.models / "flux1-dev"
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "config.json").write_text("{}")
    (folder / "model_index.json").write_text('{"vae": ["diffusers", "AutoencoderKL"]}')
    (folder / catalogue.FINISHED).write_text("{}")
    return folder.name


def test_requests_come_as_objects_mappings_and_keywords(studio: Studio) -> None:
    as_object = studio.datasets.create(CreateDataset(name="One", trigger_word="mira7x"))
    as_mapping = studio.datasets.create({"name": "Two", "trigger_word": "mira7x"})
    mixed = studio.datasets.create({"name": "Three", "trigger_word": "mira7x"}, name="Four")
    assert [d.name for d in (as_object, as_mapping, mixed)] == ["One", "Two", "Four"]


def test_a_folder_becomes_a_captioned_set(studio: Studio, photos: Path) -> None:
    data = filled(studio, photos)
    pictures = studio.datasets.pictures(data.id)
    assert data.picture_count == 3
    assert {p.caption for p in pictures} == {"a picture of mira7x robot"}
    assert studio.media("picture", pictures[0].id, thumbnail=True).exists()
    again = studio.jobs.wait(studio.datasets.add_pictures(data.id, photos))
    assert again.result is not None
    assert (again.result["added"], again.result["duplicates"]) == (0, 3)


def test_a_new_trigger_word_reaches_every_caption(studio: Studio, photos: Path) -> None:
    data = filled(studio, photos)
    studio.datasets.update(data.id, trigger_word="nova9")
    assert {p.caption for p in studio.datasets.every_picture(data.id)} == {"a picture of nova9 robot"}


def test_one_change_to_many_captions(studio: Studio, photos: Path) -> None:
    data = filled(studio, photos)
    ids = tuple(p.id for p in studio.datasets.pictures(data.id))
    assert studio.datasets.edit_captions(picture_ids=ids[:2], action="suffix", text=", at dusk") == 2
    captions = [p.caption for p in studio.datasets.pictures(data.id)]
    assert captions[0].endswith(", at dusk")
    assert not captions[2].endswith(", at dusk")


def test_deleted_pictures_leave_no_files(studio: Studio, photos: Path) -> None:
    data = filled(studio, photos)
    first = studio.datasets.pictures(data.id)[0]
    file = studio.workspace.resolve(first.file)
    assert studio.datasets.delete_pictures([first.id]) == 1
    assert not file.exists()
    studio.datasets.delete(data.id)
    assert not file.parent.exists()
    with pytest.raises(NotFound):
        studio.datasets.get(data.id)


def test_an_export_holds_pictures_and_captions(studio: Studio, photos: Path, tmp_path: Path) -> None:
    data = filled(studio, photos)
    with zipfile.ZipFile(studio.datasets.export(data.id, tmp_path / "out.zip")) as archive:
        names = archive.namelist()
    assert sum(n.endswith(".txt") for n in names) == 3
    assert sum(n.endswith(".png") for n in names) == 3


def test_training_refuses_what_cannot_work(studio: Studio, photos: Path) -> None:
    empty = studio.datasets.create(name="Empty", trigger_word="mira7x")
    with pytest.raises(InvalidInput, match="no pictures"):
        studio.training.start(dataset_id=empty.id)
    data = filled(studio, photos)
    with pytest.raises(InvalidInput, match="Resolution"):
        studio.training.start(dataset_id=data.id, resolution_px=512)
    with pytest.raises(Conflict, match="not on this machine"):
        studio.training.start(dataset_id=data.id, base="flux1-schnell")
    with pytest.raises(NotFound):
        studio.training.start(dataset_id=data.id, base="no-such-model")
    assert studio.training.runs() == []
    assert studio.jobs.list(kind="train_image") == []


@pytest.mark.parametrize(
    ("dataset", "known", "following"),
    [
        ("Bolt", [], "Bolt 1"),
        ("Bolt", ["Bolt 1", "Bolt 7", "Bolt sitting", "Bolt sitting 9", "Bolt 8 9"], "Bolt 8"),
        ("Bolt 1", [], "Bolt 2"),
        ("Bolt 1", ["Bolt 2"], "Bolt 3"),
        ("Bolt 1", ["Bolt 1 1"], "Bolt 2"),
        ("3", [], "3 1"),
        ("Agent 007", [], "Agent 007 1"),
        ("x" * 100, [f"{'x' * 92} 1"], f"{'x' * 92} 2"),
    ],
)
def test_a_training_is_called_after_its_set_and_counted_on(
    dataset: str, known: list[str], following: str
) -> None:
    assert next_name(dataset, known) == following
    assert next_name(dataset, [*known, following]) not in {*known, following}


def test_a_range_is_said_before_what_follows_from_it(studio: Studio, photos: Path) -> None:
    data = filled(studio, photos)
    with pytest.raises(InvalidInput, match=r"Steps is 5\. It must be 10 to"):
        studio.training.start(dataset_id=data.id, steps=5)  # fewer than the warm-up's own default too
    with pytest.raises(InvalidInput, match=r"The warm-up takes 30 steps and the training only 20\."):
        studio.training.start({"dataset_id": data.id}, steps=20, lr_warmup_steps=30)
    base = with_a_base(studio)  # whose own default is more than the 800 steps of the request
    job = studio.training.start(dataset_id=data.id, base=base, lr_warmup_steps=1200)
    assert job.request["steps"] == 1500
    assert studio.training.run(job.run_id or 0).name == "Mira 1"


def test_drawing_refuses_what_cannot_work(studio: Studio) -> None:
    with pytest.raises(NotFound):
        studio.images.draw(prompt="a red robot", adapter_id=99)
    with pytest.raises(InvalidInput, match="Width"):
        studio.images.draw(prompt="a red robot", width=512)
    assert studio.jobs.list() == []


def test_a_preset_gives_the_base_and_what_is_not_given_besides(studio: Studio) -> None:
    with pytest.raises(Conflict, match=r"FLUX\.1 dev is not on this machine"):
        studio.images.draw(prompt="a red robot", preset="Cinematic")
    with_a_base(studio)
    job = studio.images.draw(prompt="a red robot", preset="cinematic", num_inference_steps=12)
    wanted = {"base": "flux1-dev", "width": 1536, "height": 640, "num_inference_steps": 12}
    assert {name: job.request[name] for name in wanted} == wanted
    asked = DrawImages.parse({"prompt": "a red robot", "height": 512})
    assert [studio.images.draw(asked, preset="Cinematic").request[n] for n in ("width", "height")] == [1536, 512]
    with pytest.raises(InvalidInput, match="preset of flux1-dev, not of pocket"):
        studio.images.draw(prompt="a red robot", preset="Cinematic", base="pocket")
    with pytest.raises(InvalidInput, match="There is no setting 'heigth'"):
        studio.images.draw({"prompt": "a red robot", "heigth": 512}, preset="Cinematic")
    with pytest.raises(NotFound, match="There is no preset"):
        studio.images.draw(prompt="a red robot", preset="Blurry")


def test_a_queued_job_is_cancelled_deleted_and_gone(studio: Studio, photos: Path) -> None:
    data = studio.datasets.create(name="Mira", trigger_word="mira7x")
    job = studio.datasets.add_pictures(data.id, photos)
    assert studio.jobs.cancel([job.id]) == 1
    assert studio.jobs.get(job.id).state == "cancelled"
    assert studio.jobs.delete([job.id]) == 1
    with pytest.raises(NotFound):
        studio.jobs.get(job.id)
    assert studio.datasets.get(data.id).picture_count == 0


def test_a_viewer_looks_and_changes_nothing(studio: Studio) -> None:
    viewer = studio.acting_as(Actor(user_id=1, role="viewer"))
    assert viewer.datasets.list() == []
    for change in (
        lambda: viewer.datasets.create(name="X", trigger_word="mira7x"),
        lambda: viewer.characters.create(name="X", trigger_word="mira7x"),
        lambda: viewer.images.draw(prompt="a red robot"),
        lambda: viewer.jobs.cancel([1]),
        lambda: viewer.preferences.set_key("HF_TOKEN", "hf_x"),
    ):
        with pytest.raises(NotAllowed):
            change()


def test_nobody_sees_what_belongs_to_another(studio: Studio, photos: Path) -> None:
    data = filled(studio, photos)
    picture = studio.datasets.pictures(data.id)[0]
    guest = users.add_user(studio.store, actor=studio.actor, username="guest", role="editor")
    other = studio.acting_as(Actor(user_id=guest.id, role="editor", name="guest"))
    assert other.datasets.list() == []
    for look in (
        lambda: other.datasets.get(data.id),
        lambda: other.media("picture", picture.id),
        lambda: other.datasets.set_caption(picture.id, "mine now"),
        lambda: other.datasets.add_pictures(data.id, photos),
    ):
        with pytest.raises(NotFound):
            look()


def test_keys_are_kept_encrypted_and_never_shown(studio: Studio) -> None:
    studio.preferences.set_key("HF_TOKEN", "hf_CanaryValue0123456789")
    assert studio.preferences.keys()["HF_TOKEN"] == "stored"
    assert b"hf_CanaryValue0123456789" not in studio.workspace.database.read_bytes()
    studio.preferences.set_key("HF_TOKEN", "")
    assert studio.preferences.keys()["HF_TOKEN"] == ""
    with pytest.raises(InvalidInput):
        studio.preferences.set_key("NO_SUCH_KEY", "x")


def test_the_change_number_grows_with_every_change(studio: Studio) -> None:
    before = studio.changes()
    studio.characters.create(name="Mira", trigger_word="mira7x")
    assert studio.changes() > before


def test_a_file_that_masuka_did_not_make_outlives_its_row(
    studio: Studio, photos: Path, tmp_path: Path
) -> None:
    data = studio.datasets.create(name="Imported", trigger_word="mira7x")
    original = photos / "photo0.png"
    row = pictures.add_picture(
        studio.store, actor=studio.actor, dataset_id=data.id, file=str(original), original_name="photo0.png",
        sha256="0" * 64, width=300, height=200, bytes=original.stat().st_size, caption="",
    )  # fmt: skip
    assert row is not None
    assert studio.datasets.delete_pictures([row.id]) == 1
    assert original.exists()


def test_nothing_hangs_on_a_character_of_somebody_else(studio: Studio, photos: Path) -> None:
    mira = studio.characters.create(name="Mira", trigger_word="mira7x")
    guest = users.add_user(studio.store, actor=studio.actor, username="guest", role="editor")
    other = studio.acting_as(Actor(user_id=guest.id, role="editor", name="guest"))
    with pytest.raises(NotFound):
        other.datasets.create(name="Mine", trigger_word="nova9", character_id=mira.id)
    sent = shutil.copytree(photos, studio.workspace.uploads / f"{guest.id}-{'a' * 24}")
    data = filled(other, sent, "Mine")
    with pytest.raises(NotFound):
        other.training.start(dataset_id=data.id, character_id=mira.id)


def test_what_is_asked_again_with_its_key_is_one_job(studio: Studio, photos: Path) -> None:
    data, base = filled(studio, photos), with_a_base(studio)
    asks: list[Callable[[str], Job]] = [
        lambda key: studio.datasets.add_pictures(data.id, photos, key=key),
        lambda key: studio.datasets.add_samples(data.id, count=2, key=key),
        lambda key: studio.images.draw(prompt="a red robot", base=base, key=key),
        lambda key: studio.training.start(dataset_id=data.id, base=base, key=key),
    ]
    for number, ask in enumerate(asks):
        first, again = ask(f"click {number}"), ask(f"click {number}")
        assert again.id == first.id
        assert ask(f"next click {number}").id != first.id
    assert len(studio.training.runs()) == 2, "a repeat leaves no second training behind"
    guest = users.add_user(studio.store, actor=studio.actor, username="guest", role="editor")
    other = studio.acting_as(Actor(user_id=guest.id, role="editor", name="guest"))
    mine = studio.images.draw(prompt="a red robot", base=base, key="click 2")
    assert other.images.draw(prompt="a red robot", base=base, key="click 2").id != mine.id


def test_a_training_is_deleted_with_its_jobs_and_folder(studio: Studio, photos: Path) -> None:
    data, base = filled(studio, photos), with_a_base(studio)
    job, other = (studio.training.start(dataset_id=data.id, base=base) for _ in range(2))
    assert job.run_id is not None and other.run_id is not None
    folders = [Path(j.params["run_folder"]) for j in (job, other)]
    for folder in folders:
        (folder / "checkpoints").mkdir(parents=True)
    studio.jobs.cancel([job.id])
    again = studio.jobs.retry(job.id)
    studio.training.delete(job.run_id)
    assert [folder.exists() for folder in folders] == [False, True]
    assert [run.id for run in studio.training.runs()] == [other.run_id]
    assert [j.id for j in studio.jobs.list(kind="train_image")] == [other.id]
    for gone in (lambda: studio.training.run(job.run_id), lambda: studio.jobs.get(again.id)):
        with pytest.raises(NotFound):
            gone()


def test_only_who_may_edit_deletes_a_training_and_only_their_own(studio: Studio, photos: Path) -> None:
    job = studio.training.start(dataset_id=filled(studio, photos).id, base=with_a_base(studio))
    assert job.run_id is not None
    guest = users.add_user(studio.store, actor=studio.actor, username="guest", role="editor")
    for actor, error in (
        (Actor(user_id=1, role="viewer"), NotAllowed),
        (Actor(user_id=guest.id, role="editor"), NotFound),
    ):
        with pytest.raises(error):
            studio.acting_as(actor).training.delete(job.run_id)
    assert studio.jobs.get(job.id).state == "queued"


def test_cancelling_a_paused_training_frees_what_it_cached(studio: Studio, photos: Path) -> None:
    job = studio.training.start(dataset_id=filled(studio, photos).id, base=with_a_base(studio))
    folder = Path(job.params["run_folder"])
    for name in ("caches", "checkpoints"):
        (folder / name).mkdir(parents=True)
    studio.jobs.pause(job.id)
    assert studio.jobs.cancel([job.id]) == 1
    assert [part.name for part in folder.iterdir()] == ["checkpoints"]


def test_a_wait_ends_in_time_while_an_app_has_the_queue(studio: Studio, photos: Path) -> None:
    data = studio.datasets.create(name="Mira", trigger_word="mira7x")
    job = studio.datasets.add_pictures(data.id, photos)
    with lock_of(studio.workspace), pytest.raises(Conflict, match="still"):
        studio.jobs.wait(job, timeout_s=0.3)
    assert studio.jobs.get(job.id).state == "queued"
    assert studio.jobs.wait(job).state == "done"


def test_a_key_is_hidden_from_the_moment_it_is_kept_and_at_every_start(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "redact", logs.Redactor())
    studio.preferences.set_key("FAL_KEY", "canary-without-a-shape")
    assert logs.redact("canary-without-a-shape") == "[secret]"
    monkeypatch.setattr(logs, "redact", logs.Redactor())
    with Studio.open(studio.settings):
        assert logs.redact("canary-without-a-shape") == "[secret]"
