"""The harness of the benchmarks: goals, pairs, the result object. No figure is asserted."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks import document, harness, reliability

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [(0.9, ">= 0.9", True), (0.89, ">= 0.9", False), (3.0, "<= 3.0", True), (3.01, "<= 3.0", False), (0, "<= 0", True)],
)
def test_a_goal_is_met_or_not(value: float, goal: str, met: bool) -> None:
    assert harness.bar(value, goal) == {"value": round(value, 4), "goal": goal, "met": met}


def test_pairs_take_turns_in_alternating_order() -> None:
    told: list[str] = []
    ours, theirs, ratio = harness.in_turn(lambda: told.append("a"), lambda: told.append("b"), pairs=4)
    assert "".join(told) == "baabbaab"
    assert min(ours, theirs, ratio) > 0


def test_every_benchmark_names_code_that_exists() -> None:
    for benchmark in harness.BENCHMARKS.values():
        module, _, function = benchmark.measure.partition(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        assert f"def {function}(" in Path(spec.origin).read_text()
        assert benchmark.about


def result() -> dict[str, object]:
    return {
        "name": "pocket",
        "figures": {"picture_s": 2.5, "other": 1.0},
        "bars": {"picture_s": harness.bar(2.5, "<= 3.0")},
        "machine": {"cores": 2},
        "versions": {},
        "date": "2026-11-20T10:00:00+00:00",
        "seconds": 61.0,
    }


def test_a_result_is_a_table_or_json_and_a_file(tmp_path: Path) -> None:
    shown = harness.show(result(), as_json=False)
    assert "picture_s" in shown and "goal <= 3.0: met" in shown
    assert json.loads(harness.show(result(), as_json=True)) == result()
    file = harness.write(result(), tmp_path / "results")
    assert json.loads(file.read_text()) == result()


class Parts:
    """Three parts; the one in `breaks` never ends well. Which were measured is in `done`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.breaks = ""

    def __call__(self) -> harness.Parts:
        return {name: partial(self._measure, name) for name in ("one", "two", "three")}

    def _measure(self, name: str) -> tuple[harness.Figures, harness.Bars]:
        if name == self.breaks:
            raise KeyboardInterrupt
        self.done.append(name)
        return {f"{name}_s": float(len(self.done)), f"{name}_n": 1.0}, {f"{name}_n": harness.bar(1.0, ">= 1")}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    found = Parts()
    monkeypatch.setitem(harness.BENCHMARKS, "parted", harness.Benchmark("x", "masuka:parts", in_parts=True))
    monkeypatch.setattr("masuka.parts", found, raising=False)
    return found


def test_a_run_that_is_broken_off_goes_on(parts: Parts, tmp_path: Path) -> None:
    parts.breaks = "three"
    with pytest.raises(KeyboardInterrupt):
        harness.measure_parts("parted", tmp_path)
    kept = json.loads((tmp_path / "parted.json").read_text())
    assert set(kept["parts"]) == {"one", "two"} and kept["missing"] == ["three"]
    assert kept["figures"] == {"one_s": 1, "one_n": 1, "two_s": 2, "two_n": 1}
    parts.breaks = ""
    whole = harness.measure_parts("parted", tmp_path)
    assert parts.done == ["one", "two", "three"]
    assert whole["missing"] == [] and whole["figures"]["one_s"] == 1 and whole["figures"]["three_s"] == 3
    assert json.loads((tmp_path / "parted.json").read_text()) == whole
    assert set(whole["parts"]["three"]) == {"date", "seconds", "figures", "cores_busy_elsewhere"}


def test_a_whole_result_is_measured_anew_or_in_one_part(parts: Parts, tmp_path: Path) -> None:
    harness.measure_parts("parted", tmp_path)
    again = harness.measure_parts("parted", tmp_path, again=["two"])
    assert parts.done == ["one", "two", "three", "two"]
    assert (again["figures"]["one_s"], again["figures"]["two_s"]) == (1, 4)
    assert set(again["bars"]) == {"one_n", "two_n", "three_n"}
    harness.measure_parts("parted", tmp_path)
    assert len(parts.done) == 7


def test_what_another_version_measured_is_not_gone_on_with(parts: Parts, tmp_path: Path) -> None:
    parts.breaks = "two"
    with pytest.raises(KeyboardInterrupt):
        harness.measure_parts("parted", tmp_path)
    file = tmp_path / "parted.json"
    kept = json.loads(file.read_text())
    kept["versions"]["masuka"] = "0.0.1"
    file.write_text(json.dumps(kept))
    parts.breaks = ""
    harness.measure_parts("parted", tmp_path)
    assert parts.done == ["one", "one", "two", "three"]


def test_an_unknown_benchmark_is_a_usage_error() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks", "run", "nothing"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert answer.returncode == 2
    assert "pocket" in answer.stderr and "Traceback" not in answer.stderr


def test_committed_results_are_whole() -> None:
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        found = json.loads(file.read_text())
        assert {"name", "figures", "bars", "machine", "versions", "date"} <= set(found)
        assert found["name"] in harness.BENCHMARKS
        assert not found.get("missing"), f"{file.name} was broken off"
        for name, bar in found["bars"].items():
            assert set(bar) == {"value", "goal", "met"}
            assert found["figures"][name] == bar["value"]


def test_the_document_shows_the_committed_results() -> None:
    assert document.FILE.read_text() == document.text(), "run: python -m benchmarks document"
    assert reliability.FILE.read_text() == reliability.text(), "run: python -m benchmarks document"
