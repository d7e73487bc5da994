"""Captions: templates filled, trigger words ensured and changed, many edited, sets checked and exported."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from masuka.datasets import check, exchange, sources
from masuka.datasets.captions import text as captions
from masuka.errors import InvalidInput, NotFound
from masuka.requests.datasets import EditCaptions

TRIGGERS = st.from_regex(r"[A-Za-z0-9_][\w-]{1,12}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=80)


def test_templates() -> None:
    assert captions.fill_template("a {class}, {trigger}!", "mira7x", "robot") == "a robot, mira7x!"
    assert captions.fill_template("{trigger} {trigger}\n {x} {0} {", "m1", "r") == "m1 m1 {x} {0} {"


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    assert captions.fill_template("a {class}", "mira7x", "{trigger}") == "a {trigger}"


@given(TEXTS, TRIGGERS, TEXTS)
def test_any_template_is_filled(template: str, trigger: str, class_word: str) -> None:
    filled = captions.fill_template(f"{template} {{trigger}}", trigger, class_word)
    assert filled.endswith(trigger) and len(filled.splitlines()) == 1


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("mira7x", True), ("a mira7x.", True), ("(mira7x:1.2)", True), ("Mira7x", False), ("mira7xy", False),
        ("xmira7x", False), ("mira7x-like", False), ("mira7x's hat", True), ("", False),
    ],
)  # fmt: skip
def test_a_trigger_counts_as_a_whole_word(caption: str, found: bool) -> None:
    assert captions.has_trigger(caption, "mira7x") is found
    assert captions.has_trigger(captions.ensure_trigger(caption, "mira7x"), "mira7x")


def test_ensuring_a_trigger_keeps_the_text() -> None:
    assert captions.ensure_trigger("a hat", "mira7x") == "mira7x, a hat"
    assert captions.ensure_trigger("a mira7x hat", "mira7x") == "a mira7x hat"
    assert captions.ensure_trigger("", "mira7x") == "mira7x"


def test_changing_a_trigger() -> None:
    changed = captions.change_trigger("mira7x and mira7x, not mira7xy nor mira7x-like", "mira7x", "b-2")
    assert changed == "b-2 and b-2, not mira7xy nor mira7x-like"
    assert captions.change_trigger("a b", "b", r"\1") == r"a \1"


@given(TEXTS, TRIGGERS, TRIGGERS)
def test_a_changed_trigger_is_there_and_the_old_one_gone(text: str, old: str, new: str) -> None:
    caption = captions.ensure_trigger(text, old)
    changed = captions.change_trigger(caption, old, new)
    assert captions.has_trigger(changed, new)
    assert old == new or not captions.has_trigger(changed, old)


def edited(caption: str, **request: object) -> str:
    return captions.edit(
        caption,
        EditCaptions.parse({"picture_ids": [1], **request}),
        template="a picture of {trigger} {class}",
        trigger_word="mira7x",
        class_word="robot",
    )


@pytest.mark.parametrize(
    ("request_", "after"),
    [
        ({"action": "set", "text": "{trigger} runs"}, "mira7x runs"),
        ({"action": "replace", "find": "hat", "text": "cap"}, "a red cap, happy"),
        ({"action": "replace", "find": "a.*t", "text": "cap"}, "a red hat, happy"),
        ({"action": "replace", "find": ", happy", "text": ""}, "a red hat"),
        ({"action": "prefix", "text": "photo of "}, "photo of a red hat, happy"),
        ({"action": "prefix", "text": "photo of"}, "photo of a red hat, happy"),
        ({"action": "prefix", "text": "{trigger},"}, "mira7x, a red hat, happy"),
        ({"action": "suffix", "text": ", at night"}, "a red hat, happy, at night"),
        ({"action": "suffix", "text": "robot"}, "a red hat, happy robot"),
        ({"action": "suffix", "text": "{class}"}, "a red hat, happy robot"),
        ({"action": "template", "text": "{class} {trigger}"}, "robot mira7x"),
        ({"action": "template"}, "a picture of mira7x robot"),
        ({"action": "set", "text": ""}, ""),
    ],
)
def test_edits(request_: dict[str, object], after: str) -> None:
    assert edited("a red hat, happy", **request_) == after


def test_edits_that_cannot_be() -> None:
    with pytest.raises(InvalidInput, match="no text to look for") as refused:
        edited("a", action="replace", text="b")
    assert refused.value.field == "find"
    assert edited("", action="suffix", text="x") == "x" and edited("", action="prefix", text="x") == "x"
    with pytest.raises(InvalidInput, match=r"The caption has 2,002 characters. Use 0 to 2,000."):
        edited("x" * 2000, action="prefix", text="y")
    assert edited("x" * 1999, action="suffix", text=".") == "x" * 1999 + "."


# Checks and exports


@dataclass(frozen=True)
class Row:
    file: str
    original_name: str
    caption: str
    sha256: str
    width: int
    height: int


@dataclass(frozen=True)
class Set:
    name: str = "Mira"
    trigger_word: str = "mira7x"
    class_word: str = "robot"
    caption_template: str = "a picture of {trigger} {class}"


def rows_in(folder: Path, count: int, name: str = "pic{}.png") -> list[Row]:
    rows = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), (number, 0, 0)).save(buffer, "PNG")
        file = folder / f"{number:03}.png"
        file.write_bytes(buffer.getvalue())
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        rows.append(Row(file.name, name.format(number), f"mira7x number {number}", sha256, 64, 48))
    return rows


def test_a_good_set_has_no_problems(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, check.FEWEST_PICTURES)
    assert check.problems(Set(), rows, resolve=tmp_path.joinpath) == []
    assert check.problems(Set(), rows, resolve=tmp_path.joinpath, resolution_px=55) == []


def test_an_empty_set(tmp_path: Path) -> None:
    assert check.problems(Set(), [], resolve=tmp_path.joinpath) == [
        "The set has no pictures. Add some first."
    ]


def test_each_problem_is_a_sentence(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, 9)
    (tmp_path / "000.png").unlink()
    (tmp_path / "001.png").write_bytes(b"other")
    rows[2] = replace(rows[2], caption=" ")
    for i in (3, 4, 5, 6, 7):
        rows[i] = replace(rows[i], caption="mira7xy")
    rows[8] = replace(rows[8], width=128, height=128)
    assert check.problems(Set(), rows, resolve=tmp_path.joinpath, resolution_px=64) == [
        "1 picture without a file: pic0.png. Delete them, or put the files back.",
        "1 picture whose file is not the one that was added: pic1.png. Delete them and add them again.",
        "1 picture without a caption: pic2.png. Write one or fill the template.",
        "5 pictures without the trigger word mira7x in the caption: pic3.png, pic4.png, pic5.png and 2 more. "
        "Add it, so that the word calls the character.",
        "8 pictures smaller than 64 × 64 pixels: pic0.png, pic1.png, pic2.png and 5 more. "
        "They would be enlarged; take larger ones or a lower resolution.",
        "There are only 9 pictures. From 10 on a character is learnt well.",
    ]


def test_a_quick_check_misses_no_file_and_reads_none(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, check.FEWEST_PICTURES)
    (tmp_path / "000.png").unlink()
    (tmp_path / "001.png").write_bytes(b"other")
    assert check.problems(Set(), rows, resolve=tmp_path.joinpath, read_files=False) == [
        "1 picture without a file: pic0.png. Delete them, or put the files back."
    ]


def test_an_export_is_read_back_whole(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, 3)
    to = exchange.export(Set(), rows, to=tmp_path / "out" / "mira.zip", resolve=tmp_path.joinpath)
    with zipfile.ZipFile(to) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "pic0.png", "pic0.txt", "pic1.png", "pic1.txt", "pic2.png", "pic2.txt", "dataset.json",
        ]  # fmt: skip
        about = json.loads(archive.read("dataset.json"))
    assert (about["format"], about["name"], about["trigger_word"]) == (1, "Mira", "mira7x")
    assert [row["file"] for row in about["pictures"]] == ["pic0.png", "pic1.png", "pic2.png"]
    offers = sources.find([to])
    assert [(o.name, o.caption, o.read()) for o in offers.pictures] == [
        (row.original_name, row.caption, (tmp_path / row.file).read_bytes()) for row in rows
    ]
    offers.close()


def test_the_same_set_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, 2)
    first = exchange.export(Set(), rows, to=tmp_path / "1.zip", resolve=tmp_path.joinpath)
    second = exchange.export(Set(), rows, to=tmp_path / "2.zip", resolve=tmp_path.joinpath)
    assert first.read_bytes() == second.read_bytes()


def test_an_export_without_a_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, 2)
    (tmp_path / "001.png").unlink()
    with pytest.raises(NotFound, match=r"The file of the picture pic1.png is gone."):
        exchange.export(Set(), rows, to=tmp_path / "out" / "a.zip", resolve=tmp_path.joinpath)
    assert list((tmp_path / "out").iterdir()) == []


def test_names_in_an_export_are_told_apart_without_case(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, 6)
    for i, name in enumerate(["a.png", "A.jpg", "a-2.png", "../a.png", "con.png", "dataset.png"]):
        rows[i] = replace(rows[i], original_name=name)
    assert exchange.file_names(rows) == [
        "a.png", "A-2.png", "a-2-2.png", "a-3.png", "_con.png", "dataset.png",
    ]  # fmt: skip


@given(st.lists(st.text(max_size=300) | st.sampled_from(["a.png", "A.PNG", "a", ""]), max_size=8))
def test_any_names_export_safely(names: list[str]) -> None:
    found = exchange.file_names([Row("x.png", name, "", "", 1, 1) for name in names])
    stems = [name.removesuffix(".png").casefold() for name in found]
    assert len(set(stems)) == len(names)
    assert all(len(name.encode()) <= 255 and "/" not in name and "\\" not in name for name in found)
