"""The log: configured once, rotated, one line an entry, without secrets.

Every record passes `SafeFormatter`: known secrets and whatever looks like one become
'[secret]' in the message, its arguments and the traceback, and a line break in a value
cannot forge an entry.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from masuka.config import Settings
from masuka.requests.text import log_safe

FILE_NAME = "masuka.log"
FILE_BYTES = 2_000_000
KEPT_FILES = 5
HIDDEN = "[secret]"
SHORTEST_SECRET = 6
"""A shorter value is no key, and hiding it would eat ordinary words."""
LOUD_LIBRARIES = ("httpx", "httpx2", "httpcore", "urllib3", "asyncio", "filelock", "PIL", "matplotlib")
BITSANDBYTES_CPU = "bitsandbytes.backends.cpu.ops"

_SHAPES = (
    re.compile(r"\bhf_[A-Za-z0-9]{8,}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"),
    re.compile(r"\bAIza[A-Za-z0-9_-]{16,}"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{16,}"),
    re.compile(r"(?i)(?<=\bbearer )[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(r"(?i)(?<=\bbasic )[A-Za-z0-9+/=]{8,}"),
    re.compile(
        r"""(?ix)(?<=[?&]) (?P<name>[\w-]*(?:token|key|secret|password|signature|sig|auth|link|code))=[^&\s'"#]+"""
    ),
    re.compile(r"""(?i)\b(?P<name>(?:\w+[_-])?token)(?P<between>["']?\s*[:=]\s*["']?)[^\s"',;&)}\]]{8,}"""),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(
        r"""(?ix)\b(?P<name>[\w-]*(?:password|passwd|secret|api_?key|auth_?token|access_?token|session))"""
        r"""(?P<between>["']?\s*[:=]\s*["']?)(?P<value>[^\s"',;&)}\]]{4,})"""
    ),
)


class Redactor:
    """Hides the given values and everything that has the shape of a key."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self.learn(values)

    def learn(self, values: Iterable[str]) -> None:
        """Hides these values from now on too."""
        self._values.update(v for v in values if len(v) >= SHORTEST_SECRET)

    def __call__(self, text: str) -> str:
        """The text with every secret replaced by '[secret]'."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        for shape in _SHAPES:
            text = shape.sub(_hide, text)
        return text


redact = Redactor()
"""The redactor of this process; `configure` teaches it the secrets of the settings."""


class SafeFormatter(logging.Formatter):
    """One line an entry, UTC, redacted; a traceback follows indented, redacted too."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            message = record.getMessage()
        except (TypeError, ValueError) as error:
            # A caller's wrong arguments must not lose the entry.
            message = f"{record.msg} {record.args!r} (badly formatted entry: {error})"
        line = f"{at} {record.levelname} {record.name}: {log_safe(redact(message))}"
        trace = self.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
        if trace:
            line += "\n" + "\n".join(f"    {part}" for part in redact(trace).splitlines())
        return line


def configure(settings: Settings, *, screen: bool = True) -> Path:
    """The log file of this process, now set up; again changes nothing.

    Entries of WARNING and above also go to stderr where `screen` is true.
    """
    redact.learn(settings.secrets.values())
    settings.workspace.logs.mkdir(parents=True, exist_ok=True)
    file = settings.workspace.logs / FILE_NAME
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler.formatter, SafeFormatter)]
    if any(getattr(handler, "baseFilename", "") == str(file.absolute()) for handler in ours):
        return file
    for handler in ours:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(settings.log_level)
    to_file = RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=KEPT_FILES, encoding="utf-8", delay=True)
    to_file.setFormatter(SafeFormatter())
    root.addHandler(to_file)
    if screen:
        to_screen = logging.StreamHandler(sys.stderr)
        to_screen.setLevel(logging.WARNING)
        to_screen.setFormatter(SafeFormatter())
        root.addHandler(to_screen)
    for name in LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    return file


def leave_out_noise() -> None:
    """Leaves out one warning that is none; call it before peft is imported.

    peft (0.21) imports bitsandbytes, which on a CPU with bf16 instructions asks for a package
    that draws with bases in 4 bits there. MASUKA loads such bases on NVIDIA GPUs only.
    """
    logging.getLogger(BITSANDBYTES_CPU).addFilter(_matters)


def close() -> None:
    """Takes this module's handlers off the root logger and closes their files."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h.formatter, SafeFormatter)]:
        root.removeHandler(handler)
        handler.close()
    logging.captureWarnings(False)


def tail(folder: Path, *, max_bytes: int = 200_000) -> str:
    """The end of the newest log file in the folder, redacted; '' without one."""
    file = folder / FILE_NAME
    if not file.exists():
        return ""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - max_bytes))
        return redact(log.read().decode(errors="replace"))


def _matters(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")


def _hide(match: re.Match[str]) -> str:
    groups = match.groupdict()
    if "between" in groups:
        return f"{groups['name']}{groups['between']}{HIDDEN}"
    return f"{groups['name']}={HIDDEN}" if "name" in groups else HIDDEN
