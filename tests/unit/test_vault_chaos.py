"""After any order of failures, the last confirmed save or a newer one comes back."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.fake_drive import Cloud, FakeDrive
from tests.vault_chaos import Chaos

SHARE = st.sampled_from([0.0, 0.0, 0.05, 0.3])


class OnAFakeDrive(RuleBasedStateMachine):
    """Edits, saves, uploads and losses in any order."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="masuka-chaos-"))
        self.chaos = Chaos(self.folder, seed)

    @rule()
    def edit(self) -> None:
        self.chaos.edit()

    @rule()
    def save(self) -> None:
        self.chaos.save()

    @rule(count=st.integers(1, 12))
    def upload(self, count: int) -> None:
        self.chaos.upload(count)

    @rule(trouble=SHARE, lost=SHARE, cut=SHARE, hidden=SHARE)
    def behave(self, trouble: float, lost: float, cut: float, hidden: float) -> None:
        self.chaos.behave(trouble, lost, cut, hidden)

    @precondition(lambda self: self.chaos.machines < 6)
    @rule()
    def lose(self) -> None:
        self.chaos.lose()

    def teardown(self) -> None:
        if hasattr(self, "chaos"):
            self.chaos.lose()
            self.chaos.close()
            shutil.rmtree(self.folder)


TestOnAFakeDrive = OnAFakeDrive.TestCase
TestOnAFakeDrive.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)


def test_the_fake_drive_is_as_bad_as_it_says(tmp_path: Path) -> None:
    cloud = Cloud()
    drive = FakeDrive(tmp_path / "one", cloud, random.Random(1))
    drive.write("db/a.part", [b"content"])
    drive.rename("db/a.part", "db/a")
    assert drive.names("db") == ["a"] and cloud.files == {}
    drive.upload(10)
    assert list(cloud.files.values()) == [("db/a", b"content")]
    drive.lost_renames = 1.0
    drive.write("db/b.part", [b"b"])
    drive.rename("db/b.part", "db/b")
    drive.upload(10)
    assert ("db/b.part", b"b") in cloud.files.values()
    drive.discard("db/a")
    cloud.files[99] = ("db/b.part", b"twice")
    drive.upload(10)
    assert sorted(FakeDrive(tmp_path / "two", cloud, random.Random(1)).names("db")) == ["b (1).part", "b.part"]
