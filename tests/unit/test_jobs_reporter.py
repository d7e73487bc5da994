"""What a worker writes: whole numbered lines, sparing progress, a stop that is noticed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from masuka.errors import InvalidInput, Stop
from masuka.jobs.files import LOG_BYTES, AttemptFiles, log_tail, put_aside_long_log, stop_reason
from masuka.jobs.reporter import EventFile, StopFlag


def events_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "1" / "1.jsonl"


def test_events_are_numbered_lines_that_are_there_at_once(file: Path) -> None:
    seen: list[dict[str, Any]] = []
    reporter = EventFile(file, file.parent / "scratch", on_event=seen.append)
    reporter.started()
    reporter.stage("Training")
    reporter.metric(step=1, epoch=0, loss=0.5, learning_rate=1e-4)
    reporter.artefact("sample", Path("/a/b.png"), step=1, prompt='a "robot"\n', seed=7)
    reporter.note("Hello.")
    reporter.done({"steps": 1})
    reporter.close()
    events = events_of(file)
    assert [event["n"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event["type"] for event in events] == ["started", "stage", "metric", "artefact", "note", "done"]
    assert events[2]["values"] == {"loss": 0.5, "learning_rate": 1e-4}
    assert events[3]["about"] == {"step": 1, "prompt": 'a "robot"\n', "seed": 7}
    assert events == seen
    assert reporter.scratch.is_dir()


def test_progress_is_sparing_but_never_misses_the_end_or_the_pace(file: Path) -> None:
    reporter = EventFile(file, file.parent / "scratch")
    reporter.stage("Training")
    for step in range(1, 1001):
        reporter.progress(step, 1000)
    reporter.stage("Saving")
    reporter.progress(1, 3)
    reporter.progress(2, 3, seconds_per_step=0.25)
    reporter.close()
    steps = [event for event in events_of(file) if event["type"] == "progress"]
    assert len(steps) < 100
    last = next(event for event in reversed(steps) if event["total"] == 1000)
    assert last["step"] == 1000
    assert 0 < last["seconds_per_step"] < 1
    assert [event["step"] for event in steps if event["total"] == 3] == [1]


def test_threads_of_a_job_do_not_mix_their_lines(file: Path) -> None:
    reporter = EventFile(file, file.parent / "scratch")
    threads = [
        threading.Thread(target=lambda n=n: [reporter.note(f"{n}" * 200) for _ in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reporter.close()
    assert sorted(event["n"] for event in events_of(file)) == list(range(1, 201))


def test_a_stop_is_noticed_and_passes_every_except_exception(tmp_path: Path) -> None:
    files = AttemptFiles(tmp_path / "7", 2).prepare()
    reporter = EventFile(files.events, files.scratch, lambda: stop_reason(files.stop))
    reporter.check()
    files.ask("pause")
    with pytest.raises(Stop) as stopped:
        try:
            reporter.check()
        except Exception as error:
            raise AssertionError("a Stop is no Exception") from error
    assert stopped.value.why == "pause"
    files.ask("cancel")
    assert stop_reason(files.stop) == "cancel"
    reporter.close()


def test_the_flag_is_looked_at_no_more_than_it_needs(tmp_path: Path) -> None:
    flag = StopFlag(tmp_path / "stop")
    assert flag() is None
    (tmp_path / "stop").write_text("cancel")
    looks = iter(range(10**9))
    assert next(n for n in looks if flag()) > 0, "a look within 50 ms of the last costs no stat"
    assert flag() is None


def test_a_failure_carries_its_fields(file: Path) -> None:
    reporter = EventFile(file, file.parent / "scratch")
    reporter.failed(InvalidInput("Too wide.", "Use 512.", field="width"), reference="abcd")
    reporter.close()
    assert events_of(file)[0]["error"] == {
        "type": "InvalidInput", "message": "Too wide.", "hint": "Use 512.", "field": "width", "reference": "abcd",
    }  # fmt: skip


def test_a_full_disk_is_an_error_of_the_job() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    reporter = EventFile(full, Path("/tmp"))
    with pytest.raises(OSError, match="No space left"):
        reporter.note("x")
    reporter.close()


def test_a_new_attempt_starts_clean_and_the_first_owns_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "3"
    stranger = AttemptFiles(folder, 5)
    stranger.scratch.mkdir(parents=True)
    stranger.events.write_text("{}")
    stranger.log.write_text("of a job that had this number before")
    first = AttemptFiles(folder, 1).prepare()
    assert list(folder.iterdir()) == []
    first.log.write_text("first attempt\n")
    first.events.write_text("{}")
    first.ask("pause")
    AttemptFiles(folder, 2).prepare()
    assert [f.name for f in folder.iterdir()] == ["log.txt"]


def test_asking_after_the_folder_is_gone_makes_none(tmp_path: Path) -> None:
    AttemptFiles(tmp_path / "9", 1).ask("cancel")
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_a_log_is_whole_lines_as_they_last_looked(tmp_path: Path) -> None:
    assert log_tail(tmp_path) == ""
    (tmp_path / "log.txt").write_text("GET https://host/file?token=hf_canary123456\n")
    assert "canary" not in log_tail(tmp_path)
    (tmp_path / "log.txt").write_bytes(b"one\n 1%\r50%\r100%\ntwo\r\nth\xffree\n")
    assert log_tail(tmp_path) == "one\n100%\ntwo\nth\ufffdree\n"
    assert log_tail(tmp_path, tail_bytes=10) == "th\ufffdree\n"


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert not put_aside_long_log(log)
    log.write_text("short")
    assert not put_aside_long_log(log)
    with log.open("wb") as file:
        file.truncate(LOG_BYTES)
    assert put_aside_long_log(log)
    assert not log.exists()
    assert (tmp_path / "log.old.txt").stat().st_size == LOG_BYTES
