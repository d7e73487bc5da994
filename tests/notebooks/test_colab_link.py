"""The notebook with an ngrok token: one link, the owner's password shown once, a bad token said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.notebooks.kernels import cell_of, colab, publish
from tests.tunnel_stand_in import Program, certificate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # jupyter_client's and zmq's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # jupyter_client leaves its event loop open
]
NOTEBOOK = "masuka_colab.ipynb"
TOKEN = "2canary9tokenForNgrokAgents_4Qx9LmN2pRs5TuVwXyZ1"


def test_a_token_in_the_key_panel_opens_one_link(tmp_path: Path) -> None:
    repository = publish(tmp_path)
    pem = certificate(tmp_path)
    program = Program(tmp_path / "agent", "107", certificate=pem)
    environment = {"PYNGROK_NGROK_PATH": str(program.path), "SSL_CERT_FILE": str(pem)}
    opening = cell_of(NOTEBOOK, "open", {"REPOSITORY": str(repository), "I_HAVE_COMPUTE_UNITS": True})
    with colab(tmp_path, environment) as runtime:
        runtime.behave(secrets={"NGROK_AUTHTOKEN": TOKEN})
        # A token that ngrok does not accept: one sentence, and the app is there all the same.
        bad = runtime.run(opening)
        password = re.search(r"Your password as owner, for a link from outside: (\S+)", bad)
        assert password, bad
        assert "No link for collaborators: " in bad
        assert "authtoken" in bad
        program.mode = "ok"
        runtime.run(cell_of(NOTEBOOK, "stop", {}))
        first = runtime.run(opening)
        link = re.search(r"For people you invite: (https://\S+)", first)
        assert link, first
        assert password.group(1) not in first
        starts = len(program.starts)
        again = runtime.run(opening)
        assert f"For people you invite: {link.group(1)}" in again
        assert len(program.starts) == starts
        runtime.run(cell_of(NOTEBOOK, "stop", {}))
        for shown in (bad, first, again):
            assert TOKEN not in shown
