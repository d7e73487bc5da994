"""Files are read up to a limit and no further, whatever size the system says they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from masuka.datasets.reading import read_file
from masuka.errors import InvalidInput


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_a_file_within_the_limit_is_read_whole(tmp_path: Path, size: int) -> None:
    file = tmp_path / "picture"
    file.write_bytes(b"x" * size)
    assert read_file(file, 1000) == b"x" * size


@pytest.mark.parametrize("size", [1001, 5000])
def test_a_larger_one_is_refused(tmp_path: Path, size: int) -> None:
    file = tmp_path / "picture"
    file.write_bytes(b"x" * size)
    with pytest.raises(InvalidInput, match="kB"):
        read_file(file, 1000)


def test_a_file_that_says_it_is_empty_is_read_all_the_same() -> None:
    """As files of /proc do, and one that grows while it is read."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system has no /proc")
    data = read_file(Path("/proc/self/status"), 100_000)
    assert data.startswith(b"Name:") and data.count(b"\n") > 10
