"""Keys of outside services: what they look like, and whether the service accepts one.

One table says for each service how its keys begin and which of its addresses costs
nothing and answers only to a key. Nothing here keeps a key or shows one.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import httpx

from masuka import logs, outside
from masuka.errors import AccessDenied, InvalidInput, RemoteUnavailable

TIMEOUT_S = 8.0
ENDING = 4
SHORTEST_SHOWN = 16
"""Of a shorter key even the end is not shown."""
_LONGEST = 4000
_REFUSED = frozenset({401, 403})
_NOT_A_KEY = re.compile(r"[\s\"'<>]|[^\x21-\x7e]")


@dataclass(frozen=True)
class Service:
    """One outside service; `path` is '' where a key cannot be tested by a request.

    `begins` and `shape` describe the form of its keys; `header` and `scheme` say how a
    key is sent.
    """

    name: str
    title: str
    about: str
    where: str
    begins: tuple[str, ...] = ()
    shape: str = r".{8,}"
    base_url: str = ""
    path: str = ""
    header: str = "authorization"
    scheme: Literal["Bearer ", "Key ", ""] = "Bearer "
    also: Mapping[str, str] = field(default_factory=dict)


SERVICES: dict[str, Service] = {
    service.name: service
    for service in (
        Service(
            "HF_TOKEN", "Hugging Face", "Bases that ask for an account.", "huggingface.co/settings/tokens",
            begins=("hf_",), shape=r"hf_[A-Za-z0-9]{20,}",
            base_url="https://huggingface.co", path="/api/whoami-v2",
        ),
        Service(
            "CIVITAI_API_KEY", "CivitAI", "Downloads from CivitAI.", "civitai.com/user/account",
            shape=r"[A-Za-z0-9_-]{20,}", base_url="https://civitai.com", path="/api/v1/me",
        ),
        Service(
            "GOOGLE_API_KEY", "Google", "Pictures and videos by Google.", "aistudio.google.com/apikey",
            begins=("AIza", "AQ."), shape=r"(AIza[A-Za-z0-9_-]{35}|AQ\.[A-Za-z0-9._-]{20,})",
            base_url="https://generativelanguage.googleapis.com", path="/v1beta/models?pageSize=1",
            header="x-goog-api-key", scheme="",
        ),
        Service(
            "FAL_KEY", "FAL", "Pictures and videos by FAL.", "fal.ai/dashboard/keys", shape=r"[A-Za-z0-9:_-]{16,}",
            base_url="https://api.fal.ai", path="/v1/models/pricing?endpoint_id=fal-ai/flux/dev", scheme="Key ",
        ),
        Service(
            "COMET_API_KEY", "Comet", "Pictures and videos by CometAPI.", "api.cometapi.com/console/token",
            begins=("sk-",), shape=r"sk-[A-Za-z0-9_-]{16,}",
            base_url="https://api.cometapi.com", path="/v1/models",
        ),
        Service(
            "TOGETHER_API_KEY", "Together", "Pictures and text by Together.", "api.together.ai/settings/api-keys",
            shape=r"[A-Za-z0-9_-]{20,}", base_url="https://api.together.xyz", path="/v1/models",
        ),
        Service(
            "RUNWAYML_API_SECRET", "Runway", "Videos by Runway.", "dev.runwayml.com", begins=("key_",),
            shape=r"key_[A-Za-z0-9]{32,}", base_url="https://api.dev.runwayml.com", path="/v1/organization",
            also={"x-runway-version": "2024-11-06"},
        ),
        Service(
            "REPLICATE_API_TOKEN", "Replicate", "Pictures and videos by Replicate.",
            "replicate.com/account/api-tokens", begins=("r8_",), shape=r"r8_[A-Za-z0-9]{20,}",
            base_url="https://api.replicate.com", path="/v1/account",
        ),
        Service(
            "OPENAI_API_KEY", "OpenAI or alike", "Any service that speaks OpenAI's language.",
            "platform.openai.com/api-keys", begins=("sk-",), shape=r"sk-[A-Za-z0-9_-]{16,}",
            base_url="https://api.openai.com/v1", path="/models",
        ),
        Service(
            "NGROK_AUTHTOKEN", "ngrok", "A link for collaborators.",
            "dashboard.ngrok.com/get-started/your-authtoken", shape=r"[A-Za-z0-9]{16,}_[A-Za-z0-9]{10,}",
        ),
        Service(
            "CLOUDFLARED_TOKEN", "Cloudflare tunnel", "A link under your own domain.", "one.dash.cloudflare.com",
            begins=("eyJ",), shape=r"eyJ[A-Za-z0-9_=-]{20,}",
        ),
    )
}  # fmt: skip
"""By the name of the environment variable. Read in each service's own documents, October 2026."""


BY_PROGRAM = frozenset({"NGROK_AUTHTOKEN"})
"""Keys that only the service's own program can prove; see `hosting.ways`."""


def must_look_right(name: str, value: str, *, base_url: str = "") -> None:
    """Raises InvalidInput, with what is wrong about its form, for what is no such key.

    A service that only speaks OpenAI's language gives keys of its own form.
    """
    service = SERVICES.get(name)
    if service is None:
        raise InvalidInput(f"There is no key named {name!r}.", f"Known are: {', '.join(SERVICES)}.", field="name")
    hint = f"Copy it again from {service.where}."
    if _NOT_A_KEY.search(value):
        raise _wrong("The key holds a space, a quotation mark or another sign that keys have not.", hint)
    if "=" in value.rstrip("=") and value.split("=", 1)[0].isupper():
        raise _wrong("This is a whole line of settings, not the key alone.", "Enter what stands after the =.")
    if len(value) > _LONGEST:
        raise _wrong(f"The key has {len(value):,} characters.", hint)
    if _is_elsewhere(service, base_url):
        return
    if service.begins and not value.startswith(service.begins):
        raise _wrong(f"A key of {service.title} begins with {' or '.join(service.begins)}.", hint)
    if not re.fullmatch(service.shape, value):
        raise _wrong(f"This is too short or not whole for a key of {service.title}.", hint)
    if name == "CLOUDFLARED_TOKEN" and not _is_tunnel_token(value):
        raise _wrong("This is no token of a Cloudflare tunnel.", hint)


def ending(value: str) -> str:
    """The last four characters, '' of a key too short to show any."""
    return value[-ENDING:] if len(value) >= SHORTEST_SHOWN else ""


def can_be_tested(name: str) -> bool:
    """Whether the service can be asked without opening or paying anything."""
    return name in SERVICES and (bool(SERVICES[name].path) or name in BY_PROGRAM)


def clean_base_url(text: str, *, local: Collection[str] = ()) -> str:
    """The address of a service that speaks OpenAI's language; '' is OpenAI itself.

    Raises InvalidInput for one that is not outside and not in `local`; see `outside`.
    """
    text = text.strip().rstrip("/")
    if text:
        outside.target_of(text, local=local, field="base_url")
    if "?" in text or "#" in text:
        raise InvalidInput("The address must be without a query.", outside.EXAMPLE, field="base_url")
    return text


def must_be_accepted(
    name: str,
    value: str,
    *,
    base_url: str = "",
    local: Collection[str] = (),
    bases: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Returns when the service accepts the key.

    Raises AccessDenied when it does not, RemoteUnavailable when it did not say so.
    `bases` are addresses in place of the table's own; `base_url` is one that a person
    typed, and goes through `outside`. The key is sent nowhere else: a redirection is not
    followed.
    """
    must_look_right(name, value, base_url=base_url)
    service = SERVICES[name]
    if not service.path:
        raise RemoteUnavailable(f"A key of {service.title} is tested by using it.", "Open a link in Settings → Link.")
    logs.redact.learn([value])
    typed = _is_elsewhere(service, base_url)
    base = base_url if typed else (bases or {}).get(name) or service.base_url
    headers = {service.header: f"{service.scheme}{value}", "user-agent": "masuka", **service.also}
    try:
        with outside.client(local=local, timeout_s=timeout_s) if typed else httpx.Client(timeout=timeout_s) as client:
            answer = client.get(base + service.path, headers=headers)
    except httpx.HTTPError as error:
        raise RemoteUnavailable(
            f"{service.title} did not answer.", f"Look at the connection and try again ({type(error).__name__})."
        ) from error
    _judge(service, answer)


def _judge(service: Service, answer: httpx.Response) -> None:
    if answer.is_success:
        return
    status = answer.status_code
    # Google answers 400 for a key that it does not know.
    if status in _REFUSED or (status == httpx.codes.BAD_REQUEST and "API_KEY_INVALID" in answer.text[:5000]):
        raise AccessDenied(
            f"{service.title} does not accept this key.", f"Make a new one at {service.where} and save it here."
        )
    if status == httpx.codes.PAYMENT_REQUIRED:
        raise AccessDenied(f"{service.title} knows the key, but its account has no credit.", "Add credit there.")
    raise RemoteUnavailable(
        f"{service.title} answered {status}, so the key is neither proved nor refused.", "Try again in a few minutes."
    )


def _is_elsewhere(service: Service, base_url: str) -> bool:
    return service.name == "OPENAI_API_KEY" and bool(base_url) and base_url != service.base_url


def _is_tunnel_token(value: str) -> bool:
    """Whether it is the JSON of an account (a), a tunnel (t) and a secret (s) in base64."""
    try:
        told = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(told, dict) and {"a", "t", "s"} <= set(told)


def _wrong(message: str, hint: str) -> InvalidInput:
    return InvalidInput(message, hint, field="value")
