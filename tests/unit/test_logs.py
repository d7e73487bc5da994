"""The log: one line an entry, no secret anywhere, configured once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka import logs
from masuka.config import Settings

CANARIES = {
    "HF_TOKEN": "hf_canaryCanaryCanary99",
    "OPENAI_API_KEY": "sk-proj-canary_canary-canary42",
    "GOOGLE_API_KEY": "AIzaCanaryCanaryCanary12345",
    "FAL_KEY": "a-plain-canary-without-any-shape",
    "SECRET_KEY": "canary secret with spaces, and commas",
}


@pytest.fixture
def configured(settings: Settings) -> Iterator[Path]:
    file = logs.configure(replace(settings, secrets=CANARIES), screen=False)
    yield file
    logs.close()


def test_no_canary_reaches_the_log(configured: Path) -> None:
    log = logging.getLogger("masuka.test")
    for name, value in CANARIES.items():
        log.info("message with %s", value)
        log.info(f"formatted {value} and https://host/?a=1&token={value}")
        log.info("in a dict %r", {name: value})
        try:
            raise RuntimeError(f"the key {value} was refused")
        except RuntimeError:
            log.exception("it failed with %s", value)
    logging.shutdown()
    text = configured.read_text()
    assert text.count("message with") == len(CANARIES)
    for value in CANARIES.values():
        assert value not in text
    assert "was refused" in text


@pytest.mark.parametrize(
    "text",
    [
        "hf_abcdefghijklmnop",
        "sk-abcdefghijklmnop",
        "AIzaSyA1234567890abcdefg",
        "ghp_abcdefghijklmnopqrstu",
        "https://user:pa55word@host/x",
        "GET /?token=abcdef0123456789 HTTP/1.1",
        "GET /media?id=1&signature=abcdef0123456789",
        "Authorization: Bearer abcdef0123456789",
        "password=abcdef0123456789",
        "token=abcdef0123456789",
        "{'api_key': 'abcdef0123456789'}",
        '{"access_token": "abcdef0123456789"}',
    ],
)
def test_what_looks_like_a_key_is_hidden(text: str) -> None:
    hidden = logs.Redactor()(text)
    assert logs.HIDDEN in hidden
    for secret in ("abcdef0123456789", "pa55word", "abcdefghijklmnop", "SyA1234567890"):
        assert secret not in hidden


@pytest.mark.parametrize(
    "text",
    [
        "a picture of mira7x robot, smiling, in a meadow",
        "step 412 of 1,500, loss 0.0213, 1.8 s/step",
        "/data/masuka/media/items/2026-11-20/101500-42-ab12.png",
        "https://example.org/page?page=2&sort=name",
        "the session ended",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert logs.Redactor()(text) == text


@given(st.text(), st.text(min_size=6))
def test_a_known_value_never_survives(around: str, secret: str) -> None:
    shown = logs.Redactor([secret])(f"{around}{secret}{around}")
    assert secret not in shown or secret in logs.HIDDEN or secret in around.replace(secret, logs.HIDDEN)


def test_a_short_value_is_no_secret() -> None:
    assert logs.Redactor(["", "a", "dog"])("a dog") == "a dog"


def test_a_line_break_cannot_forge_an_entry(configured: Path) -> None:
    logging.getLogger("masuka.test").warning("name is %s", "x\r\n2026-01-01T00:00:00Z INFO masuka: all good")
    logging.shutdown()
    lines = configured.read_text().splitlines()
    assert len(lines) == 1
    assert "\\r\\n" in lines[0]


def test_a_traceback_is_indented_under_its_entry(configured: Path) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("masuka.test").exception("failed")
    logging.shutdown()
    first, *rest = configured.read_text().splitlines()
    assert first.endswith("failed")
    assert rest and all(line.startswith("    ") for line in rest)


def test_a_badly_formatted_entry_is_kept() -> None:
    # Formatted by hand: pytest's own log handler raises for such an entry.
    record = logging.LogRecord("masuka.test", logging.WARNING, __file__, 1, "two %s %s", ("one",), None)
    line = logs.SafeFormatter().format(record)
    assert "two" in line and "one" in line and "badly formatted entry" in line


def test_configuring_twice_changes_nothing(settings: Settings) -> None:
    before = len(logging.getLogger().handlers)
    try:
        assert logs.configure(settings) == logs.configure(settings)
        assert len(logging.getLogger().handlers) == before + 2
        logging.getLogger("masuka.test").warning("once")
        logging.shutdown()
        assert (settings.workspace.logs / logs.FILE_NAME).read_text().count("once") == 1
    finally:
        logs.close()
    assert len(logging.getLogger().handlers) == before


def test_the_file_is_rotated(settings: Settings) -> None:
    try:
        (settings.workspace.logs / logs.FILE_NAME).write_text("x" * (logs.FILE_BYTES - 10) + "\n")
        file = logs.configure(settings, screen=False)
        logging.getLogger("masuka.test").info("one line too many")
        logging.shutdown()
        assert file.with_name(f"{file.name}.1").exists()
        assert file.stat().st_size < logs.FILE_BYTES
    finally:
        logs.close()


def test_the_tail_is_the_end(settings: Settings) -> None:
    assert logs.tail(settings.workspace.logs) == ""
    (settings.workspace.logs / logs.FILE_NAME).write_text("first\n" + "x" * 500 + "\nlast token=abcdefgh\n")
    shown = logs.tail(settings.workspace.logs, max_bytes=100)
    assert shown.endswith(f"last token={logs.HIDDEN}\n")
    assert "first" not in shown


def test_only_the_one_warning_that_is_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    logs.leave_out_noise()
    log = logging.getLogger(logs.BITSANDBYTES_CPU)
    log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "no module")
    log.warning("The library was built for another CUDA.")
    assert caplog.messages == ["The library was built for another CUDA."]
