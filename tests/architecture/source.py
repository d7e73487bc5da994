"""The project's own source, parsed once for the tests of this folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Import:
    """One import: the full dotted name, and whether it happens when the module loads."""

    name: str
    line: int
    at_top: bool


@dataclass(frozen=True)
class Module:
    """One parsed file of the project."""

    path: Path
    name: str
    tree: ast.Module
    text: str

    @property
    def where(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the package, and app.py and colab_setup.py where they are."""
    files = sorted((ROOT / "masuka").rglob("*.py"))
    files += [f for f in (ROOT / "app.py", ROOT / "colab_setup.py") if f.exists()]
    return tuple(_module(f) for f in files)


@cache
def named(name: str) -> Module | None:
    """The module of that dotted name, None if the project has none."""
    return next((m for m in modules() if m.name == name), None)


@cache
def imports(module: Module) -> tuple[Import, ...]:
    """What the module imports at run time; imports for type checkers do not count."""
    return tuple(_imports(module, module.tree, at_top=True))


def project_imports(module: Module, *, at_top_only: bool = False) -> Iterator[tuple[Module, int]]:
    """The project's own modules that this one imports, with the line."""
    for found in imports(module):
        if at_top_only and not found.at_top:
            continue
        target = named(found.name) or named(found.name.rpartition(".")[0])
        if target is not None and target is not module:
            yield target, found.line


def _module(file: Path) -> Module:
    parts = file.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = file.read_text(encoding="utf-8")
    return Module(file, name, ast.parse(text, filename=str(file)), text)


def _imports(module: Module, node: ast.AST, *, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _imports(module, other, at_top=at_top)
        elif isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_top)
        elif isinstance(child, ast.ImportFrom):
            origin = _origin(module, child)
            for alias in child.names:
                yield Import(f"{origin}.{alias.name}", child.lineno, at_top)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(module, child, at_top=at_top and not inside)


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    keep = len(package) - node.level + (module.path.name == "__init__.py")
    return ".".join([*package[:keep], *([node.module] if node.module else [])])
