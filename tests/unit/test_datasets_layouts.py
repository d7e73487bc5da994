"""Tar archives, other trainers' folders and tables, and imports that go on after a loss."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masuka.datasets import archives, sources, tars
from masuka.datasets.ledger import NAME, Ledger
from masuka.datasets.sidecars import read_table
from masuka.datasets.tars import TarArchive
from masuka.errors import InvalidInput, Stop
from tests.unit.test_datasets_intake import Import, picture, write, zip_of


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w", **about: Any) -> Path:
    """A tar of plain files; `about` are attributes of each member."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in about.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")])
def test_tar_archives_are_taken_with_their_captions(tmp_path: Path, name: str, mode: str) -> None:
    path = tar_of(tmp_path / name, {
        "./set/b.png": picture(2), "./set/b.txt": b"mira7x waving", "set/a.png": picture(1), "notes.md": b"x",
        "__MACOSX/._a.png": b"junk",
    }, mode)  # fmt: skip
    done = Import(tmp_path, path)
    assert done.captions == {"a.png": "a picture of mira7x robot", "b.png": "mira7x waving"}
    assert done.result["ignored"] == 2 and done.result["refused"] == []
    assert list(done.scratch.iterdir()) == []


def special(kind: bytes, name: str = "x.png", **about: Any) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo(name)
            info.type = kind
            for key, value in about.items():
                setattr(info, key, value)
            archive.addfile(info)
        return path

    return make


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (special(tarfile.SYMTYPE, linkname="/etc/passwd"), "The archive holds a link, not the file itself."),
        (special(tarfile.LNKTYPE, linkname="../a.png"), "The archive holds a link, not the file itself."),
        (special(tarfile.CHRTYPE), "It is no file but a device or a pipe."),
        (special(tarfile.FIFOTYPE), "It is no file but a device or a pipe."),
        (special(tarfile.REGTYPE, "/etc/a.png"), "The name in the archive is an absolute path."),
        (special(tarfile.REGTYPE, "C:\\a.png"), "The name in the archive is an absolute path."),
        (special(tarfile.REGTYPE, "../a.png"), "The name in the archive leads out of it."),
        (special(tarfile.REGTYPE, "x\\..\\..\\a.png"), "The name in the archive leads out of it."),
        (special(tarfile.REGTYPE, "a\n.png"), "The name in the archive holds control characters."),
    ],
)
def test_members_that_are_no_plain_files(tmp_path: Path, make: Callable[[Path], Path], sentence: str) -> None:
    done = Import(tmp_path, make(tmp_path / "a.tar"))
    assert list(done.refusals.values()) == [sentence] and done.pictures == {}


def test_members_that_lie_about_their_size(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"a.png": picture(1)})
    data = bytearray(path.read_bytes())
    info = tarfile.TarInfo("a.png")
    info.size = 60_000_000
    data[:512] = info.tobuf()
    path.write_bytes(data)
    assert list(Import(tmp_path, path).refusals.values()) == ["The archive is damaged or cut off."]
    whole = tmp_path / "b.tar"
    with whole.open("wb") as file:
        file.write(info.tobuf())
        file.truncate(512 + 60_000_512)
    assert Import(tmp_path, whole).refusals == {"a.png": "The file has 60.0 MB."}


def test_a_member_of_less_than_no_bytes_is_not_read_to_the_end(tmp_path: Path) -> None:
    data = bytearray(tar_of(tmp_path / "a.tar", {"a.png": b"", "b.png": picture(1)}).read_bytes())
    data[124:136] = b"\xff" * 12  # minus one, as GNU's tar writes large numbers
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path = tmp_path / "minus.tar"
    path.write_bytes(data)
    archive = TarArchive(path)
    lying = next(member for member in archive.members if member.name == "a.png")
    with pytest.raises(InvalidInput, match="damaged"):
        archive.read(lying)
    archive.close()
    assert Import(tmp_path, path).refusals == {"a.png": "The archive is damaged or cut off."}


@pytest.mark.parametrize("keep", [300, 520, 700, 1400, 1600])
def test_tars_that_were_cut_off(tmp_path: Path, keep: int) -> None:
    path = tar_of(tmp_path / "a.tar", {"a.png": picture(1), "b.png": picture(2)})
    path.write_bytes(path.read_bytes()[:keep])
    done = Import(tmp_path, path)
    assert set(done.refusals.values()) <= {
        "The archive is damaged or cut off.", "The file is damaged inside the archive.", "The file is not a picture.",
    }  # fmt: skip
    assert len(done.pictures) < 2 and (done.refusals or done.pictures)


def test_a_compressed_tar_that_is_damaged_or_none(tmp_path: Path) -> None:
    good = tar_of(tmp_path / "a.tgz", {"a.png": picture(1)}, "w:gz").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.tar.gz").write_bytes(gzip.compress(b"hello " * 200))
    (tmp_path / "one.gz").write_bytes(gzip.compress(b"hello " * 200))
    done = Import(tmp_path, *(tmp_path / n for n in ("cut.tgz", "text.tar.gz", "one.gz")))
    assert done.refusals == {
        "cut.tgz": "The archive is damaged or cut off.",
        "text.tar.gz": "The compressed file holds no tar archive.",
        "one.gz": "The file is an archive, not a picture.",
    }


def test_a_compressed_bomb_is_stopped_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tgz"
    piece = b"".join([tarfile.TarInfo("a.png").tobuf(), bytes(10_000_000)])
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(22):
            file.write(piece)
    assert "-fold when unpacked." in Import(tmp_path, path).refusals["bomb.tgz"]


def test_a_compressed_archive_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "LARGEST_TOTAL_BYTES", 2_000_000)
    path = tar_of(tmp_path / "a.tgz", {f"{i}.png": bytes(1_000_000) for i in range(4)}, "w:gz")
    assert list(Import(tmp_path, path).refusals) == ["a.tgz"]


def test_names_that_fill_the_memory_are_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 40_000_000
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(info.tobuf())
        file.truncate(512 + 40_000_512)
    assert Import(tmp_path, path).refusals == {"a.tar": "A name in the archive is too long."}


def test_a_tar_of_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MOST_MEMBERS", 3)
    path = tar_of(tmp_path / "a.tar", {f"{i}.md": b"" for i in range(4)})
    assert Import(tmp_path, path).refusals == {"a.tar": "The archive holds more than 3 files."}


def test_what_comes_out_of_a_tar_is_counted(tmp_path: Path) -> None:
    archive = TarArchive(tar_of(tmp_path / "a.tar", {"a.png": picture(1), "b.txt": b"x" * 1000}))
    first, second = archive.members
    assert archive.read(first) == picture(1)
    with pytest.raises(InvalidInput, match=r"The file has 1.0 kB"):
        archive.read(second, limit=999)
    archive._left = 10
    with pytest.raises(InvalidInput, match=r"more than 16 GB"):
        archive.read(first)
    archive.close()
    assert archives.LARGEST_TOTAL_BYTES == 16_000_000_000


@settings(max_examples=60)
@given(st.binary(max_size=3000), st.booleans())
def test_any_bytes_are_a_tar_or_are_refused(data: bytes, compressed: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        header = tarfile.TarInfo("a.png").tobuf()
        path = Path(folder) / "a.tar.gz"
        path.write_bytes(gzip.compress(header + data) if compressed else header + data)
        offers = sources.find([path], scratch=Path(folder))
        offers.close()
        assert all(isinstance(error, InvalidInput) for _, error in offers.refused)


def test_archives_in_a_folder_are_taken_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a.png": picture(1)})
    zip_of(folder / "b.zip", {"b.png": picture(2), "b.txt": b"zipped"})
    tar_of(folder / "c.tar", {"c.png": picture(3)})
    done = Import(tmp_path, folder, forget_sources=True)
    assert list(done.pictures) == ["a.png", "b.png", "c.png"] and done.captions["b.png"] == "mira7x, zipped"
    assert done.result["refused"] == [] and not folder.exists()


# Layouts


def test_kohyas_folders(tmp_path: Path) -> None:
    done = Import(tmp_path, write(tmp_path / "in", {
        "img/10_bob9 robot/a.png": picture(1), "img/10_bob9 robot/a.txt": "bob9, a robot in the snow",
        "img/10_bob9 robot/b.png": picture(2), "img/3_sam side view/c.png": picture(3),
        "img/3_sam side view/c.caption": "sam from the side", "reg/1_robot/d.png": picture(4),
        "model/e.png": picture(5), "log/f.png": picture(6), "config.toml": "x",
    }))  # fmt: skip
    assert done.captions == {
        "a.png": "mira7x, a robot in the snow",
        "b.png": "a picture of mira7x robot",
        "c.png": "mira7x from the side",
    }
    assert done.result["ignored"] == 4


@pytest.mark.parametrize("folder", ["2020_summer trip", "10_robot", "summer", "0_bob9 robot"])
def test_folders_that_only_look_like_kohyas(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "in", {f"{folder}/a.png": picture(1), f"{folder}/a.txt": "summer, robot, bob9"})
    assert Import(tmp_path, tmp_path / "in").captions == {"a.png": "mira7x, summer, robot, bob9"}


def test_ai_toolkits_trigger(tmp_path: Path) -> None:
    write(tmp_path / "in", {"a.png": picture(1), "a.txt": "[trigger] on a bench, photo of [trigger]"})
    assert Import(tmp_path, tmp_path / "in").captions == {"a.png": "mira7x on a bench, photo of mira7x"}


def test_imagefolders_with_their_tables(tmp_path: Path) -> None:
    done = Import(tmp_path, write(tmp_path / "in", {
        "train/hats/1.png": picture(1), "train/hats/2.png": picture(2), "train/metadata.csv":
        'file_name,text\nhats/1.png,"in a hat, smiling"\nhats/2.png,not this\n', "train/metadata.jsonl":
        '{"file_name": "hats/2.png", "text": "from jsonl"}', "test/3.png": picture(3),
    }))  # fmt: skip
    assert done.captions == {
        "1.png": "mira7x, in a hat, smiling",
        "2.png": "mira7x, from jsonl",
        "3.png": "a picture of mira7x robot",
    }
    assert done.result["ignored"] == 0


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ("file_name,text\na.png,hello\n", {"a.png": "hello"}),
        ("﻿File_Name;Caption\n./x\\a.png;a; b\n", {"x/a.png": "a"}),
        ("image\tprompt\na.png\tone\n\nb.png\n", {"a.png": "one"}),
        ('text,extra,file\n"two\nlines",1,a.png', {"a.png": "two\nlines"}),
    ],
)
def test_tables_of_all_sorts(text: str, captions: dict[str, str]) -> None:
    assert read_table(text.encode()) == (captions, [])


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    big = '"' + "x" * 200_000 + '"'
    for text, problem in (
        ("a.png,hello\n", "The first line of the table does not name a file and a text."),
        ("", "The first line of the table does not name a file and a text."),
        (f"file_name,text\na.png,one\nb.png,{big}\n", "Line 3 of the table cannot be read."),
    ):
        captions, (error,) = read_table(text.encode())
        assert error.message == problem and set(captions.values()) <= {"one"}
    write(tmp_path / "in", {"a.png": picture(1), "metadata.csv": "what,is\nthis,?"})
    assert list(Import(tmp_path, tmp_path / "in").refusals) == ["metadata.csv"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table(data: bytes) -> None:
    captions, problems = read_table(data)
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in captions.items())
    assert all(problem.message for problem in problems)


# Going on


def half_done(tmp_path: Path, *paths: Path, after: int = 2) -> None:
    """An attempt that was lost when it had reported some pictures."""
    first = Import(tmp_path, *paths, stop_after=after, token="job-1")
    assert first.stopped and len(first.pictures) == after


def test_an_import_goes_on_where_it_was_lost(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {f"{i}.png": picture(i) for i in range(5)} | {"1b.png": "no picture"})
    half_done(tmp_path, folder)
    second = Import(tmp_path, folder, token="job-1")
    assert list(second.pictures) == ["2.png", "3.png", "4.png"]
    assert second.result["added"] == 5 and list(second.refusals) == ["1b.png"]
    progress = [(e["step"], e["total"]) for e in second.events if e["type"] == "progress"]
    assert progress[0][0] > 2 and progress[-1] == (6, 6)
    looked = [e for e in second.events if e["type"] == "told"]
    assert len(looked) == 1, "all five are compared, the earlier ones too"


def test_what_was_refused_before_is_told_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"0.png": "no picture"} | {f"{i}.png": picture(i) for i in range(1, 4)})
    half_done(tmp_path, folder)
    (folder / "0.png").touch()  # changed meanwhile: it is looked at anew
    second = Import(tmp_path, folder, token="job-1")
    assert list(second.refusals) == ["0.png"] and len(second.result["refused"]) == 1


def test_an_archive_goes_on_too(tmp_path: Path) -> None:
    files = {f"{i}.png": picture(i) for i in range(4)}
    for path in (zip_of(tmp_path / "a.zip", files), tar_of(tmp_path / "b.tgz", files, "w:gz")):
        root = tmp_path / path.stem
        half_done(root, path)
        second = Import(root, path, token="job-1")
        assert list(second.pictures) == ["2.png", "3.png"] and second.result["added"] == 4


def test_another_import_begins_anew(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {f"{i}.jpg": picture(i, "JPEG") for i in range(3)})
    first = Import(tmp_path, folder, token="job-1")
    known = [about["sha256"] for about in first.pictures.values()]
    second = Import(tmp_path, folder, token="job-2", known_sha256=known[:2])
    assert second.result["duplicates"] == 2 and list(second.pictures) == ["2.jpg"], (
        "one was deleted meanwhile"
    )


def test_a_file_that_was_taken_before_is_not_decoded_again(tmp_path: Path) -> None:
    """What is stored of a BMP has another hash than the file; the set remembers both."""
    source = write(tmp_path, {"a.bmp": picture(1, "BMP")}) / "a.bmp"
    first = Import(tmp_path, source, token="job-1")
    known = [about["sha256"] for about in first.pictures.values()]
    Import(tmp_path, source, token="job-2", known_sha256=known)
    lines = [json.loads(line) for line in (tmp_path / "set" / NAME).read_text().splitlines()]
    assert [(line["what"], line["sha256"] != "") for line in lines] == [("added", True), ("duplicate", False)]


def test_a_ledger_survives_what_a_kill_left(tmp_path: Path) -> None:
    Ledger(tmp_path, "t").add(key="k", what="added", source="s", sha256="x", row={})
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"job": "t", "key"\n[]\n\xff\n{"job": "t"')
    ledger = Ledger(tmp_path, "t")
    assert list(ledger.earlier) == ["k"] and ledger.sources_of(["x"]) == {"s"}
    ledger.add(key="after", what="refused")
    ledger.add(key="last", what="refused")
    assert list(Ledger(tmp_path, "t").earlier) == ["k", "after", "last"]
    assert Ledger(tmp_path, "").earlier == {} and Ledger(tmp_path, "u").earlier == {}


def test_the_pool_takes_pictures_in(tmp_path: Path) -> None:
    """The same as all of these tests, in processes of their own."""
    folder = write(tmp_path / "in", {f"{i}.png": picture(i) for i in range(4)} | {"bad.png": "no"})
    zip_of(folder / "z.zip", {"z.png": picture(9), "bad.webp": b"RIFF0000WEBP"})
    done = Import(tmp_path, folder, processes=2)
    assert list(done.pictures) == ["0.png", "1.png", "2.png", "3.png", "z.png"]
    assert list(done.refusals) == ["bad.png", "bad.webp"] and list(done.scratch.iterdir()) == []
    same = Import(tmp_path / "here", folder)
    assert [p["sha256"] for p in same.pictures.values()] == [p["sha256"] for p in done.pictures.values()]
    assert [p["scores"] for p in same.pictures.values()] == [p["scores"] for p in done.pictures.values()]


def test_reading_an_archive_stops_when_asked(tmp_path: Path) -> None:
    def check() -> None:
        raise Stop("cancel")

    path = tar_of(tmp_path / "a.tgz", {"a.png": picture(1)}, "w:gz")
    with pytest.raises(Stop):
        TarArchive(path, tmp_path, check)
