"""The documents name what exists, and name all of it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from masuka import requests
from masuka.requests.base import Request, params
from tests.architecture.source import ROOT, named

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "masuka").rglob("*.md")])
FEATURES = [f"F{n}" for n in range(1, 176) if n != 147] + [f"B{n}" for n in range(1, 21)]
"""Every feature id there is; the list of features has no F147."""


def reference() -> ModuleType:
    """docs/reference.py, loaded as a module."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says() -> None:
    made = reference()
    assert made.FILE.read_text() == made.text(), "run: python docs/reference.py"


def requests_in_the_project() -> set[type[Request]]:
    """Those of every module there is: one that nobody named here was once forgotten."""
    found: set[type[Request]] = set()
    for about in pkgutil.iter_modules(requests.__path__):
        module = importlib.import_module(f"{requests.__name__}.{about.name}")
        found |= {v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Request) and v is not Request}
    return found


def test_every_request_and_setting_is_documented() -> None:
    made = reference()
    assert requests_in_the_project() == set(made.REQUESTS)
    for request in made.REQUESTS:
        for name, param in params(request).items():
            assert f"`{name}`" in made.text()
            assert param.help, f"{request.__name__}.{name} has no help"


def test_every_command_has_a_help() -> None:
    made = reference()
    import typer.main

    commands = dict(made.walk(typer.main.get_command(made.app)))
    assert {"demo", "serve", "doctor", "db migrate"} <= set(commands)
    assert all(about.endswith(".") for about in commands.values()), commands


def test_every_variable_is_documented() -> None:
    config = named("masuka.config")
    assert config is not None
    texts = config.text + (ROOT / "colab_setup.py").read_text()
    read = set(re.findall(r"\bMASUKA_[A-Z_]+[A-Z]\b", texts)) - {"MASUKA_REQUIRE_BROWSER"}
    assert read <= set(reference().VARIABLES)
    from masuka.config import SECRET_NAMES

    assert set(SECRET_NAMES) <= set(reference().VARIABLES)


def test_the_example_of_a_dotenv_file_is_true() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named_there = {m.group(1) for line in lines if (m := re.match(r"# ([A-Z][A-Z_]+)=", line))}
    assert named_there <= set(reference().VARIABLES)
    from masuka.config import SECRET_NAMES

    assert set(SECRET_NAMES) <= named_there
    assert all(line.startswith("#") or not line for line in lines), "an example sets nothing"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#", "mailto:")):
            path = document.parent / target.split("#")[0]
            assert path.exists(), f"{document.name} links to {target}"


def coverage_rows() -> dict[str, list[str]]:
    """Feature id to the cells of its row in docs/coverage.md."""
    rows = {}
    for line in (ROOT / "docs" / "coverage.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if re.fullmatch(r"[FB]\d+", cells[0]):
            assert cells[0] not in rows, f"{cells[0]} has two rows"
            rows[cells[0]] = cells
    return rows


def test_coverage_has_a_row_for_every_feature() -> None:
    assert list(coverage_rows()) == FEATURES


@pytest.mark.parametrize("feature", FEATURES)
def test_coverage_names_what_exists(feature: str) -> None:
    cells = coverage_rows()[feature]
    assert len(cells) == 4, f"{feature}: id, feature, place, test"
    _, about, place, test = cells
    assert about
    if place == "not yet":
        assert test == ""
        return
    places, tests = re.findall(r"`([^`]+)`", place), re.findall(r"`([^`]+)`", test)
    assert places and tests, f"{feature} needs a place and a test, or 'not yet'"
    for path in places:
        assert (ROOT / path).exists(), f"{feature}: {path} does not exist"
    for path in tests:
        file, _, name = path.partition("::")
        assert file.startswith("tests/") and (ROOT / file).exists(), f"{feature}: {file} does not exist"
        if name:
            assert name in _test_names(ROOT / file), f"{feature}: {file} has no {name}"


def _test_names(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}


def tree_in_the_readme() -> list[str]:
    """The paths of README's file tree, folders with a slash at the end."""
    block = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "README has no file tree"
    paths: list[str] = []
    parents: list[str] = []
    for line in block.group(1).splitlines():
        found = re.match(r"( *)(\S+)", line)
        if not found:
            continue
        depth, name = len(found.group(1)) // 2, found.group(2)
        parents = [*parents[:depth], name]
        paths.append("".join(parents))
    return paths


def test_the_file_tree_of_the_readme_is_true_and_whole() -> None:
    shown = set(tree_in_the_readme())
    for path in shown:
        assert (ROOT / path).exists(), f"README shows {path}"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split("\0")
    for name in filter(None, tracked):
        top, _, rest = name.partition("/")
        if top.startswith("."):
            continue
        assert (f"{top}/" if rest else top) in shown, f"README's tree has no {top}"
        if top == "masuka":
            part, _, inside = rest.partition("/")
            assert f"masuka/{part}/" in shown if inside else True, f"README's tree has no masuka/{part}/"
            assert inside or f"masuka/{part}" in shown or part == "__init__.py", f"README's tree has no masuka/{part}"


def test_python_in_the_documents_is_python() -> None:
    for document in DOCUMENTS:
        for block in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
            ast.parse(block, filename=document.name)
