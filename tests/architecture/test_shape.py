"""Sizes, names and docstrings: what keeps the house easy to read."""

from __future__ import annotations

import ast
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


SECRETS = re.compile(r"\b(hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9]{30,}|AIza[A-Za-z0-9_-]{35})\b")


def test_no_key_is_in_the_repository() -> None:
    for name, text in tracked_texts():
        found = SECRETS.search(text)
        assert not found, f"{name} holds what looks like a key: {found.group()[:8]}…"


def test_no_path_of_a_developers_machine_is_in_the_repository() -> None:
    for name, text in tracked_texts():
        for path in ("/ro" + "ot/", "/wo" + "rk/", "/hom" + "e/", "C:\\Us" + "ers"):
            assert path not in text, f"{name} names a machine's folder {path!r}"


def test_licence_is_stated_once() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
