"""Data sets of Hugging Face against a stand-in of it: taken in, gone on with, refused, put there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from masuka.datasets import hub as hubs
from masuka.datasets.checking import write_rows
from masuka.datasets.exchange import About, Entry
from masuka.errors import AccessDenied, Conflict, DownloadFailed, InvalidInput, MasukaError, NotFound, Stop
from masuka.jobs.reporter import EventFile
from masuka.requests.exchange import PushDataset
from masuka.requests.intake import AddFromHub, AddLinks
from tests.fake_hub import Hub, hub
from tests.unit.test_datasets_intake import picture, write, zip_of

TOKEN = "hf_" + "a" * 30
# The hub's client (2.4) sends large files in a way that its own HTTP library advises against.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    # It keeps what the environment said when the first test of the process imported it.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with hub() as running:
        yield running


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, server: Hub) -> str:
    """A token that may write, lent as a job lends it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.token = TOKEN
    return TOKEN


class Fetch:
    """One run of the job that takes a data set in."""

    def __init__(
        self,
        root: Path,
        server: Hub,
        *,
        stop_after: int = -1,
        revision: str | None = None,
        repo: str = "mira/set",
    ) -> None:
        root.mkdir(exist_ok=True)
        file = root / f"events-{len(list(root.glob('events-*')))}.jsonl"

        def stop_reason() -> str | None:
            return (
                "cancel" if 0 <= stop_after <= sum("/resolve/" in path for _, path in server.asked) else None
            )

        reporter = EventFile(file, root / "scratch", stop_reason)
        params = {
            "dataset_id": 1, "repo": repo, "revision": revision, "endpoint": server.address,
            "incoming": str(root / "incoming"), "asked": str(root / "incoming"), "processes": 0, "folder": str(root / "set"), "known_sha256": [],
            "trigger_word": "mira7x", "class_word": "robot", "token": "t",
            "caption_template": "a picture of {trigger} {class}",
        }  # fmt: skip
        self.stopped = False
        try:
            self.result = hubs.fetch(params, reporter)
        except Stop:
            self.stopped = True
        finally:
            reporter.close()
        events = [json.loads(line) for line in file.read_text().splitlines()]
        found = [e for e in events if e["type"] == "artefact"]
        self.captions = {e["about"]["original_name"]: e["about"]["caption"] for e in found}


def imagefolder() -> dict[str, bytes]:
    return {
        "README.md": b"words", ".gitattributes": b"x", "train/1.png": picture(1), "train/2.png": picture(2),
        "train/metadata.jsonl": b'{"file_name": "1.png", "text": "waving"}', "LICENSE.txt": b"all rights",
    }  # fmt: skip


def test_a_data_set_is_taken_in_with_its_captions(server: Hub, tmp_path: Path) -> None:
    server.repos["mira/set"] = imagefolder()
    done = Fetch(tmp_path, server)
    assert done.captions == {"1.png": "mira7x, waving", "2.png": "a picture of mira7x robot"}
    assert done.result["refused"] == [] and not (tmp_path / "incoming").exists()
    fetched = [path for method, path in server.asked if "/resolve/" in path and method == "GET"]
    assert not [path for path in fetched if path.endswith(("README.md", "LICENSE.txt"))]


def test_zips_in_a_data_set_are_opened(server: Hub, tmp_path: Path) -> None:
    data = zip_of(tmp_path / "a.zip", {"a.png": picture(1), "a.txt": b"zipped"}).read_bytes()
    server.repos["mira/set"] = {"data/a.zip": data}
    assert Fetch(tmp_path, server).captions == {"a.png": "mira7x, zipped"}


def test_a_broken_download_goes_on(server: Hub, tmp_path: Path) -> None:
    server.repos["mira/set"] = imagefolder()
    server.breaks = 1
    assert len(Fetch(tmp_path, server).captions) == 2


def test_what_was_fetched_before_a_loss_is_not_fetched_again(server: Hub, tmp_path: Path) -> None:
    server.repos["mira/set"] = {f"{i}.png": picture(i) for i in range(4)}
    assert Fetch(tmp_path, server, stop_after=2).stopped
    assert len(Fetch(tmp_path, server).captions) == 4
    fetched = [path for method, path in server.asked if "/resolve/" in path and method == "GET"]
    assert len(fetched) <= 5


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"data/train.parquet": b"PAR1"},
            "mira/set keeps its pictures in Parquet tables, which are not read here.",
        ),
        ({"README.md": b"x", "a.txt": b"x"}, "mira/set holds no pictures."),
    ],
)
def test_data_sets_without_picture_files(
    server: Hub, tmp_path: Path, files: dict[str, bytes], sentence: str
) -> None:
    server.repos["mira/set"] = files
    with pytest.raises(DownloadFailed) as refused:
        Fetch(tmp_path, server)
    assert refused.value.message == sentence and refused.value.hint


def test_too_much_is_not_fetched(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "LARGEST_BYTES", 100)
    server.repos["mira/set"] = imagefolder()
    with pytest.raises(DownloadFailed, match=r"mira/set has 3 files with 0\.0 GB\."):
        Fetch(tmp_path, server)


def test_what_is_not_there(server: Hub, tmp_path: Path) -> None:
    server.repos["mira/set"] = imagefolder()
    with pytest.raises(AccessDenied, match="Hugging Face does not show mira/other to you"):
        Fetch(tmp_path, server, repo="mira/other")
    with pytest.raises(DownloadFailed, match=r"There is no such version of mira/set\."):
        Fetch(tmp_path, server, revision="nothing")


# Put there


def push(
    root: Path, server: Hub, pictures: list[Entry], stop_after: int = -1, **values: Any
) -> dict[str, Any]:
    checks = [0]

    def stop_reason() -> str | None:
        checks[0] += 1
        return "cancel" if 0 <= stop_after < checks[0] else None

    reporter = EventFile(root / "events.jsonl", root / "scratch", stop_reason)
    params = {
        "repo": "mira/new", "private": True, "licence": "cc-by-4.0", "consent": "Mira agreed in writing.",
        "about": asdict(About("Mira: \"the\" set", "mira7x", "robot", "{trigger}")), "endpoint": server.address,
        "rows": str(root / "rows.jsonl"), **values,
    }  # fmt: skip
    write_rows(map(asdict, pictures), root / "rows.jsonl")
    try:
        return hubs.push(params, reporter)
    finally:
        reporter.close()


def entries(root: Path, count: int) -> list[Entry]:
    write(root / "set", {f"{i}.png": picture(i) for i in range(count)})
    return [
        Entry(str(root / "set" / f"{i}.png"), f"pic {i}.png", f"mira7x, {i}", "0" * 64, 48, 32)
        for i in range(count)
    ]


def test_a_set_is_put_there_private_with_licence_and_consent(server: Hub, token: str, tmp_path: Path) -> None:
    result = push(tmp_path, server, entries(tmp_path, 23))
    assert result == {"repo": "mira/new", "url": f"{server.address}/datasets/mira/new", "pictures": 23}
    files = server.repos["mira/new"]
    assert server.private["mira/new"] is True and len(server.commits) == 1
    assert set(files) == {f"pic {i}.png" for i in range(23)} | {"metadata.jsonl", "README.md"}
    assert files["pic 7.png"] == picture(7)
    rows = [json.loads(line) for line in files["metadata.jsonl"].decode().splitlines()]
    assert rows[7] == {"file_name": "pic 7.png", "text": "mira7x, 7"}
    card = files["README.md"].decode()
    assert card.startswith('---\nlicense: "cc-by-4.0"\npretty_name: "Mira: \\"the\\" set"\n')
    assert "Consent: Mira agreed in writing." in card and "`mira7x`" in card


def test_what_was_put_there_can_be_taken_in_again(server: Hub, token: str, tmp_path: Path) -> None:
    push(tmp_path, server, entries(tmp_path, 3))
    done = Fetch(tmp_path / "again", server, repo="mira/new")
    assert done.captions == {f"pic {i}.png": f"mira7x, {i}" for i in range(3)}


def test_a_private_set_never_goes_to_a_public_place(server: Hub, token: str, tmp_path: Path) -> None:
    server.repos["mira/new"], server.private["mira/new"] = {}, False
    with pytest.raises(Conflict, match="is there already, and everybody can see it"):
        push(tmp_path, server, entries(tmp_path, 1))
    assert server.repos["mira/new"] == {} and not server.objects
    assert push(tmp_path, server, entries(tmp_path, 1), private=False)["pictures"] == 1


def test_a_token_that_may_not_write(server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(AccessDenied, match=r"Hugging Face does not let you write to mira/new\."):
        push(tmp_path, server, entries(tmp_path, 1))


def test_a_picture_without_a_file_is_not_sent(server: Hub, token: str, tmp_path: Path) -> None:
    chosen = entries(tmp_path, 2)
    Path(chosen[1].file).unlink()
    with pytest.raises(NotFound, match=r"The file of the picture pic 1\.png is gone\."):
        push(tmp_path, server, chosen)
    assert server.commits == []


def test_sending_stops_when_asked(server: Hub, token: str, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        push(tmp_path, server, entries(tmp_path, 30), stop_after=5)
    assert server.commits == []


# What may be asked for


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("mira/set", "mira/set"),
        (" https://huggingface.co/datasets/mira/set ", "mira/set"),
        ("https://huggingface.co/datasets/mira/set/tree/main", "mira/set"),
        ("hf.co/datasets/mira/My.set_2", "mira/My.set_2"),
        ("datasets/mira/set/", "mira/set"),
    ],
)
def test_names_of_data_sets(given: str, name: str) -> None:
    assert AddFromHub.parse({"dataset_id": 1, "repo": given}).repo == name


@pytest.mark.parametrize(
    "given", ["", "mira", "../set", "mira/..", "a/b--c", "a/ b", "http://evil.example/a/b", "a/b?c"]
)
def test_what_is_no_name_of_a_data_set(given: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        AddFromHub.parse({"dataset_id": 1, "repo": given})
    assert refused.value.field == "repo"


def test_a_version_is_a_name() -> None:
    assert AddFromHub.parse({"dataset_id": 1, "repo": "a/b", "revision": "v1.0"}).revision == "v1.0"
    assert AddFromHub.parse({"dataset_id": 1, "repo": "a/b", "revision": " "}).revision is None
    with pytest.raises(InvalidInput):
        AddFromHub.parse({"dataset_id": 1, "repo": "a/b", "revision": "../x"})


def test_lists_of_links() -> None:
    text = "# mine\n https://a.example.com/1 \n\nhttps://a.example.com/1\r\nhttps://a.example.com/2"
    assert (
        AddLinks.parse({"dataset_id": 1, "links": text}).links
        == "https://a.example.com/1\nhttps://a.example.com/2"
    )
    many = "\n".join(f"https://a.example.com/{i}" for i in range(2001))
    for wrong in ("", " \n# x", many):
        with pytest.raises(InvalidInput) as refused:
            AddLinks.parse({"dataset_id": 1, "links": wrong})
        assert refused.value.field == "links"


@pytest.mark.parametrize(
    "wrong", [{"licence": ""}, {"licence": "mine"}, {"consent": " "}, {"consent": "x" * 501}, {"repo": "x"}]
)
def test_licence_and_consent_are_needed(wrong: dict[str, str]) -> None:
    good = {"dataset_id": 1, "repo": "mira/new", "licence": "other", "consent": "Nobody is shown."}
    assert PushDataset.parse(good).private is True
    with pytest.raises(MasukaError):
        PushDataset.parse({**good, **wrong})
