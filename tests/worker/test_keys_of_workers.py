"""What a worker knows of keys: those that its job needs, and of the app's other secrets nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from masuka.config import OWNER_PASSWORD, SECRET_NAMES, is_secret
from masuka.jobs.kinds import KINDS
from masuka.store import settings as preferences
from tests.worker.desk import Desk

PLANTED = {name: f"canary-{name.lower()}-7f3a9c" for name in (*SECRET_NAMES, OWNER_PASSWORD)}
OTHERS = {
    "TUNNEL_TOKEN": "canary-tunnel", "RUNPOD_API_KEY": "canary-runpod", "AWS_SECRET_ACCESS_KEY": "canary-aws",
    "AWS_ACCESS_KEY_ID": "canary-aws-id", "OAUTH_CLIENT_SECRET": "canary-oauth", "GH_PAT": "canary-pat",
    "DB_PASSWORD": "canary-db", "HUGGING_FACE_HUB_TOKEN": "canary-hub", "GOOGLE_APPLICATION_CREDENTIALS": "canary-file",
}  # fmt: skip


@pytest.fixture
def planted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """An app whose environment is full of keys, and one more that was typed on the page."""
    for name, value in {**PLANTED, **OTHERS}.items():
        monkeypatch.setenv(name, value)
    given = {name: value for name, value in PLANTED.items() if name not in (OWNER_PASSWORD, "FAL_KEY")}
    desk.settings = replace(desk.settings, secrets=given)
    preferences.set_setting(desk.store, actor=desk.actor, key="FAL_KEY", value="canary-typed", encrypted=True)
    desk.supervise()
    return desk


def test_a_worker_reads_no_key_in_its_own_environment(planted: Desk) -> None:
    seen = planted.wait(planted.add("look_around"))
    assert seen.result is not None
    assert "canary" not in json.dumps(seen.result)
    assert seen.result["environment"]["PATH"], "it looked"
    assert set(seen.result["environment"]).isdisjoint({**PLANTED, **OTHERS})


def test_a_job_gets_the_keys_that_its_kind_names_and_leaves_none(planted: Desk) -> None:
    with_key = planted.wait(planted.add("look_around_with_key"))
    after = planted.wait(planted.add("look_around"))
    assert with_key.result is not None and after.result is not None
    told = {name: value for name, value in with_key.result["environment"].items() if "canary" in value}
    assert told == {"HF_TOKEN": PLANTED["HF_TOKEN"], "FAL_KEY": "canary-typed"}
    assert "canary" not in json.dumps(with_key.result["started"]), "not at its start, not in its arguments"
    assert "canary" not in json.dumps(after.result), "the same worker's next job"


def test_only_what_asks_outside_gets_a_key() -> None:
    """Each the keys of the services that it asks; no lane but that of the net has any."""
    assert {name: kind.keys for name, kind in KINDS.items() if kind.keys} == {
        "download_model": ("HF_TOKEN",),
        "fetch_base": ("CIVITAI_API_KEY",),
        "fetch_lora": ("CIVITAI_API_KEY", "HF_TOKEN"),
        "import_hub": ("HF_TOKEN",),
        "push_adapter": ("HF_TOKEN",),
        "push_dataset": ("HF_TOKEN",),
        "ask_captions": ("OPENAI_API_KEY", "TOGETHER_API_KEY", "HF_TOKEN"),
    }
    assert {kind.lane for kind in KINDS.values() if kind.keys} == {"net"}
    assert all(set(kind.keys) <= set(SECRET_NAMES) - {"NGROK_AUTHTOKEN", "CLOUDFLARED_TOKEN", "SECRET_KEY"} for kind in KINDS.values())


def test_what_a_worker_needs_is_no_secret() -> None:
    for name in ("PATH", "HOME", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_TOKEN_PATH", "OMP_NUM_THREADS",
                 "TOKENIZERS_PARALLELISM", "PYTHONPATH", "MASUKA_HOME", "HTTPS_PROXY", "SSL_CERT_FILE", "HF_ENDPOINT"):  # fmt: skip
        assert not is_secret(name), name
