"""The command line on a real workspace: answers, sentences, exit codes, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from masuka.cli import app
from masuka.families import FAMILIES
from masuka.hosting.machine import Gpu
from masuka.models import catalogue
from masuka.requests.base import params
from masuka.requests.images import DrawImages
from masuka.requests.training import TrainImage

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASUKA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MASUKA_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    # What the command sets for this process is undone after the test.
    from masuka.config import Settings, quiet_environment

    for name, value in quiet_environment(Settings.from_environment().workspace).items():
        monkeypatch.setenv(name, value)


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{arguments}: {result.exit_code}\n{result.output}\n{result.stderr}"
    return result


def data(*arguments: str, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def dataset_id() -> int:
    return int(data("dataset", "create", "Mira", "--trigger-word", "mira7x", "--class-word", "robot")["id"])


def picture(file: Path, colour: str = "red") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 80), colour).save(file)
    return file


def test_a_data_set_from_a_folder_to_a_zip(dataset_id: int, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b.png", "blue")
    (tmp_path / "in" / "b.txt").write_text("mira7x in the garden")
    (tmp_path / "in" / "c.png").write_text("no picture at all")
    added = data("dataset", "add", str(dataset_id), str(tmp_path / "in"))
    assert added["added"] == 2
    assert [r["name"] for r in added["refused"]] == ["c.png"]
    captions = {p["original_name"]: p["caption"] for p in data("dataset", "captions", str(dataset_id))}
    assert captions == {"a.png": "a picture of mira7x robot", "b.png": "mira7x in the garden"}
    data("dataset", "edit-captions", str(dataset_id), "--action", "suffix", "--text", ", smiling")
    assert "smiling" in run("dataset", "captions", str(dataset_id)).stdout
    file = Path(data("dataset", "export", str(dataset_id), "out.zip")["file"])
    with zipfile.ZipFile(file) as archive:
        assert sum(n.endswith(".png") for n in archive.namelist()) == 2
    assert data("dataset", "list")[0]["picture_count"] == 2
    data("dataset", "delete", str(dataset_id), "--yes")
    assert data("dataset", "list") == []


def test_sample_pictures_need_no_files(dataset_id: int) -> None:
    assert data("dataset", "samples", str(dataset_id), "--count", "3")["added"] == 3
    assert data("dataset", "samples", str(dataset_id), "--count", "3")["duplicates"] == 3
    assert "3 were there already" in run("dataset", "samples", str(dataset_id), "--count", "3").stdout


def test_jobs_are_listed_shown_and_deleted(dataset_id: int) -> None:
    job_id = str(data("dataset", "samples", str(dataset_id), "--count", "1")["job_id"])
    assert data("jobs", "list", "--state", "done")[0]["id"] == int(job_id)
    assert data("jobs", "list", "--state", "failed") == []
    shown = run("jobs", "show", job_id).stdout
    assert "queued → running" in shown and "made picture" in shown
    run("jobs", "log", job_id)
    assert "done" in run("jobs", "watch", job_id).stdout
    assert data("jobs", "cancel", job_id) == {"asked": 0}
    run("jobs", "delete", job_id, "--yes")
    assert data("jobs", "list") == []


def test_a_queued_job_is_cancelled_and_tried_again(dataset_id: int) -> None:
    data("dataset", "samples", str(dataset_id), "--count", "1")
    refused = run("train", "image", str(dataset_id), "--steps", "90000", "--later", code=1)
    assert "10 to 4,000" in refused.stderr
    job = data("train", "image", str(dataset_id), "--steps", "20", "--later")["job"]
    assert (job["state"], job["request"]["steps"]) == ("queued", 20)
    assert "params" not in job
    assert data("jobs", "cancel", str(job["id"])) == {"asked": 1}
    assert data("jobs", "show", str(job["id"]))["job"]["state"] == "cancelled"
    assert data("jobs", "retry", str(job["id"]))["state"] == "queued"


def a_base_of_real_size() -> str:
    """A base whose files are there, as after its download."""
    from masuka.config import Settings

    folder = Settings.from_environment().workspace.models / "flux1-dev"
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "config.json").write_text("{}")
    (folder / "model_index.json").write_text('{"vae": ["diffusers", "AutoencoderKL"]}')
    (folder / catalogue.FINISHED).write_text("{}")
    return folder.name


def test_trainings_are_listed_and_deleted(dataset_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASUKA_DEVICE", "auto")
    monkeypatch.setattr(
        "masuka.hosting.machine.list_gpus", lambda: [Gpu("a card", 80.0, 80.0, (9, 0), "570")]
    )
    data("dataset", "samples", str(dataset_id), "--count", "1")
    start = ("train", "image", str(dataset_id), "--base", a_base_of_real_size(), "--later")
    first, second = (data(*start)["job"]["run_id"] for _ in range(2))
    assert [(r["id"], r["status"]) for r in data("train", "list")] == [(second, "queued"), (first, "queued")]
    declined = CliRunner().invoke(app, ["train", "delete", str(first)], input="n\n")
    assert declined.exit_code == 1
    assert "checkpoints" in declined.stderr
    assert data("train", "delete", str(first), "--yes") == {"deleted": first}
    assert [r["id"] for r in data("train", "list")] == [second]
    assert [j["run_id"] for j in data("jobs", "list", "--state", "queued")] == [second]
    assert "no training" in run("train", "delete", str(first), "--yes", code=1).stderr


def test_characters() -> None:
    made = data("character", "create", "Mira", "--trigger-word", "mira7x")
    assert made["name"] == "Mira"
    assert "Mira" in run("character", "create", "Mira", "--trigger-word", "mira7x", code=1).stderr
    assert [c["name"] for c in data("character", "list")] == ["Mira"]
    run("character", "delete", str(made["id"]), "--yes")
    assert "No characters yet" in run("character", "list").stdout


def test_deleting_asks_first(dataset_id: int) -> None:
    result = CliRunner().invoke(app, ["dataset", "delete", str(dataset_id)], input="n\n")
    assert result.exit_code == 1
    assert "Delete Mira" in result.stderr
    assert len(data("dataset", "list")) == 1


def test_the_database_is_migrated_checked_backed_up_and_restored() -> None:
    assert [s["status"] for s in data("db", "migrate")["steps"]] == ["done"] * len(data("db", "migrate")["steps"])
    assert {s["status"] for s in data("db", "migrate")["steps"]} == {"already done"}
    assert data("db", "check")["problems"] == []
    assert "All is well" in run("db", "check").stdout
    run("character", "create", "Before", "--trigger-word", "before1")
    backup = data("db", "backup")["file"]
    run("character", "create", "After", "--trigger-word", "after1")
    assert backup in run("db", "backup", "--list").stdout
    run("db", "restore", backup, "--yes")
    assert [c["name"] for c in data("character", "list")] == ["Before"]


def test_a_missing_database_is_a_sentence() -> None:
    assert "There is no database" in run("db", "check", code=1).stderr
    assert "no backups" in run("db", "restore", "--yes", code=1).stderr


def test_an_import_without_an_old_database_is_a_sentence(tmp_path: Path) -> None:
    answer = run("db", "import-masuka2", str(tmp_path / "nothing.db"), code=1)
    assert "Traceback" not in answer.output and answer.stderr.strip()


def test_the_doctor_has_a_finding_for_each_thing() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    findings = {f["name"]: f for f in json.loads(result.stdout)["findings"]}
    assert {"python", "packages", "torch", "gpu", "disk", "database", "pocket", "port"} <= set(findings)
    assert result.exit_code == any(f["state"] == "bad" for f in findings.values())
    assert "Python" in CliRunner().invoke(app, ["doctor"]).stdout


def test_diagnostics_are_a_zip(tmp_path: Path) -> None:
    file = Path(data("diagnostics", "bundle.zip")["file"])
    with zipfile.ZipFile(file) as archive:
        assert "report.json" in archive.namelist()


def test_a_link_works_for_this_installation() -> None:
    first, second = data("link")["link"], data("link", "--address", "https://studio.example.org/")["link"]
    assert first.startswith("http://127.0.0.1:7860/?token=")
    assert second.startswith("https://studio.example.org/?token=")
    assert first.partition("token=")[2] != second.partition("token=")[2]


def test_models_and_their_settings() -> None:
    listed = data("models", "list")
    assert "pocket" in {b["id"] for b in listed["bases"]}
    shown = run("models", "show", "pocket").stdout
    assert "always 128 px" in shown
    assert "There is no base model" in run("models", "show", "nothing", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("dataset", "captions", "99"), "no"),
        (("dataset", "create", "X", "--trigger-word", "two words"), "trigger word must be one word"),
        (("generate", "image", "a robot", "--num-images", "99", "--base", "pocket"), "1 to 8"),
        (("generate", "image", "a robot", "--adapter", "77"), "no"),
        (("jobs", "show", "5"), "no"),
    ],
)
def test_a_refusal_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    result = run(*arguments, code=1)
    assert sentence in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    error = data(*arguments, code=1)["error"]
    assert error["message"] and set(error) >= {"type", "message", "hint"}


@pytest.mark.parametrize(
    "arguments", [("dataset",), ("nothing",), ("dataset", "captions"), ("dataset", "captions", "x"), ("jobs", "cancel")]
)
def test_what_is_not_understood_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, list(arguments)).exit_code == 2


@pytest.mark.parametrize(
    ("command", "request_type", "omitted"),
    [(("train", "image"), TrainImage, {"dataset_id"}), (("generate", "image"), DrawImages, {"prompt"})],
)
def test_every_setting_is_an_option(
    command: tuple[str, ...], request_type: type[Any], omitted: set[str]
) -> None:
    text = run(*command, "--help").stdout
    for name in params(request_type):
        if name not in omitted:
            assert f"--{name.replace('_', '-')}" in text, name


def test_options_state_the_range_that_is_enforced() -> None:
    text = " ".join(run("train", "image", "--help").stdout.split())
    by_base = {n for family in FAMILIES.values() for entry in family.entries for n in entry.train_limits}
    for name, param in params(TrainImage).items():
        if param.range_sentence and param.kind in ("int", "float") and name not in by_base:
            assert param.range_sentence in text.replace("At least", "at least"), name


def test_a_bug_is_a_reference_and_never_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "jobs").write_text("a file where a folder belongs")
    result = CliRunner().invoke(app, ["dataset", "list"])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert result.stderr.strip()


def test_python_m_masuka_runs() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "masuka", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "demo" in answer.stdout


def test_layouts_links_and_a_push_without_a_token(dataset_id: int, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    run("dataset", "add", str(dataset_id), str(tmp_path / "in"))
    run("dataset", "export", str(dataset_id), str(tmp_path / "k.zip"), "--layout", "kohya")
    with zipfile.ZipFile(tmp_path / "k.zip") as archive:
        assert archive.namelist() == ["10_mira7x robot/a.png", "10_mira7x robot/a.txt"]
    assert data("dataset", "export", str(dataset_id), "x.zip", "--layout", "rar", code=1)["error"]["field"] == "layout"
    (tmp_path / "links.txt").write_text("http://127.0.0.1/a.png\n")
    answer = data("dataset", "add-links", str(dataset_id), str(tmp_path / "links.txt"))
    assert answer["added"] == 0 and answer["refused"][0]["message"] == "This address leads to this machine or its network, not outside."
    told = run("dataset", "push", str(dataset_id), "--repo", "a/b", "--licence", "mit", "--consent", "Nobody.", code=1)
    assert "There is no Hugging Face token." in told.stderr


def test_a_training_is_planned_before_and_branched_after(
    dataset_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("masuka.hosting.machine.list_gpus", lambda: [Gpu("a card", 8.0, 8.0, (8, 0), "570")])
    data("dataset", "samples", str(dataset_id), "--count", "2")
    found = data("train", "plan", str(dataset_id), "--steps", "20")
    assert found["fits"] is True
    assert found["request"]["steps"] == 20
    assert found["estimate"]["gpu_bytes"] > 0
    asked = ("train", "plan", str(dataset_id), "--base", "flux1-dev", "--resolution-px", "2048")
    refused = run(*asked, "--batch-size", "7", "--gradient-checkpointing", "off", "--preset", "ai-toolkit", code=1)
    assert "more than there is" in refused.output
    assert "FLUX.1 dev" in run("train", "memory").output
    swept = data("train", "sweep", str(dataset_id), "--ranks", "4", "--ranks", "8", "--later")
    assert [row["settings"] for row in swept["rows"]] == [{"rank": 4}, {"rank": 8}]
    assert "nothing to compare" in run("train", "sweep", str(dataset_id), code=1).stderr
    assert "no training" in run("train", "extend", "99", "5", code=1).output
    assert "no training" in run("train", "branch", "99", "5", code=1).output
