"""Events become rows exactly once; ends become states; leavings go."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from masuka.config import Settings, Workspace
from masuka.errors import InvalidInput, MasukaError, OutOfDisk, OutOfMemory, from_dict
from masuka.jobs import failures, queue
from masuka.jobs.endings import Lost, cancel, settle
from masuka.jobs.events import End, apply_events
from masuka.jobs.files import AttemptFiles
from masuka.jobs.kinds import Kind
from masuka.jobs.recovery import recover
from masuka.jobs.reporter import EventFile
from masuka.requests.actor import Actor
from masuka.store import characters, datasets, items, models, pictures, runs
from masuka.store import jobs as rows
from masuka.store.connect import Store
from masuka.store.jobs import Job

OWNER = Actor(user_id=1)
SHORT = Kind("draw", "gpu", "nowhere:draw", "Drawing")
LONG = Kind("train", "gpu", "nowhere:train", "Training", warm=False, resumes=True)
KINDS = {"draw": SHORT, "train": LONG}


class Bench:
    """A running job whose worker is this test."""

    def __init__(self, store: Store, workspace: Workspace) -> None:
        self.store = store
        self.workspace = workspace
        self.reporters: list[EventFile] = []

    def close(self) -> None:
        for reporter in self.reporters:
            reporter.close()

    def start(self, kind: str = "draw", **about: Any) -> tuple[Job, AttemptFiles, EventFile]:
        params = about.pop("params", {})
        job = queue.add_job(
            self.store, actor=OWNER, kind=kind, title=kind, request={}, params=params, kinds=KINDS, **about
        )
        return self.again(job)

    def again(self, job: Job) -> tuple[Job, AttemptFiles, EventFile]:
        claimed = queue.claim(self.store, job_id=job.id)
        assert claimed is not None
        files = AttemptFiles(self.workspace.jobs / str(job.id), claimed.fence).prepare()
        reporter = EventFile(files.events, files.scratch)
        self.reporters.append(reporter)
        reporter.started()
        return claimed, files, reporter

    def training(self) -> tuple[Job, AttemptFiles, EventFile]:
        who = characters.add_character(self.store, actor=OWNER, name="Mira", trigger_word="mra")
        run = runs.add_run(self.store, actor=OWNER, name="Mira 1", base="pocket", family="flux", config={})
        params = {
            "output": str(self.workspace.adapters / "00001-mira"),
            "base": {"id": "pocket"},
            "family": "flux",
            "name": "Mira 1",
            "trigger_word": "mra",
            "class_word": "robot",
            "request": {"steps": 3},
        }
        return self.start("train", params=params, run_id=run.id, character_id=who.id)

    def apply(self, job: Job, files: AttemptFiles) -> End | None:
        return apply_events(self.store, self.workspace, job.id, job.fence, files.events)

    def settle(self, job: Job, files: AttemptFiles, ending: End | Lost) -> Job | None:
        return settle(self.store, self.workspace, job.id, files, ending, KINDS[job.kind])

    def get(self, job: Job) -> Job:
        return rows.get_job(self.store, actor=OWNER, id=job.id)

    def history(self, job: Job, type: str) -> list[dict[str, Any]]:
        return [event.data for event in rows.list_job_events(self.store, actor=OWNER, id=job.id, type=type)]


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with Store.open(settings.workspace) as store:
        bench = Bench(store, settings.workspace)
        yield bench
        bench.close()


@pytest.fixture(scope="module")
def lasting_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    workspace = Workspace(root=tmp_path_factory.mktemp("lasting")).create()
    with Store.open(workspace) as store:
        bench = Bench(store, workspace)
        yield bench
        bench.close()


def test_progress_and_stage_reach_the_row(bench: Bench) -> None:
    job, files, reporter = bench.start()
    reporter.stage("Drawing")
    reporter.progress(3, 8, seconds_per_step=0.5)
    reporter.note("Half a picture.")
    assert bench.apply(job, files) is None
    now = bench.get(job)
    assert (now.stage, now.step, now.total, now.seconds_per_step) == ("Drawing", 3, 8, 0.5)
    assert now.message == "Half a picture."
    assert now.events_offset == files.events.stat().st_size
    assert now.events_seen == 4
    reporter.stage("Saving")
    bench.apply(job, files)
    assert (bench.get(job).step, bench.get(job).total, bench.get(job).seconds_per_step) == (0, 0, None)


def test_nothing_is_applied_twice_even_by_two_readers(bench: Bench) -> None:
    job, files, reporter = bench.start()
    for number in range(60):
        reporter.note(f"Note {number}.")
    readers = [threading.Thread(target=bench.apply, args=(job, files)) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    bench.apply(job, files)
    assert bench.history(job, "note") == [{"text": f"Note {number}."} for number in range(60)]


def test_a_torn_last_line_waits_for_its_rest(bench: Bench) -> None:
    job, files, reporter = bench.start()
    reporter.note("whole")
    line = json.dumps({"n": 3, "at": "2026-01-01T00:00:00+00:00", "type": "note", "text": "torn"}).encode()
    with files.events.open("ab") as file:
        file.write(line[:20])
    assert bench.apply(job, files) is None
    assert bench.history(job, "note") == [{"text": "whole"}]
    with files.events.open("ab") as file:
        file.write(line[20:] + b"\n")
    bench.apply(job, files)
    assert bench.history(job, "note") == [{"text": "whole"}, {"text": "torn"}]


def test_a_line_that_a_full_disk_cut_is_passed_over(bench: Bench) -> None:
    job, files, reporter = bench.start()
    with files.events.open("ab") as file:
        file.write(b'{"n": 2, "type": "no\n\n[1]\n{}\n\xff\xfe\n')
    reporter.note("after")
    assert bench.apply(job, files) is None
    assert bench.history(job, "note") == [{"text": "after"}]


def test_lines_longer_than_a_chunk_are_read_whole(bench: Bench) -> None:
    job, files, reporter = bench.start()
    reporter.note("x" * 3_000_000)
    reporter.note("short")
    bench.apply(job, files)
    assert [len(event["text"]) for event in bench.history(job, "note")] == [3_000_000, 5]


@hypothesis_settings(max_examples=25)
@given(cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=6))
def test_however_the_file_arrives_the_rows_are_the_same(lasting_bench: Bench, cuts: list[int]) -> None:
    bench = lasting_bench
    job, files, reporter = bench.start()
    reporter.stage("Drawing")
    for number in range(8):
        reporter.note(f"Note {number} \u2028 é.")
    reporter.done({"items": 8})
    whole = files.events.read_bytes()
    files.events.write_bytes(b"")
    end = None
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(whole)], strict=True):
        with files.events.open("ab") as file:
            file.write(whole[start:stop])
        end = bench.apply(job, files)
    assert end is not None
    assert end.event["result"] == {"items": 8}
    assert len(bench.history(job, "note")) == 8
    assert bench.get(job).stage == "Drawing"


def test_events_of_an_old_attempt_are_ignored(bench: Bench) -> None:
    job, files, reporter = bench.start("train")
    bench.apply(job, files)
    bench.settle(job, files, Lost(-9))
    second, new_files, _ = bench.again(job)
    assert (second.fence, second.attempt, second.events_offset) == (2, 2, 0)
    reporter.done({"from": "the dead"})
    assert bench.apply(job, AttemptFiles(files.folder, 1)) is None
    assert bench.settle(job, files, End("done", {"result": {}})) is None
    assert bench.apply(second, new_files) is None
    assert bench.get(job).state == "running"


def test_measurements_reach_the_run_and_a_repeated_step_replaces(bench: Bench) -> None:
    job, files, reporter = bench.training()
    for step in (1, 2, 3, 2, 3, 4):
        reporter.metric(
            step=step, epoch=0, loss=1 / step, learning_rate=1e-4, seconds_per_step=0.1, grad_norm=2.0
        )
    assert bench.apply(job, files) is None
    assert job.run_id is not None
    figures = runs.list_metrics(bench.store, actor=OWNER, run_id=job.run_id)
    assert [figure.step for figure in figures] == [1, 2, 3, 4]
    assert figures[3].loss == 0.25
    assert figures[3].extra == {"grad_norm": 2.0}


def test_a_loss_that_is_no_number_ends_the_training(bench: Bench) -> None:
    job, files, reporter = bench.training()
    reporter.metric(step=1, epoch=0, loss=0.5)
    reporter.metric(step=2, epoch=0, loss=math.nan)
    reporter.metric(step=3, epoch=0, loss=0.4)
    end = bench.apply(job, files)
    assert end is not None
    failed = bench.settle(job, files, end)
    assert failed is not None
    assert failed.state == "failed"
    assert failed.error is not None
    assert "no longer a number at step 2" in failed.error["message"]
    assert job.run_id is not None
    assert [m.step for m in runs.list_metrics(bench.store, actor=OWNER, run_id=job.run_id)] == [1]


def test_a_sample_that_is_drawn_again_is_one_sample(bench: Bench) -> None:
    job, files, reporter = bench.training()
    file = bench.workspace.runs / "00001" / "samples" / "0250-0.png"
    for _ in range(2):
        reporter.artefact("sample", file, step=250, prompt="mra robot", seed=42)
    bench.apply(job, files)
    assert job.run_id is not None
    (sample,) = runs.list_samples(bench.store, actor=OWNER, run_id=job.run_id)
    assert (sample.file, sample.step, sample.seed) == ("runs/00001/samples/0250-0.png", 250, 42)


def test_an_adapter_becomes_a_model_once_and_completes_its_character(bench: Bench) -> None:
    job, files, reporter = bench.training()
    file = bench.workspace.adapters / "00001-mira" / "mira.safetensors"
    reporter.artefact("adapter", file, name="Mira 1", sha256="a" * 64, config={"rank": 16})
    reporter.artefact("adapter", file, name="Mira 1", sha256="b" * 64, config={"rank": 16})
    reporter.done({"steps": 3})
    end = bench.apply(job, files)
    assert end is not None
    done = bench.settle(job, files, end)
    assert done is not None
    assert done.state == "done"
    (model,) = models.list_models(bench.store, actor=OWNER, kind="adapter")
    assert (model.path, model.sha256) == ("adapters/00001-mira/mira.safetensors", "b" * 64)
    assert (model.base, model.family, model.trigger_word, model.class_word) == (
        "pocket",
        "flux",
        "mra",
        "robot",
    )
    assert (model.run_id, model.character_id, model.config) == (job.run_id, job.character_id, {"rank": 16})
    character = characters.get_character(bench.store, actor=OWNER, id=job.character_id or 0)
    assert (character.status, character.base) == ("completed", "pocket")


def test_an_item_is_kept_once_and_forgets_an_adapter_that_was_deleted(bench: Bench) -> None:
    job, files, reporter = bench.start(params={"adapter": {"id": 4711}})
    file = bench.workspace.items / "2026-01-01" / "a.png"
    about = {"width": 128, "height": 128, "prompt": "a robot", "seed": 3, "settings": {"steps": 20}}
    reporter.artefact("preview", bench.workspace.items / "previews" / "1.webp")
    for _ in range(2):
        reporter.artefact("item", file, **about)
    bench.apply(job, files)
    (item,) = items.list_items(bench.store, actor=OWNER)
    assert (item.file, item.job_id, item.adapter_id) == ("media/items/2026-01-01/a.png", job.id, None)
    assert item.settings == {"steps": 20}
    kept = bench.history(job, "artefact")
    assert [event["id"] for event in kept] == [item.id, item.id]


def test_a_picture_that_is_there_already_is_no_second_one(bench: Bench) -> None:
    dataset = datasets.add_dataset(bench.store, actor=OWNER, name="Robots", trigger_word="rbt")
    job, files, reporter = bench.start(params={"dataset_id": dataset.id})
    for name in ("a.png", "b.png"):
        reporter.artefact(
            "picture", bench.workspace.datasets / name, original_name=name, sha256="c" * 64,
            width=8, height=8, bytes=9, caption="a rbt robot",
        )  # fmt: skip
    assert bench.apply(job, files) is None
    (picture,) = pictures.list_pictures(bench.store, actor=OWNER, dataset_id=dataset.id)
    assert picture.original_name == "a.png"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "artefact", "kind": "picture", "path": "/x.png", "about": {}},
        {"type": "metric", "step": 1, "epoch": 0, "values": {}},
        {"type": "progress", "step": "many", "total": 1},
        {"type": "surprise"},
        {"type": "stage"},
    ],
    ids=lambda event: event["type"],
)
def test_an_event_that_cannot_be_recorded_fails_the_job_and_keeps_what_came_before(
    bench: Bench, event: dict[str, Any]
) -> None:
    job, files, reporter = bench.start()
    reporter.note("before")
    reporter.send(**{**event, "type": event["type"]})
    reporter.note("after")
    end = bench.apply(job, files)
    assert end is not None
    assert end.type == "failed"
    assert from_dict(end.event["error"]).message
    assert bench.history(job, "note") == [{"text": "before"}]
    failed = bench.settle(job, files, end)
    assert failed is not None
    assert failed.state == "failed"


def unfinished_output(bench: Bench) -> Path:
    output = bench.workspace.adapters / "00001-mira"
    output.mkdir()
    (output / "half.safetensors").write_text("half")
    return output


@pytest.mark.parametrize(
    ("kind", "asked", "began", "ending", "states", "words"),
    [
        ("draw", "", True, End("done", {"result": {"items": 1}}), ["done"], ""),
        ("draw", "cancel", True, End("done", {"result": {"items": 1}}), ["cancelled"], "Cancelled."),
        ("draw", "cancel", True, End("stopped", {"why": "cancel"}), ["cancelled"], "Cancelled."),
        ("draw", "", True, End("stopped", {"why": "cancel"}), ["cancelled"], "Cancelled."),
        ("draw", "cancel", True, Lost(-9), ["cancelled"], "Cancelled."),
        ("draw", "", True, Lost(-9), ["failed"], "memory (RAM) ran out"),
        ("draw", "", True, Lost(-11), ["failed"], "signal SIGSEGV"),
        ("draw", "", True, Lost(3), ["failed"], "exit code 3"),
        ("draw", "", True, Lost(failures.EXIT_CANNOT_WRITE), ["failed"], "could not write"),
        ("draw", "", True, Lost(None), ["interrupted"], "Interrupted"),
        ("draw", "", True, End("stopped", {"why": "pause"}), ["interrupted"], "Interrupted"),
        ("draw", "", False, Lost(None), ["interrupted", "queued"], "goes on by itself"),
        ("draw", "", False, Lost(1), ["interrupted", "queued"], "goes on by itself"),
        ("train", "pause", True, End("stopped", {"why": "pause"}), ["paused"], "Paused."),
        ("train", "", True, End("stopped", {"why": "pause"}), ["interrupted", "queued"], "by itself"),
        ("train", "pause", True, Lost(-9), ["paused"], "Paused."),
        ("train", "cancel", True, End("stopped", {"why": "pause"}), ["cancelled"], "Cancelled."),
        ("train", "", True, Lost(-9), ["interrupted", "queued"], "by itself"),
        ("train", "", True, Lost(None), ["interrupted", "queued"], "by itself"),
        ("train", "", True, End("failed", {"error": {"message": "Bad."}}), ["failed"], "Bad."),
    ],
)
def test_every_end_has_its_state_and_words_and_leaves_nothing(
    bench: Bench, kind: str, asked: str, began: bool, ending: End | Lost, states: list[str], words: str
) -> None:
    output = unfinished_output(bench)
    job, files, _ = bench.start(kind, params={"output": str(output)})
    if began:
        bench.apply(job, files)
    rows.set_job(bench.store, id=job.id, asked=asked)
    settled = bench.settle(job, files, ending)
    assert settled is not None
    assert [event["to"] for event in bench.history(job, "state")][2:] == states
    assert words in settled.message
    assert (settled.error is not None) == (states == ["failed"])
    assert list(files.folder.iterdir()) == []
    assert output.exists() == (states[0] in ("done", "paused"))
    assert bench.settle(job, files, ending) is None, "whoever comes second changes nothing"


@pytest.mark.parametrize("kind", ["checkpoint", "adapter"])
def test_output_stays_while_something_in_it_is_of_use(bench: Bench, kind: str) -> None:
    job, files, reporter = bench.training()
    output = unfinished_output(bench)
    reporter.artefact(kind, output / "half.safetensors", step=10, sha256="a" * 64)
    bench.apply(job, files)
    bench.settle(job, files, End("failed", {"error": {"message": "Bad."}}))
    assert output.exists()


def run_folder(bench: Bench) -> Path:
    """What a training keeps while it runs."""
    folder = bench.workspace.runs / "00001"
    for name in ("caches/latents", "checkpoints", "samples"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("x")
    return folder


def left_of(folder: Path) -> list[str]:
    return sorted(part.name for part in folder.iterdir())


@pytest.mark.parametrize(
    ("ending", "caches"),
    [
        (End("failed", {"error": {"message": "Bad."}}), False),
        (End("stopped", {"why": "cancel"}), False),
        (Lost(-9), True),
        (End("stopped", {"why": "pause"}), True),
    ],
)
def test_a_training_that_ended_keeps_its_checkpoints_only(bench: Bench, ending: End | Lost, caches: bool) -> None:
    kept = run_folder(bench)
    output = unfinished_output(bench)
    half = output.rename(f"{output}.partial")
    job, files, _ = bench.start("train", params={"output": str(output), "run_folder": str(kept)})
    bench.apply(job, files)
    assert bench.settle(job, files, ending) is not None
    assert left_of(kept) == (["caches", "checkpoints", "samples"] if caches else ["checkpoints", "samples"])
    assert not half.exists()


@pytest.mark.parametrize("state", ["paused", "interrupted"])
def test_cancelling_a_training_that_waits_deletes_what_it_left(bench: Bench, state: str) -> None:
    kept = run_folder(bench)
    output = unfinished_output(bench)
    half = output.rename(f"{output}.partial")
    job, _, _ = bench.start("train", params={"output": str(output), "run_folder": str(kept)})
    assert queue.move(bench.store, job.id, state) is not None
    assert cancel(bench.store, workspace=bench.workspace, actor=OWNER, job_id=job.id)
    assert bench.get(job).state == "cancelled"
    assert left_of(kept) == ["checkpoints", "samples"]
    assert not half.exists()


def test_cancelling_a_training_that_runs_leaves_its_files_to_its_end(bench: Bench) -> None:
    kept = run_folder(bench)
    job, _, _ = bench.start("train", params={"run_folder": str(kept)})
    assert cancel(bench.store, workspace=bench.workspace, actor=OWNER, job_id=job.id)
    assert bench.get(job).state == "running"
    assert left_of(kept) == ["caches", "checkpoints", "samples"]


def test_a_lora_of_an_earlier_attempt_survives_the_cancel_of_the_next(bench: Bench) -> None:
    output = unfinished_output(bench)
    first, files, reporter = bench.training()
    reporter.artefact("adapter", output / "half.safetensors", sha256="a" * 64)
    bench.apply(first, files)
    bench.settle(first, files, End("failed", {"error": {"message": "Bad."}}))
    again = queue.retry(bench.store, actor=OWNER, job_id=first.id, kinds=KINDS)
    assert cancel(bench.store, workspace=bench.workspace, actor=OWNER, job_id=again.id)
    assert left_of(output) == ["half.safetensors"]


@dataclass(frozen=True)
class SlowFiles(AttemptFiles):
    """Files that take so long to go that a person cancels meanwhile."""

    meanwhile: Callable[[], object]

    def sweep_scratch(self) -> None:
        super().sweep_scratch()
        self.meanwhile()


@pytest.mark.parametrize(
    "ending", [End("done", {"result": {"items": 1}}), End("stopped", {"why": "pause"}), Lost(-9)]
)
def test_a_cancel_while_the_files_go_is_heeded(bench: Bench, ending: End | Lost) -> None:
    output = unfinished_output(bench)
    job, files, _ = bench.start("train", params={"output": str(output)})
    bench.apply(job, files)
    asks = iter([lambda: queue.ask_cancel(bench.store, actor=OWNER, job_id=job.id)])
    slow = SlowFiles(files.folder, files.fence, lambda: next(asks, bool)())
    settled = bench.settle(job, slow, ending)
    assert settled is not None
    assert settled.state == "cancelled"
    assert not output.exists()


@pytest.mark.parametrize("output", ["", ".", "adapters", "..", "/", "../elsewhere/deep/folder"])
def test_only_a_folder_deep_inside_the_workspace_is_ever_deleted(bench: Bench, output: str) -> None:
    elsewhere = bench.workspace.root.parent / "elsewhere" / "deep" / "folder"
    elsewhere.mkdir(parents=True)
    job, files, _ = bench.start(params={"output": output})
    assert bench.settle(job, files, Lost(-9)) is not None
    assert elsewhere.exists()
    assert bench.workspace.adapters.exists()


def test_a_checkpoint_gives_three_new_attempts_and_the_third_loss_ends_it(bench: Bench) -> None:
    job, files, reporter = bench.training()

    def lose(*, with_checkpoint: bool) -> str:
        nonlocal files, reporter, job
        if with_checkpoint:
            reporter.artefact("checkpoint", bench.workspace.runs / "1" / "checkpoint", step=250)
        bench.apply(job, files)
        settled = bench.settle(job, files, Lost(-9))
        assert settled is not None
        if settled.state == "queued":
            job, files, reporter = bench.again(job)
        return settled.state

    course = [lose(with_checkpoint=kept) for kept in (False, False, True, False)]
    assert course == ["queued"] * 4
    assert lose(with_checkpoint=False) == "failed"
    failed = bench.get(job)
    assert failed.error is not None
    assert failed.error["message"].startswith("The job was lost 3 times without a new checkpoint.")
    assert (failed.error["type"], failed.attempt) == ("OutOfMemory", 5)


def test_apps_that_die_before_a_job_began_are_not_held_against_it(bench: Bench) -> None:
    job, files, _ = bench.start()
    for _ in range(5):
        settled = bench.settle(job, files, Lost(None))
        assert settled is not None
        assert settled.state == "queued"
        job, files, _ = bench.again(job)
    assert bench.get(job).failures_without_checkpoint == 0


def test_a_start_settles_what_died_and_leaves_alone_what_lives(bench: Bench, settings: Settings) -> None:
    done, _, reporter = bench.start()
    reporter.note("The app is dead already.")
    reporter.done({"items": 1})
    lost, _, _ = bench.start()
    untouched, _, _ = bench.start("train")
    rows.set_job(bench.store, id=untouched.id, pid=os.getpid(), pid_started=psutil.Process().create_time())
    reused, reused_files, _ = bench.start()
    bench.apply(reused, reused_files)
    rows.set_job(bench.store, id=reused.id, pid=os.getpid(), pid_started=1.0)
    assert recover(bench.store, settings, kinds=KINDS) == 3
    assert (bench.get(done).state, bench.get(done).result) == ("done", {"items": 1})
    assert bench.history(done, "note") == [{"text": "The app is dead already."}]
    assert bench.get(lost).state == "interrupted"
    assert bench.get(untouched).state == "running"
    assert bench.get(reused).state == "interrupted", "the number of its process is somebody else's now"
    assert recover(bench.store, settings, kinds=KINDS) == 0


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "type_", "words"),
    [
        (InvalidInput("Too wide."), InvalidInput, "Too wide."),
        (OSError(28, "No space left on device"), OutOfDisk, "disk is full"),
        (SafetensorError("I/O error: No space left (os error 28)"), OutOfDisk, "disk is full"),
        (SafetensorError("I/O error: Disk quota exceeded (os error 122)"), OutOfDisk, "disk is full"),
        (OSError(12, "Cannot allocate memory"), OutOfMemory, "RAM"),
        (MemoryError(), OutOfMemory, "RAM"),
        (OutOfMemoryError("Tried to allocate"), OutOfMemory, "GPU"),
        (RuntimeError("CUDA out of memory. Tried"), OutOfMemory, "GPU"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemory, "RAM"),
    ],
)
def test_an_exception_becomes_a_sentence(error: Exception, type_: type[MasukaError], words: str) -> None:
    told = failures.from_exception(error)
    assert type(told) is type_
    assert words in str(told)


@pytest.mark.parametrize(
    "error", [ValueError("out of range"), KeyError("memory"), OSError(2, "No such file")]
)
def test_a_bug_has_no_sentence_of_its_own(error: Exception) -> None:
    assert failures.from_exception(error) is None


def test_the_four_ends_are_four_sentences() -> None:
    gpu = failures.from_exception(OutOfMemoryError())
    assert gpu is not None
    told = {
        gpu.message,
        failures.from_exit(-signal.SIGKILL).message,
        failures.from_exit(-signal.SIGSEGV).message,
        failures.from_exit(None).message,
    }
    assert len(told) == 4


def test_rows_of_jobs_are_frozen(bench: Bench) -> None:
    job, _, _ = bench.start()
    assert replace(job, state="done").state == "done"
    with pytest.raises(AttributeError):
        job.state = "done"  # type: ignore[misc]
    with pytest.raises(TypeError, match="no column"):
        rows.set_job(bench.store, id=job.id, colour="red")
