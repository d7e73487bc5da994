"""Sizes, names and docstrings: what keeps the house easy to read."""

from __future__ import annotations

import ast
import math
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.architecture.source import ROOT, Module, modules

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
LONGEST_FIRST_LINE = 80
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(module: Module) -> Iterator[Function]:
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_modules_are_short(module: Module) -> None:
    assert module.text.count("\n") <= LONGEST_MODULE, f"{module.where} is too long: split it by noun"


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_functions_are_short(module: Module) -> None:
    for function in functions(module):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= LONGEST_FUNCTION, f"{module.where}:{function.lineno} {function.name} has {lines} lines"


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_no_drawer_for_everything(module: Module) -> None:
    words = set(module.name.split("."))
    assert not words & {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_no_error_is_swallowed(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            does = [s for s in node.body if not _says_nothing(s)]
            assert does, f"{module.where}:{node.lineno} catches an error and does nothing"


def _says_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_public_things_say_what_you_get(module: Module) -> None:
    assert ast.get_docstring(module.tree) or not module.tree.body, f"{module.where} has no docstring"
    for node in module.tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        text = ast.get_docstring(node)
        assert text, f"{module.where}:{node.lineno} {node.name} has no docstring"
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name[0] != "_":
            first = (ast.get_docstring(node) or "").split("\n")[0]
            assert len(first) <= LONGEST_FIRST_LINE, (
                f"{module.where}:{node.lineno} {node.name}: first docstring line of {len(first)} characters"
            )


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_every_module_is_annotated(module: Module) -> None:
    if not list(functions(module)):
        return
    assert "from __future__ import annotations" in module.text, module.where


UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3 + r"\b", "coming" + " soon", "lorem" + " ipsum",
                                  "Not" + "ImplementedError")))
"""Built from pieces, so that this file does not find itself."""


def tracked_texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.md", "*.toml", "*.txt", "*.css", "*.js", "*.ipynb", ".ci/*"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if file.exists():
            yield name, file.read_text(encoding="utf-8")


def test_nothing_is_unfinished() -> None:
    for name, text in tracked_texts():
        if name.endswith(".py") or (name.endswith(".md") and not name.startswith("docs/coverage")):
            found = UNFINISHED.search(text)
            assert not found, f"{name} says {found.group()!r}"


SECRETS = re.compile(
    r"(?<![A-Za-z0-9_-])("
    r"hf_[A-Za-z0-9]{20,}|sk-(?:proj-|ant-|or-)?[A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{30,}|AQ\.[A-Za-z0-9_.-]{30,}"
    r"|r8_[A-Za-z0-9]{20,}|key_[A-Fa-f0-9]{32,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{30,}"
    r"|[0-9][A-Za-z0-9]{26}_[A-Za-z0-9]{20,}|eyJ[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9_-]{10,}){0,2}"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9a-f]{32}|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[abpr]-[A-Za-z0-9-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r")"
)
"""How keys of the services that we and others use begin; ngrok's and FAL's have no prefix."""
LEAST_BITS_A_CHARACTER = 3.2
"""A real key's letters are random; what stands for one in a test is a word or a row of one letter."""


def bits_a_character(text: str) -> float:
    """Shannon's entropy of the characters."""
    shares = [text.count(c) / len(text) for c in set(text)]
    return -sum(share * math.log2(share) for share in shares)


def looks_like_a_key(text: str) -> str:
    """The first thing in the text that is random enough to be a key, '' without one."""
    for found in SECRETS.findall(text):
        words = re.search("canary|example|secret|token|abcdef|012345|123456", found, re.IGNORECASE)
        if found.startswith("-----") or (bits_a_character(found) >= LEAST_BITS_A_CHARACTER and not words):
            return str(found)
    return ""


def every_tracked_text() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if file.is_file() and b"\0" not in (raw := file.read_bytes())[:8192]:
            yield name, raw.decode("utf-8", errors="replace")


def test_no_key_is_in_the_repository() -> None:
    names = set()
    for name, text in every_tracked_text():
        names.add(name)
        found = looks_like_a_key(text)
        assert not found, f"{name} holds what looks like a key: {found[:8]}…"
    assert {"README.md", ".env.example", "masuka/config.py", "tests/architecture/test_shape.py"} <= names


@pytest.mark.parametrize(
    "parts",
    [
        ("hf", "_", "kQ7wZr2TnXb9LmVc4HsYdPfGjA8eUoNi3t"),
        ("sk", "-", "proj-kQ7wZr2TnXb9LmVc4HsYdPfGjA8eUoNi3t"),
        ("AI", "za", "SyD4kQ7wZr2TnXb9LmVc4HsYdPfGjA8eUoN"),
        ("r8", "_", "kQ7wZr2TnXb9LmVc4HsYdPfGjA8eUoNi3tR5w"),
        ("key", "_", "0f9a4c7e1b6d2835" * 8),
        ("2", "kQ7wZr2TnXb9LmVc4HsYdPfGjA", "_8eUoNi3tR5wQ1zX6vB0m"),
        ("3d1f7c52-9a4e-4b1c-8d6f-", "0e5a7b9c2d4f", ":8c1e5a9b3d7f2046e8a0c4b6d1f39572"),
        ("-----BEGIN ", "EC PRIVATE", " KEY-----"),
    ],
    ids=lambda parts: parts[0] + parts[1][:1],
)
def test_the_scan_finds_a_key_that_is_there(parts: tuple[str, ...]) -> None:
    key = "".join(parts)
    assert looks_like_a_key(f'TOKEN = "{key}"') == key
    assert looks_like_a_key(f"x={key}\n") == key


def test_no_path_of_a_developers_machine_is_in_the_repository() -> None:
    for name, text in tracked_texts():
        for path in ("/ro" + "ot/", "/wo" + "rk/", "/hom" + "e/", "C:\\Us" + "ers"):
            assert path not in text, f"{name} names a machine's folder {path!r}"


def test_licence_is_stated_once() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
