"""Every sanitiser of outside text: what it keeps, removes and refuses."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.errors import InvalidInput
from masuka.requests import text

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=300)
HIDDEN = [
    "\x00",
    "\x1b",
    "\x7f",
    "\x9b",
    "\ud800",
    "\ufffe",
    "\ufdd0",
    "\u202e",
    "\u200b",
    "\u2066",
    "\ufeff",
]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_hidden_characters_go(hidden: str) -> None:
    assert text.without_control(f"mi{hidden}ra") == "mira"
    assert text.clean_name(f"mi{hidden}ra") == "mira"
    assert text.clean_prompt(f"mi{hidden}ra") == "mira"
    assert text.clean_trigger(f"mi{hidden}ra") == "mira"
    assert text.clean_filename(f"mi{hidden}ra.png") == "mira.png"


@pytest.mark.parametrize("meant", ["👩\u200d🚀", "می\u200cخواهم", "क\u094d\u200dष"])
def test_joiners_inside_words_stay(meant: str) -> None:
    assert text.clean_prompt(meant) == meant


@pytest.mark.parametrize("stray", ["mi\u200dra", "\u200cmira", "mira\u200d", "mi\u200d\u200dra"])
def test_stray_joiners_go(stray: str) -> None:
    assert text.clean_prompt(stray) == "mira"


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(raw: str) -> None:
    for clean in (text.without_control, text.clean_prompt, text.clean_name, text.clean_filename):
        try:
            once = clean(raw)
        except InvalidInput:
            continue
        assert clean(once) == once


@given(ANY_TEXT)
def test_nothing_hidden_survives(raw: str) -> None:
    cleaned = text.without_control(raw)
    assert not {unicodedata.category(c) for c in cleaned} & {"Cc", "Cs"}
    assert not set(cleaned) & set(HIDDEN)
    cleaned.encode()


@given(ANY_TEXT)
def test_names_are_one_line_of_1_to_100(raw: str) -> None:
    try:
        name = text.clean_name(raw)
    except InvalidInput as error:
        assert error.field == "name" and error.hint
    else:
        assert 1 <= len(name) <= 100 and len(name.splitlines()) == 1 and name == name.strip()


def test_name_lengths() -> None:
    assert len(text.clean_name("x" * 100)) == 100
    with pytest.raises(InvalidInput, match=r"The name has 101 characters. Use at most 100."):
        text.clean_name("x" * 101)
    with pytest.raises(InvalidInput, match=r"The class word is empty. Type at least one letter."):
        text.clean_name(" \n ", field="class_word")


@pytest.mark.parametrize("word", ["ab", "mira7x", "x" * 40, "Ünïcode_1", "a-b"])
def test_trigger_words_taken(word: str) -> None:
    assert text.clean_trigger(f" {word} ") == word


@pytest.mark.parametrize("word", ["", "a", "x" * 41, "two words", "a.b", "-ab", "{trigger}", "a\nb c"])
def test_trigger_words_refused(word: str) -> None:
    with pytest.raises(InvalidInput, match=r"one word. Use 2 to 40 letters"):
        text.clean_trigger(word)


def test_prompts_keep_punctuation_and_lines() -> None:
    prompt = "a (red:1.2) <robot>, \"quoted\" 'so' & 100 % — [x] {trigger}\nsecond; line\t\\ /"
    assert text.clean_prompt(prompt) == prompt
    assert text.clean_prompt("a\r\nb\rc") == "a\nb\nc"


def test_prompt_lengths_are_those_of_the_sentence() -> None:
    assert text.clean_prompt("abc", shortest=3, longest=5) == "abc"
    assert text.clean_prompt("abcde", shortest=3, longest=5) == "abcde"
    for wrong in ("ab", "abcdef"):
        with pytest.raises(InvalidInput, match=f"The prompt has {len(wrong)} characters. Use 3 to 5."):
            text.clean_prompt(wrong, shortest=3, longest=5)


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\x\\y.png", "y.png"),
        ("/abs/p.jpg", "p.jpg"),
        ("con.png", "_con.png"),
        ("CON", "_CON"),
        ("con.tar.gz", "_con.tar.gz"),
        ("nul .txt", "_nul.txt"),
        ("a:b*c?.png", "a_b_c_.png"),
        ("a\nb.png", "ab.png"),
        (" .hidden. ", "hidden"),
        ("Ж.png", "Ж.png"),
    ],
)
def test_file_names(raw: str, safe: str) -> None:
    assert text.clean_filename(raw) == safe


@pytest.mark.parametrize("raw", ["", ".", "..", "///", " . . ", "\x00"])
def test_file_names_without_anything_are_refused(raw: str) -> None:
    with pytest.raises(InvalidInput, match="no usable name"):
        text.clean_filename(raw)


@given(ANY_TEXT.map(lambda stem: f"{stem}.png"))
def test_file_names_are_safe_everywhere(raw: str) -> None:
    try:
        name = text.clean_filename(raw)
    except InvalidInput:
        return
    assert len(name.encode()) <= 255
    assert not set(name) & set('<>:"/\\|?*\x00')
    assert name == name.strip(" .") and name not in (".", "..")
    assert name.partition(".")[0].lower() not in text.RESERVED


@pytest.mark.parametrize("letter", ["x", "é", "漢", "🚀"])
def test_long_file_names_keep_their_ending(letter: str) -> None:
    name = text.clean_filename(letter * 300 + ".jpeg")
    assert name.endswith(f"{letter}.jpeg") and 250 < len(name.encode()) <= 255


def test_paths() -> None:
    assert text.clean_path(" /a/b c.png ") == "/a/b c.png"
    assert text.clean_path("x" * 4096) == "x" * 4096
    with pytest.raises(InvalidInput, match=r"longer than 4,096 bytes"):
        text.clean_path("é" * 2049)
    for wrong in ("", "  ", "a\x00b", "a\nb", "a\u202eb"):
        with pytest.raises(InvalidInput, match="empty or holds control characters"):
            text.clean_path(wrong)


@given(ANY_TEXT)
def test_log_lines_stay_one_line(raw: str) -> None:
    line = text.log_safe(raw)
    assert len(line.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in line} & {"Cc", "Cs", "Zl", "Zp"}
    line.encode()


def test_log_lines_show_what_was_there() -> None:
    forged = "ok\r\n2026-01-01 ERROR root: forged \x1b[31m\\n"
    assert text.log_safe(forged) == "ok\\r\\n2026-01-01 ERROR root: forged \\x1b[31m\\\\n"
