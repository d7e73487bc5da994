"""What is known of bitsandbytes, which peft imports whether it is asked for or not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from masuka.logs import BITSANDBYTES_CPU

pytest.importorskip("bitsandbytes", reason="bitsandbytes is for Linux")

LOADS_PEFT = """
import logging, sys
from masuka.logs import leave_out_noise
leave_out_noise()
import peft
print(*(name for name in sys.modules if name == %r))
"""


def test_peft_imports_it_and_nothing_is_said() -> None:
    """`leave_out_noise` can go once peft imports it for 8-bit and 4-bit bases only."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, "-c", LOADS_PEFT % BITSANDBYTES_CPU], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [BITSANDBYTES_CPU]
    assert "gemm_4bit" not in done.stderr
