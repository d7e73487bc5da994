"""What kind of host this is, what it has, whether the installation is well."""

from __future__ import annotations

import json
import stat
import zipfile
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from masuka import logs
from masuka.config import Settings, Workspace
from masuka.hosting import diagnostics, doctor, runtime
from masuka.hosting.machine import disk_free_gib, likely_device, machine
from masuka.requests import Actor
from masuka.studio import Studio
from masuka.ui import health
from masuka.ui.view import View


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        ("COLAB_RELEASE_TAG", "colab"),
        ("KAGGLE_KERNEL_RUN_TYPE", "kaggle"),
        ("SPACE_ID", "space"),
        ("RUNPOD_POD_ID", "runpod"),
        ("SOMETHING_ELSE", "local"),
    ],
)
def test_hosts_are_told_apart(mark: str, name: str, tmp_path: Path) -> None:
    assert runtime.detect({mark: ""}, root=tmp_path).name == name


@pytest.mark.parametrize("name", ["colab", "kaggle", "docker"])
def test_a_notebook_tells_the_host_to_what_it_starts(name: str, tmp_path: Path) -> None:
    assert runtime.detect({"MASUKA_PLATFORM": name}, root=tmp_path).name == name


def test_a_container_is_told_by_its_file(tmp_path: Path) -> None:
    (tmp_path / ".dockerenv").touch()
    assert runtime.detect({}, root=tmp_path).name == "docker"


def test_a_space_without_its_own_gpu_is_known(tmp_path: Path) -> None:
    assert runtime.detect({"SPACE_ID": "", "SPACES_ZERO_GPU": ""}, root=tmp_path).zero_gpu
    assert not runtime.detect({"SPACE_ID": ""}, root=tmp_path).zero_gpu


def test_where_the_hosts_own_proxy_shows_the_page(tmp_path: Path) -> None:
    space = runtime.detect({"SPACE_ID": "", "SPACE_HOST": "me-masuka.hf.space,studio.example.org"}, root=tmp_path)
    assert space.public_address == "https://me-masuka.hf.space"
    assert space.host_names == ("me-masuka.hf.space", "studio.example.org")
    assert "https://huggingface.co" in space.framed_by
    pod = runtime.detect({"RUNPOD_POD_ID": "abc123"}, root=tmp_path, port=7861)
    assert pod.public_address == "https://abc123-7861.proxy.runpod.net"
    assert pod.framed_by == ()
    assert runtime.detect({}, root=tmp_path).public_address == ""
    colab = runtime.detect({"MASUKA_PLATFORM": "colab"}, root=tmp_path)
    assert (colab.public_address, bool(colab.framed_by)) == ("", True)


def test_the_machine_has_figures(tmp_path: Path) -> None:
    here = machine(tmp_path / "not" / "there" / "yet")
    assert here.cpu_count >= 1
    assert 0 < here.ram_free_gib <= here.ram_total_gib
    assert here.disk_free_gib == pytest.approx(disk_free_gib(tmp_path), abs=1)
    assert bool(here.gpu) == bool(here.gpus)
    json.dumps(here.as_dict())


def test_the_device_follows_the_setting() -> None:
    assert likely_device("auto", has_nvidia=True) == "cuda"
    assert likely_device("cpu", has_nvidia=True) == "cpu"
    assert likely_device("auto", has_nvidia=False) in ("cpu", "mps")


def found(settings: Settings, name: str) -> doctor.Finding:
    return next(f for f in doctor.examine(settings) if f.name == name)


def test_each_thing_that_is_not_good_has_a_remedy(settings: Settings) -> None:
    for finding in doctor.examine(settings):
        assert finding.text
        assert finding.remedy or finding.state == "good", finding


def test_a_damaged_database_is_found(settings: Settings) -> None:
    settings.workspace.database.write_bytes(b"this is no database at all" * 100)
    finding = found(settings, "database")
    assert finding.state == "bad"
    assert "restore" in finding.remedy.lower() or finding.remedy


def test_a_folder_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert found(Settings(Workspace(blocked / "inside")), "workspace").state == "bad"


def test_a_taken_port_is_found(settings: Settings) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = replace(settings, port=server.getsockname()[1])
        assert found(taken, "port").state == "note"


def test_the_bundle_tells_no_secret(settings: Settings, tmp_path: Path) -> None:
    settings = replace(settings, secrets={"FAL_KEY": "canary-canary-canary"})
    (settings.workspace.logs / logs.FILE_NAME).write_text("a line with canary-canary-canary\n")
    job = {"id": 7, "state": "failed", "title": "Training Mira", "request": {"prompt": "private"},
           "error": {"message": "canary-canary-canary was refused"}}  # fmt: skip
    file = diagnostics.bundle(settings, tmp_path / "out" / "diagnostics.zip", jobs=[job])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with zipfile.ZipFile(file) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(texts) == {"report.json", "packages.txt", "masuka.log"}
    everything = "".join(texts.values())
    for private in ("canary-canary-canary", "Mira", "private"):
        assert private not in everything
    report = json.loads(texts["report.json"])
    assert report["settings"]["keys_given"] == ["FAL_KEY"]
    assert report["jobs"][0]["state"] == "failed"
    assert not list(file.parent.glob(".*.part"))


def test_settings_show_what_the_doctor_finds_to_the_owner_alone(settings: Settings) -> None:
    with Studio.open(settings) as studio:
        page = health.draw_health(studio, View())
        found = doctor.examine(settings, serving=True)
        for finding in found:
            assert f'data-finding="{finding.name}"' in page
            assert escape(finding.remedy) in page
        assert page.index(f'"{next(f.name for f in found if f.state != "good")}"') < page.index('"python"')
        viewer = studio.acting_as(Actor(user_id=1, role="viewer"))
        assert health.draw_health(viewer, View()) == ""
