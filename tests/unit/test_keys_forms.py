"""What a key looks like, and what is said about one that is none."""

from __future__ import annotations

import base64
import json

import pytest

from masuka.config import SECRET_NAMES
from masuka.errors import InvalidInput
from masuka.hosting import keys

BODY = "Ab3dE6gH9jKlMn0pQrS5tUvWxYz1234567890ab"
TUNNEL = base64.urlsafe_b64encode(json.dumps({"a": "0" * 32, "t": "1" * 36, "s": "c2VjcmV0"}).encode()).decode()
GOOD = {
    "HF_TOKEN": "hf_" + BODY[:34],
    "CIVITAI_API_KEY": BODY[:32],
    "GOOGLE_API_KEY": "AI" + "za" + BODY[:35],
    "FAL_KEY": f"0f1e2d3c-0000-4000-8000-000000000000:{BODY[:32]}",
    "COMET_API_KEY": "sk" + "-" + BODY,
    "TOGETHER_API_KEY": BODY,
    "RUNWAYML_API_SECRET": "key_" + BODY * 3,
    "REPLICATE_API_TOKEN": "r8_" + BODY[:37],
    "OPENAI_API_KEY": "sk" + "-proj-" + BODY,
    "NGROK_AUTHTOKEN": f"2{BODY[:26]}_{BODY[:21]}",
    "CLOUDFLARED_TOKEN": TUNNEL,
}


def test_every_key_that_is_kept_has_a_form() -> None:
    assert set(keys.SERVICES) == set(GOOD) == set(SECRET_NAMES) - {"SECRET_KEY"}


@pytest.mark.parametrize("name", GOOD)
def test_a_key_of_the_right_form_passes(name: str) -> None:
    keys.must_look_right(name, GOOD[name])


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("spoil", ["{} {}", '"{}"', "{}\n", "{}é", "X_TOKEN={}", "ab{:.3}"])
def test_a_spoilt_key_is_refused_with_a_sentence(name: str, spoil: str) -> None:
    value = spoil.format(GOOD[name], "more") if spoil.count("{}") == 2 else spoil.format(GOOD[name])
    with pytest.raises(InvalidInput) as refused:
        keys.must_look_right(name, value)
    assert refused.value.field == "value" and refused.value.hint
    assert GOOD[name] not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("HF_TOKEN", GOOD["OPENAI_API_KEY"], "begins with hf_"),
        ("OPENAI_API_KEY", GOOD["HF_TOKEN"], "begins with sk-"),
        ("GOOGLE_API_KEY", GOOD["HF_TOKEN"], "begins with AIza"),
        ("CLOUDFLARED_TOKEN", "eyJ" + BODY, "no token of a Cloudflare tunnel"),
        ("HF_TOKEN", "hf_" + "a" * 5000, "5,003 characters"),
    ],
)
def test_the_sentence_says_how_such_keys_begin(name: str, value: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        keys.must_look_right(name, value)


def test_a_service_of_ones_own_gives_keys_of_its_own_form() -> None:
    with pytest.raises(InvalidInput):
        keys.must_look_right("OPENAI_API_KEY", "local")
    keys.must_look_right("OPENAI_API_KEY", "local", base_url="http://192.0.2.7:8000/v1")
    with pytest.raises(InvalidInput):
        keys.must_look_right("HF_TOKEN", "local-token-0123456789", base_url="http://192.0.2.7:8000/v1")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no key named"):
        keys.must_look_right("PATH", "x")


def test_only_the_end_of_a_long_key_is_ever_shown() -> None:
    assert keys.ending(GOOD["HF_TOKEN"]) == GOOD["HF_TOKEN"][-4:]
    assert keys.ending("short") == ""


@pytest.mark.parametrize("text", ["", "https://llm.example.org/v1", "http://127.0.0.1:1234/v1/"])
def test_an_address_of_ones_own_is_kept(text: str) -> None:
    assert keys.clean_base_url(text, local={"127.0.0.1:1234"}) == text.rstrip("/")


@pytest.mark.parametrize(
    "text", ["ftp://x.org", "file:///etc/passwd", "https://user:pw@x.org/v1", "https://x.org/v1?key=1", "x.org", "http://"]
)
def test_a_strange_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        keys.clean_base_url(text)
