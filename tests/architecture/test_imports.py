"""Who may import whom: data flows one way, and the page never loads torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch

import pytest

from masuka.jobs.kinds import KINDS
from tests.architecture.source import ROOT, Module, imports, modules, named, project_imports

HEAVY_LIBRARIES = {
    "torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "prodigyopt",
    "pytorch_optimizer",
}  # fmt: skip
HEAVY_MODULES = (
    "masuka.training.*",
    "masuka.generation.images",
    "masuka.generation.drawing",
    "masuka.families.parts.flux3_pipeline",
    "masuka.models.loading",
    "masuka.datasets.captions.*",
    "masuka.datasets.faces",
    "masuka.pocket.*",
)
LIGHT_IN_SPITE_OF_IT = (
    "masuka.pocket", "masuka.pocket.words", "masuka.pocket.world", "masuka.pocket.samples",
    "masuka.pocket.sayings", "masuka.datasets.captions.text", "masuka.datasets.captions.wording",
    "masuka.datasets.captions.slots", "masuka.datasets.captions.captioners", "masuka.datasets.captions.asking",
)  # fmt: skip
"""The page draws sample pictures and names Pocket's words, so these never load torch."""

MAKING_OF_POCKET = ("masuka.pocket.build", "masuka.pocket.session")

LAYERS = (
    {"errors"},
    {"config", "outside"},
    {"requests"},
    {"logs", "store"},
    {"jobs", "access", "vault", "datasets", "models", "providers", "hosting", "generation", "families",
     "pocket", "training"},
    {"studio"},
    {"ui"},
    {"cli", "__main__", "notebook"},
)  # fmt: skip
"""From the ground up; a layer imports its own and those below."""
WORKER_SIDE = ("masuka.training", "masuka.generation", "masuka.pocket", "masuka.families", "masuka.models")
NOT_IN_A_WORKER = {"store", "studio", "ui", "access", "vault", "cli"}


def part(module: Module) -> str:
    """The package of masuka that a module belongs to."""
    pieces = module.name.split(".")
    return pieces[1] if len(pieces) > 1 else pieces[0]


def level(name: str) -> int | None:
    return next((i for i, layer in enumerate(LAYERS) if name in layer), None)


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_imports_go_down(module: Module) -> None:
    if module.name in ("masuka", "app", "colab_setup"):
        return
    mine = level(part(module))
    assert mine is not None, f"{module.where} is in no layer: add {part(module)!r} to LAYERS"
    for target, line in project_imports(module):
        if target.name == "masuka":
            continue
        theirs = level(part(target))
        assert theirs is not None and theirs <= mine, f"{module.where}:{line} imports {target.name}"


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_heavy_libraries_are_loaded_late(module: Module) -> None:
    if any(fnmatch(module.name, p) for p in HEAVY_MODULES) and module.name not in LIGHT_IN_SPITE_OF_IT:
        return
    for found in imports(module):
        library = found.name.split(".")[0]
        assert not (found.at_top and library in HEAVY_LIBRARIES), (
            f"{module.where}:{found.line} loads {library} when it is imported"
        )


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_gradio_is_the_pages_alone(module: Module) -> None:
    if part(module) == "ui" or module.name == "app":
        return
    for found in imports(module):
        assert found.name.split(".")[0] != "gradio", f"{module.where}:{found.line} imports gradio"


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_one_place_loads_zero_gpus_package(module: Module) -> None:
    """It brings torch into the process, so nothing but the app on ZeroGPU may."""
    if module.name == "masuka.hosting.zero":
        return
    words = {n.value for n in ast.walk(module.tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert "spaces" not in words | {found.name.split(".")[0] for found in imports(module)}
    zero = {target.name for target, _ in project_imports(module)} & {"masuka.hosting.zero"}
    assert not zero or module.name == "app", f"{module.where} reaches the package of ZeroGPU"


def reachable(start: Module) -> dict[str, Module]:
    """Every module of the project that loading and running `start` can bring in."""
    seen: dict[str, Module] = {start.name: start}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        for target, _ in project_imports(module):
            # `masuka` names its public objects lazily; nothing is loaded through it.
            if target.name not in seen and target.name != "masuka":
                seen[target.name] = target
                waiting.append(target)
    return seen


def worker_modules() -> list[str]:
    entries = {kind.run.partition(":")[0] for kind in KINDS.values()} | {"masuka.jobs.worker"}
    return sorted(entries)


@pytest.mark.parametrize("name", worker_modules())
def test_a_worker_never_reaches_the_store(name: str) -> None:
    start = named(name)
    assert start is not None, f"jobs.kinds names {name}, which does not exist"
    for other in reachable(start).values():
        assert part(other) not in NOT_IN_A_WORKER, f"{name} reaches {other.name}"


@pytest.mark.parametrize(
    "module", [m for m in modules() if m.name.startswith(WORKER_SIDE)], ids=lambda m: m.where
)
def test_worker_packages_know_no_store(module: Module) -> None:
    for target, line in project_imports(module):
        assert part(target) not in NOT_IN_A_WORKER, f"{module.where}:{line} imports {target.name}"


SQL = re.compile(
    r"^\s*(SELECT\s.+\sFROM\s|SELECT\s+\d|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s"
    r"|DELETE\s+FROM\s|CREATE\s+(TABLE|INDEX|TRIGGER)|ALTER\s+TABLE\s|PRAGMA\s|BEGIN(\s+IMMEDIATE)?\s*$"
    r"|VACUUM(\s|$))",
    re.IGNORECASE | re.DOTALL,
)


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_sql_lives_in_the_store(module: Module) -> None:
    if part(module) == "store":
        return
    for found in imports(module):
        assert found.name.split(".")[0] not in {"sqlite3", "pysqlite3", "sqlite_utils"} or (
            module.name == "colab_setup" or part(module) == "hosting"
        ), f"{module.where}:{found.line} imports {found.name}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in {"execute", "executemany", "executescript"}, (
                f"{module.where}:{node.lineno} runs SQL"
            )
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not SQL.match(node.value), f"{module.where}:{node.lineno} holds SQL"


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_only_config_reads_the_environment(module: Module) -> None:
    if module.name in ("masuka.config", "colab_setup"):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in {"environ", "environb", "getenv", "putenv", "unsetenv"}, (
                f"{module.where}:{node.lineno} uses os.{node.attr}; ask masuka.config"
            )


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_no_shell_strings(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, (
                f"{module.where}:{node.value.lineno} passes shell="
            )
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in {"system", "popen"}, f"{module.where}:{node.lineno} runs a shell"


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.where)
def test_weights_are_never_unpickled(module: Module) -> None:
    for found in imports(module):
        assert found.name.split(".")[0] not in {"pickle", "dill", "joblib"}, f"{module.where}:{found.line}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "torch.save"}:
            # The making of Pocket keeps its unfinished state; it reads it as tensors only.
            safe = ast.unparse(node.func) == "torch.save" or "weights_only=True" in ast.unparse(node)
            assert safe and module.name in MAKING_OF_POCKET, f"{module.where}:{node.lineno} pickles"
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, (
                f"{module.where}:{node.value.lineno} trusts remote code"
            )


REQUIRED_BY_NAME = {
    "PIL": "pillow", "dotenv": "python-dotenv", "pynvml": "nvidia-ml-py", "sqlite_utils": "sqlite-utils",
    "annotated_types": "pydantic", "pydantic_core": "pydantic", "starlette": "gradio", "fastapi": "gradio",
    "uvicorn": "gradio", "tokenizers": "transformers", "numpy": "diffusers", "tqdm": "huggingface_hub",
    "httpx": "gradio", "argon2": "argon2-cffi", "cv2": "opencv-python-headless", "pi_heif": "pi-heif",
    "yaml": "pyyaml",
}  # fmt: skip
"""Import name to the line of requirements.txt that brings it."""
OPTIONAL = frozenset({"trackio"})
"""What is used only where a person has installed it; its absence is said before the start."""


def test_what_is_imported_is_required() -> None:
    listed = {
        re.split(r"[<>=;\s]", line)[0].lower()
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    for module in modules():
        for found in imports(module):
            library = found.name.split(".")[0]
            if library in sys.stdlib_module_names or library in ("masuka", "app", "IPython", "google") or library in OPTIONAL:
                continue
            required = REQUIRED_BY_NAME.get(library, library).lower()
            assert required in listed, f"{module.where}:{found.line} imports {library}, which is not required"


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a clean interpreter has after the code."""
    shown = "import sys; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    answer = subprocess.run(
        [sys.executable, "-c", f"{code}\n{shown}"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(answer.stdout.split())


@pytest.mark.parametrize("code", ["import masuka.studio", "import masuka.cli", "import masuka.families"])
def test_light_parts_do_not_load_torch(code: str) -> None:
    assert not HEAVY_LIBRARIES & loaded_by(code)


def test_the_command_line_starts_without_the_page() -> None:
    assert "gradio" not in loaded_by("import masuka.cli")


@pytest.mark.slow
def test_the_app_does_not_load_torch() -> None:
    assert not HEAVY_LIBRARIES & loaded_by("import app")


def test_the_package_itself_loads_nothing() -> None:
    assert not {"torch", "gradio", "pydantic", "sqlite_utils"} & loaded_by("import masuka")
