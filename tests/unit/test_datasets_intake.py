"""Taking pictures in, from files, folders and archives, with their captions, whatever they hold."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from masuka.datasets import archives, sources
from masuka.datasets.archives import Archive
from masuka.datasets.intake import run
from masuka.datasets.keeping import thumbnail_of
from masuka.datasets.sidecars import read_caption, read_metadata, read_trigger
from masuka.errors import InvalidInput, Stop
from masuka.jobs.reporter import EventFile
from masuka.pocket import samples
from masuka.pocket.world import character_set


def picture(number: int, name: str = "PNG", size: tuple[int, int] = (48, 32)) -> bytes:
    """A picture's bytes; each number has other pixels."""
    image = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", (image, image.transpose(Image.Transpose.ROTATE_180), image))
    image.paste((number * 7 % 256, number // 256, 90), (4, 4, 20, 20))
    buffer = io.BytesIO()
    image.save(buffer, name)
    return buffer.getvalue()


class Import:
    """One run of the job in a folder of its own, and what it reported."""

    def __init__(self, root: Path, *paths: Path | str, stop_after: int = -1, **params: Any) -> None:
        root.mkdir(exist_ok=True)
        self.folder = root / "set"
        self.scratch = root / "scratch"
        file = root / f"events-{len(list(root.glob('events-*')))}.jsonl"
        self.checks = 0

        def stop_reason() -> str | None:
            self.checks += 1
            return "cancel" if stop_after >= 0 and self.artefacts_in(file) >= stop_after else None

        reporter = EventFile(file, self.scratch, stop_reason)
        self.params = {
            "dataset_id": 1, "sources": [str(p) for p in paths], "forget_sources": False, "processes": 0,
            "folder": str(self.folder), "known_sha256": [], "trigger_word": "mira7x", "class_word": "robot",
            "caption_template": "a picture of {trigger} {class}", **params,
        }  # fmt: skip
        self.result: dict[str, Any] = {}
        self.stopped = False
        try:
            self.result = run(self.params, reporter)
        except Stop:
            self.stopped = True
        finally:
            reporter.close()
        self.events = [json.loads(line) for line in file.read_text().splitlines()]

    @staticmethod
    def artefacts_in(file: Path) -> int:
        return file.read_text().count('"type": "artefact"')

    @property
    def pictures(self) -> dict[str, dict[str, Any]]:
        found = [e for e in self.events if e["type"] == "artefact" and e["kind"] == "picture"]
        return {e["about"]["original_name"]: {**e["about"], "file": Path(e["path"])} for e in found}

    @property
    def captions(self) -> dict[str, str]:
        return {name: about["caption"] for name, about in self.pictures.items()}

    @property
    def refusals(self) -> dict[str, str]:
        return {row["name"]: row["message"] for row in self.result["refused"]}


def zip_of(path: Path, files: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def test_a_picture_is_stored_whole_with_its_thumbnail(tmp_path: Path) -> None:
    source = write(tmp_path, {"big.png": picture(1, size=(800, 600))}) / "big.png"
    done = Import(tmp_path, source)
    about = done.pictures["big.png"]
    data = about["file"].read_bytes()
    assert about["sha256"] == hashlib.sha256(data).hexdigest() and about["bytes"] == len(data)
    assert about["file"].name == f"{about['sha256'][:16]}.png" and about["file"].parent == done.folder
    with Image.open(about["file"]) as stored, Image.open(thumbnail_of(about["file"])) as thumbnail:
        assert (about["width"], about["height"]) == stored.size == (800, 600)
        assert thumbnail.format == "WEBP" and thumbnail.size == (256, 192)
    assert done.result == {"added": 1, "duplicates": 0, "ignored": 0, "refused": []}
    assert list(done.scratch.iterdir()) == [] and source.exists()


def test_folders_are_taken_with_their_folders_in_natural_order(tmp_path: Path) -> None:
    names = ["img10.png", "img2.png", "img1.png", "sub/a.jpg", "IMG3.PNG", "sub/deep/b.webp"]
    kinds = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}
    files = {name: picture(i, kinds[Path(name).suffix.lower()]) for i, name in enumerate(names)}
    done = Import(tmp_path, write(tmp_path / "in", files))
    assert list(done.pictures) == ["img1.png", "img2.png", "IMG3.PNG", "img10.png", "a.jpg", "b.webp"]


def test_progress_tells_the_truth(tmp_path: Path) -> None:
    done = Import(tmp_path, write(tmp_path / "in", {f"{i}.png": picture(i) for i in range(3)}))
    assert [e["name"] for e in done.events if e["type"] == "stage"] == [
        "Looking for pictures",
        "Adding pictures",
        "Looking for copies and flaws",
    ]
    progress = [(e["step"], e["total"]) for e in done.events if e["type"] == "progress"]
    assert progress[-1] == (3, 3) and progress == sorted(progress)


def test_the_same_picture_is_added_once(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "in", {"a.png": picture(1), "copy.png": picture(1), "same.bmp": picture(1, "BMP")}
    )
    done = Import(tmp_path, folder)
    assert (done.result["added"], done.result["duplicates"]) == (1, 2)
    known = [about["sha256"] for about in done.pictures.values()]
    again = Import(tmp_path, folder, known_sha256=known)
    assert (again.result["added"], again.result["duplicates"]) == (0, 3) and again.pictures == {}


def test_a_picture_that_was_exported_is_known(tmp_path: Path) -> None:
    first = Import(tmp_path, write(tmp_path / "in", {"a.jpg": picture(1, "JPEG")}))
    stored = first.pictures["a.jpg"]
    again = Import(tmp_path, stored["file"], known_sha256=[stored["sha256"]])
    assert again.result["duplicates"] == 1 and again.result["added"] == 0


def test_known_bytes_are_not_even_decoded(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.png": "undecodable"}) / "a.png"
    done = Import(tmp_path, source, known_sha256=[hashlib.sha256(b"undecodable").hexdigest()])
    assert done.result == {"added": 0, "duplicates": 1, "ignored": 0, "refused": []}


def test_cancelled_between_two_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {f"{i}.png": picture(i) for i in range(5)})
    done = Import(tmp_path, folder, stop_after=2, forget_sources=True)
    assert done.stopped and len(done.pictures) == 2
    assert len(list(done.folder.glob("*.png"))) == 2
    assert len(list(folder.iterdir())) == 5, "what was not taken is not forgotten"
    assert not list(tmp_path.rglob("*.part"))


def test_sources_are_forgotten_only_when_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a.png": picture(1), "a.txt": "a hat", "bad.png": "no"})
    single = write(tmp_path, {"b.png": picture(2)}) / "b.png"
    archive = zip_of(tmp_path / "c.zip", {"c.png": picture(3)})
    assert Import(tmp_path, folder, single, archive).result["added"] == 3
    assert single.exists() and archive.exists() and len(list(folder.iterdir())) == 3
    Import(tmp_path, folder, single, archive, forget_sources=True)
    assert not single.exists() and not archive.exists() and not folder.exists()


# Captions


def test_captions_beside_the_pictures(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"{name}.png": picture(i) for i, name in enumerate("abcdefgh")}
    files |= {
        "a.txt": "mira7x in a hat",
        "b.caption": "a {trigger} {class}, smiling\n",
        "c.png.txt": "in the snow",
        "d.txt": "the text", "d.caption": "the other",
        "e.txt": "  ",
        "g.txt": "from txt",
        "metadata.jsonl": '{"file_name": "f.png", "text": "from jsonl"}\n'
        '{"file_name": "g.png", "text": "not this"}\n{"file_name": "sub/i.png", "caption": "deep"}',
        "sub/i.png": picture(9),
    }  # fmt: skip
    assert Import(tmp_path, write(tmp_path / "in", files)).captions == {
        "a.png": "mira7x in a hat",
        "b.png": "a mira7x robot, smiling",
        "c.png": "mira7x, in the snow",
        "d.png": "mira7x, the text",
        "e.png": "a picture of mira7x robot",
        "f.png": "mira7x, from jsonl",
        "g.png": "mira7x, from txt",
        "h.png": "a picture of mira7x robot",
        "i.png": "mira7x, deep",
    }


def test_captions_of_files_that_were_named_one_by_one(tmp_path: Path) -> None:
    """A browser's uploads lie in a folder each; two folders may hold the same name."""
    write(tmp_path, {
        "1/a.png": picture(1), "2/a.txt": "uploaded", "3/b.png": picture(2), "3/b.txt": "beside",
        "4/b.png": picture(3), "4/b.txt": "beside too", "5/c.png": picture(4), "5/metadata.jsonl":
        '{"file_name": "c.png", "text": "listed"}',
    })  # fmt: skip
    done = Import(tmp_path, *(tmp_path / p for p in ("1/a.png", "2/a.txt", "3/b.png", "4/b.png", "5/c.png")))
    captions = [e["about"]["caption"] for e in done.events if e["type"] == "artefact"]
    assert captions == ["mira7x, uploaded", "mira7x, beside", "mira7x, beside too", "mira7x, listed"]
    assert done.result["refused"] == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_caption_encodings(tmp_path: Path, encoding: str) -> None:
    write(tmp_path / "in", {"a.png": picture(1), "a.txt": "mira7x im Café".encode(encoding)})
    assert Import(tmp_path, tmp_path / "in").captions == {"a.png": "mira7x im Café"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("x" * 2001, "The caption has 2,001 characters."), ("x" * 64_001, "The file has 64.1 kB.")],
)
def test_a_caption_that_cannot_be_taken_is_said(tmp_path: Path, text: str, message: str) -> None:
    done = Import(tmp_path, write(tmp_path / "in", {"a.png": picture(1), "a.txt": text}))
    assert done.captions == {"a.png": "a picture of mira7x robot"}
    assert list(done.refusals.values()) == [message]


def test_bad_lines_of_metadata_are_said(tmp_path: Path) -> None:
    lines = [
        '{"file_name": "a.png", "text": "good"}',
        "nonsense",
        "[1]",
        '{"text": "no name"}',
        "",
        "[" * 99_999,
    ]
    write(tmp_path / "in", {"a.png": picture(1), "metadata.jsonl": "\n".join(lines)})
    done = Import(tmp_path, tmp_path / "in")
    assert done.captions == {"a.png": "mira7x, good"}
    numbers = [row["message"].split()[1] for row in done.result["refused"]]
    assert numbers == ["2", "3", "4", "6"]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_caption(data: bytes) -> None:
    read_caption(data).encode()


JSONISH = st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["file_name", "text", "trigger_word", "x"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(
    st.lists(JSONISH.map(json.dumps) | st.text(max_size=30), max_size=5).map("\n".join)
    | st.binary(max_size=99)
)
def test_any_bytes_are_a_metadata_file(text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode(errors="replace")
    captions, problems = read_metadata(data)
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in captions.items())
    assert all(problem.message.startswith("Line ") for problem in problems)


def test_captions_of_an_exported_set_get_the_new_trigger_word(tmp_path: Path) -> None:
    files = {"a.png": picture(1), "a.txt": "a bob9 robot, bob9", "dataset.json": '{"trigger_word": "bob9"}'}
    archive = zip_of(
        tmp_path / "a.zip", {k: v.encode() if isinstance(v, str) else v for k, v in files.items()}
    )
    for number, source in enumerate((write(tmp_path / "in", files), archive)):
        done = Import(tmp_path / str(number), source)
        assert done.captions == {"a.png": "a mira7x robot, mira7x"} and done.result["ignored"] == 0


@given(JSONISH.map(json.dumps) | st.binary(max_size=60) | st.just("[" * 99_999))
def test_any_bytes_are_a_dataset_file(text: str | bytes) -> None:
    word = read_trigger(text if isinstance(text, bytes) else text.encode())
    assert word == "" or " " not in word


@settings(max_examples=60)
@given(st.dictionaries(st.text(min_size=1, max_size=12), st.binary(max_size=40), max_size=4))
def test_any_names_in_an_archive(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = zip_of(
            Path(folder) / "a.zip", {k.encode(errors="ignore").decode(): v for k, v in files.items()}
        )
        offers = sources.find([path])
        try:
            for name, error in offers.refused:
                assert isinstance(name, str) and error.message
        finally:
            offers.close()


# Hostile


def test_bad_files_are_refused_and_the_others_taken(tmp_path: Path) -> None:
    done = Import(tmp_path, write(tmp_path / "in", {
        "a.png": picture(1), "b.png": b"", "c.jpg": b"<svg onload=alert(1)>", "d.webp": picture(2)[:100],
        "e.gif": b"%PDF-1.4", "f.zip": b"PK\x03\x04", "notes.docx": b"PK\x03\x04", "model.safetensors": b"12",
        ".hidden/x.png": picture(3), "z.png": picture(4),
    }))  # fmt: skip
    assert list(done.pictures) == ["a.png", "z.png"] and done.result["ignored"] == 2
    assert done.refusals == {
        "b.png": "The file is empty.",
        "c.jpg": "The file is an SVG, HTML or XML text, not a picture.",
        "d.webp": "The picture is damaged or cut off.",
        "e.gif": "The file is a PDF document, not a picture.",
        "f.zip": "The archive is damaged or cut off.",
    }
    notes = [e["text"] for e in done.events if e["type"] == "note"]
    assert len(notes) == 5 and all(note.endswith(".") for note in notes)


def test_refusals_have_the_name_that_a_person_gave(tmp_path: Path) -> None:
    """An upload lies in folders of the page's own making."""
    done = Import(tmp_path, write(tmp_path / "in", {"sent-1/holiday/b.png": b"", "sent-2/a.png": b"", "sent/c.png": b""}))
    assert set(done.refusals) == {"holiday/b.png", "a.png", "sent/c.png"}
    notes = [e["text"] for e in done.events if e["type"] == "note"]
    assert not any("sent-" in note for note in notes) and len(notes) == 3


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    write(tmp_path / "in", {"a.txt": "no picture"})
    os.mkfifo(tmp_path / "in" / "p.png")
    done = Import(tmp_path, "/no/such", tmp_path / "pipe.png", tmp_path / "empty", tmp_path / "loop.png",
                  tmp_path / "in", tmp_path / "nul\x00.png")  # fmt: skip
    assert done.refusals == {
        "such": "There is no such file or folder.",
        "pipe.png": "It is no file but a device or a pipe.",
        "empty": "The folder is empty.",
        "loop.png": "It could not be read: Too many levels of symbolic links.",
        "p.png": "It is no file but a device or a pipe.",
        "nul.png": "Its name holds a null character.",
    }


def test_nothing_to_take_is_said(tmp_path: Path) -> None:
    done = Import(tmp_path, write(tmp_path / "in", {"a.txt": "text", "b.bin": "x"}))
    assert done.refusals == {"": "No picture was found."} and done.result["ignored"] == 1


def test_names_are_made_safe(tmp_path: Path) -> None:
    name = "ev\u202eil\n<b>" + "x" * 120 + ".png"
    done = Import(tmp_path, write(tmp_path / "in", {name: picture(1), "\x1b[31m.png": "bad"}))
    assert list(done.pictures) == ["evil_b_" + "x" * 120 + ".png"]
    assert list(done.refusals) == ["[31m.png"]


def raw_zip(path: Path, name: bytes, data: bytes, *, claims: int | None = None, times: int = 1) -> Path:
    """A zip with one stored member, whose directory says of it what it is told to, `times` over."""
    size = len(data) if claims is None else claims
    crc = zlib.crc32(data)
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 33, crc, len(data), size, len(name), 0)
    central = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, crc, len(data), size, len(name), 0,
                          0, 0, 0, 0, 0)  # fmt: skip
    directory = (central + name) * times
    start = len(local) + len(name) + len(data)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, times, times, len(directory), start, 0)
    path.write_bytes(local + name + data + directory + end)
    return path


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (b"/etc/a.png", "The name in the archive is an absolute path."),
        (b"C:\\a.png", "The name in the archive is an absolute path."),
        (b"..\\..\\a.png", "The name in the archive leads out of it."),
        (b"x/../../a.png", "The name in the archive leads out of it."),
        (b"a\x00.png", "The name in the archive holds control characters."),
        (b"a\n.png", "The name in the archive holds control characters."),
    ],
)
def test_names_that_lead_astray_are_refused(tmp_path: Path, name: bytes, sentence: str) -> None:
    done = Import(tmp_path, raw_zip(tmp_path / "a.zip", name, picture(1)))
    assert list(done.refusals.values()) == [sentence] and done.pictures == {}


def test_an_archive_of_all_sorts(tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good/a.png", picture(1))
        archive.writestr("good/a.txt", "in a zip")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("nested.zip", zip_of(tmp_path / "n.zip", {"x.png": picture(2)}).read_bytes())
        archive.writestr("slow.png", picture(3), compress_type=zipfile.ZIP_LZMA)
        archive.writestr("__MACOSX/good/._a.png", b"junk")
        archive.writestr("._a.png", b"junk")
        archive.writestr("readme.md", b"hello")
        archive.writestr("Thumbs.db", b"junk")
        archive.writestr("empty/", b"")
    done = Import(tmp_path, path)
    assert done.captions == {"a.png": "mira7x, in a zip"}
    assert done.result["ignored"] == 4
    assert done.refusals == {
        "link.png": "The archive holds a link, not the file itself.",
        "nested.zip": "The file is an archive, not a picture.",
        "slow.png": "The file is packed in a way that is not read here.",
    }


def test_locked_archives(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.png": picture(1)})
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    path.write_bytes(data)
    assert Import(tmp_path, path).refusals == {"a.png": "The file is locked with a password."}


def test_a_damaged_member_does_not_spoil_the_others(tmp_path: Path) -> None:
    bad, good = picture(1), picture(2)
    path = zip_of(tmp_path / "a.zip", {"a.png": bad, "b.png": good})
    data = bytearray(path.read_bytes())
    data[data.index(bad) + 50] ^= 0xFF  # the checksum no longer fits
    path.write_bytes(data)
    done = Import(tmp_path, path)
    assert list(done.pictures) == ["b.png"]
    assert done.refusals == {"a.png": "The file is damaged inside the archive."}


@pytest.mark.parametrize("keep", [5, 60, -10, -30])
def test_damaged_archives(tmp_path: Path, keep: int) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.png": picture(1)})
    path.write_bytes(path.read_bytes()[:keep])
    assert Import(tmp_path, path).refusals == {"a.zip": "The archive is damaged or cut off."}


def test_sizes_that_lie(tmp_path: Path) -> None:
    claims_less = raw_zip(tmp_path / "less.zip", b"a.png", picture(1), claims=10)
    claims_more = raw_zip(tmp_path / "more.zip", b"b.png", picture(2), claims=50_000_001)
    done = Import(tmp_path, claims_less, claims_more)
    assert done.refusals == {
        "a.png": "The file is damaged inside the archive.",
        "b.png": "The file has 50.1 MB.",
    }


def test_zip_bombs(tmp_path: Path) -> None:
    bomb = raw_zip(tmp_path / "bomb.zip", b"a.png", b"", claims=49_000_000, times=5)
    done = Import(tmp_path, bomb)
    assert done.pictures == {}
    assert "-fold when unpacked." in done.refusals["bomb.zip"]


def test_a_real_bomb_is_stopped_at_the_limit_of_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.png", bytes(50_000_001))
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # it claims to be small
        data[data.index(mark) + at : data.index(mark) + at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    assert Import(tmp_path, path).refusals == {"a.png": "The file is damaged inside the archive."}


def test_the_whole_of_an_archive_is_capped(tmp_path: Path) -> None:
    big = raw_zip(tmp_path / "big.zip", b"a.png", b"", claims=45_000_000, times=360)
    assert Import(tmp_path, big).refusals == {"big.zip": "The archive unpacks to more than 16 GB."}


def test_what_comes_out_of_an_archive_is_counted_too(tmp_path: Path) -> None:
    archive = Archive(zip_of(tmp_path / "a.zip", {"a.png": picture(1), "b.png": picture(2)}))
    archive._left = len(picture(1)) + 10  # as if almost all had come out before
    first, second = archive.members
    assert archive.read(first) == picture(1)
    with pytest.raises(InvalidInput, match=r"more than 16 GB"):
        archive.read(second)
    archive.close()


def test_a_member_is_read_no_further_than_its_limit(tmp_path: Path) -> None:
    archive = Archive(zip_of(tmp_path / "a.zip", {"a.txt": b"x" * 1000}))
    with pytest.raises(InvalidInput, match=r"The file has 1.0 kB"):
        archive.read(archive.members[0], limit=999)
    archive.close()


def test_too_many_files(tmp_path: Path) -> None:
    assert archives.MOST_MEMBERS == 25_000
    sentence = "The archive holds more than 25,000 files."
    many = raw_zip(tmp_path / "many.zip", b"a.md", b"", times=25_001)
    assert Import(tmp_path, many).refusals == {"many.zip": sentence}
    # A directory of 8 MB and more is not even read.
    heavy = raw_zip(tmp_path / "heavy.zip", b"a" * 60_000, b"", times=134)
    assert Import(tmp_path, heavy).refusals == {"heavy.zip": sentence}
    just_fits = raw_zip(tmp_path / "fits.zip", b"a.md", b"", times=25_000)
    assert Import(tmp_path, just_fits).result["ignored"] == 25_000


def test_a_folder_of_everything_is_not_walked_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_FILES", 3)
    folder = write(tmp_path / "in", {f"{i}.png": picture(i) for i in range(4)})
    done = Import(tmp_path, folder)
    assert done.refusals == {"in": "The folder holds more than 3 files."} and done.pictures == {}
    (folder / "0.png").unlink()
    assert Import(tmp_path, folder).result["added"] == 3


def test_the_media_may_lie_on_another_disk(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    folder = Path(tempfile.mkdtemp(dir=shared))
    try:
        done = Import(tmp_path, write(tmp_path, {"a.png": picture(1)}) / "a.png", folder=str(folder))
        assert sorted(p.suffix for p in folder.rglob("*") if p.is_file()) == [".jsonl", ".png", ".webp"]
        assert list(done.scratch.iterdir()) == []
    finally:
        shutil.rmtree(folder)


def test_natural_order_of_any_names() -> None:
    names = ["a10", "a9", "A1", "", "²", "9" * 5000, "007", "7b"]
    ordered = sorted(names, key=sources.natural_key)
    assert ordered == ["", "007", "7b", "9" * 5000, "A1", "a9", "a10", "²"]


# Samples


def test_sample_pictures(tmp_path: Path) -> None:
    reporter = EventFile(tmp_path / "events.jsonl", tmp_path / "scratch")
    params = {
        "dataset_id": 1, "folder": str(tmp_path / "set"), "seed": 7, "count": 4, "trigger_word": "mira7x",
        "class_word": "robot", "caption_template": "a picture of {trigger} {class}",
    }  # fmt: skip
    assert samples.run(params, reporter)["added"] == 4
    reporter.close()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    found = [e for e in events if e["type"] == "artefact"]
    for event, (image, caption) in zip(found, character_set(7, 4), strict=True):
        assert event["about"]["caption"] == caption.replace("{trigger}", "mira7x")
        with Image.open(event["path"]) as stored:
            assert stored.tobytes() == image.tobytes()
        assert thumbnail_of(Path(event["path"])).is_file()
    assert found[0]["about"]["original_name"] == "robot-7-01.png"
    known = [e["about"]["sha256"] for e in found]
    reporter = EventFile(tmp_path / "again.jsonl", tmp_path / "scratch")
    again = samples.run({**params, "known_sha256": known}, reporter)
    reporter.close()
    assert (again["added"], again["duplicates"]) == (0, 4)
