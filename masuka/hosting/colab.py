"""What only a notebook's own kernel can ask for: Drive, secrets, the owner's door, the end.

Google's and Kaggle's modules talk to the browser through the kernel, so none of this works
in a program that a cell starts. They raise whatever they like; here that becomes a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from masuka.errors import AccessDenied, Conflict, ExternalError, MasukaError, NotFound, RemoteUnavailable

MOUNT_PATIENCE_S = 180
FLUSH_PATIENCE_S = 600
IFRAME_HEIGHT_PX = 900
DRIVE_SCOPE = "https://www.googleapis.com/auth/drive.metadata.readonly"
WITHOUT_DRIVE = "To go on without Drive, empty the field for its folder; nothing is kept then."
_ASK_AGAIN = "Run the cell again and allow it in the window that opens."
MOUNT_PROBLEMS: tuple[tuple[tuple[str, ...], type[MasukaError], str, str], ...] = (
    (("credential propagation", "authorization failed", "invalid oauth", "access_denied", "cancel"),
     AccessDenied, "Access to Drive was refused.", _ASK_AGAIN),
    (("timeout", "timed out"), RemoteUnavailable, "Drive did not answer in time.",
     "Run the cell again. If it stays so, My Drive has too many things side by side: put them into folders."),
    (("already contain files",), Conflict, "There are files where Drive should be mounted.",
     "Choose Runtime, Disconnect and delete runtime, then run the cell again."),
    (("domain policy", "disabled drive file stream"), AccessDenied, "Your organisation does not allow Drive here.",
     "Use a personal Google account."),
    (("transport endpoint",), RemoteUnavailable, "The mounted Drive has gone away.",
     "Choose Runtime, Disconnect and delete runtime, then run the cell again."),
    (("unsupported", "has no attribute 'kernel'"), NotFound, "Drive cannot be mounted from here.",
     "Run this inside a Colab notebook's own cell."),
)  # fmt: skip
"""Words in Google's message, and what they mean; from its source and its users' reports."""


def mount_drive(at: Path) -> Path:
    """The person's My Drive, mounted there; at once when it already is.

    Raises AccessDenied, RemoteUnavailable, Conflict or NotFound with what to do.
    """
    mine = at / "MyDrive"
    try:
        from google.colab import drive

        drive.mount(str(at), timeout_ms=MOUNT_PATIENCE_S * 1000)
        list(os.scandir(mine))  # a mount that has died lists nothing and says so
    except ImportError as error:
        raise NotFound("Drive cannot be mounted outside of Colab.", WITHOUT_DRIVE) from error
    except Exception as error:  # Google's own kinds differ from image to image
        raise _mount_problem(str(error)) from error
    return mine


def _mount_problem(said: str) -> MasukaError:
    for words, kind, message, hint in MOUNT_PROBLEMS:
        if any(word in said.lower() for word in words):
            return kind(message, f"{hint} {WITHOUT_DRIVE}")
    return ExternalError(f"Drive could not be mounted: {said[:200]}.", f"{_ASK_AGAIN} {WITHOUT_DRIVE}")


def flush_drive() -> None:
    """Waits until everything written to Drive was sent, and lets go of it."""
    from google.colab import drive

    try:
        drive.flush_and_unmount(timeout_ms=FLUSH_PATIENCE_S * 1000)
    except Exception as error:
        raise RemoteUnavailable(
            f"Drive did not take everything within {FLUSH_PATIENCE_S // 60} minutes.",
            "Leave this runtime open for a while, then run the cell again.",
        ) from error


@dataclass(frozen=True)
class Secrets:
    """What the notebook's keeper of secrets gave; the values are never shown."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    withheld: tuple[str, ...] = ()
    """Names that exist and that this notebook may not read."""
    silent: bool = False
    """Whether the browser did not answer, so that the rest was not asked for."""


def colab_secrets(names: Iterable[str]) -> Secrets:
    """The secrets of those names from Colab's key panel; a missing one is normal."""
    try:
        from google.colab import userdata
    except ImportError:
        return Secrets(silent=True)
    values: dict[str, str] = {}
    withheld: list[str] = []
    for name in names:
        try:
            value = userdata.get(name)
        except Exception as error:  # noqa: BLE001 - told apart by name: older images lack one of them
            kind = type(error).__name__
            if kind == "NotebookAccessError":
                withheld.append(name)
            elif kind != "SecretNotFoundError":
                # Nobody answers; each further name would take ten seconds to say so.
                return Secrets(values, tuple(withheld), silent=True)
            continue
        if value and value.strip():
            values[name] = value.strip()
    return Secrets(values, tuple(withheld))


def kaggle_secrets(names: Iterable[str]) -> Secrets:
    """The secrets of those names from Kaggle's add-ons; one that is missing is normal."""
    try:
        client = import_module("kaggle_secrets").UserSecretsClient()
    except ImportError:
        return Secrets(silent=True)
    values: dict[str, str] = {}
    for name in names:
        try:
            values[name] = client.get_secret(name)
        except Exception as error:  # noqa: BLE001 - one kind for "no such label", others for no network
            if "Connection" in type(error).__name__:
                return Secrets(values, silent=True)
    return Secrets({n: v for n, v in values.items() if v})


def drive_tokens() -> Callable[[], str]:
    """A function that gives a fresh access token for looking into Drive.

    Asks the person for another permission. Raises AccessDenied when it is not given.
    """
    try:
        from google.colab import auth

        auth.authenticate_user()
        credentials, _ = import_module("google.auth").default(scopes=[DRIVE_SCOPE])
        transport = import_module("google.auth.transport.requests").Request()
    except Exception as error:
        raise AccessDenied("Google did not give the permission to look at Drive's checksums.", _ASK_AGAIN) from error

    def fresh() -> str:
        credentials.refresh(transport)
        return str(credentials.token)

    return fresh


def proxy_name(port: int) -> str:
    """The host name under which Colab shows this port to its owner; '' if unknown."""
    try:
        from google.colab import output

        address = output.eval_js(f"google.colab.kernel.proxyPort({port})", timeout_sec=20)
    except Exception:  # noqa: BLE001 - no browser, or an image that does not know the time limit
        return ""
    return (urlsplit(str(address or "")).hostname or "").lower()


def show_page(port: int, path: str) -> None:
    """Shows the page under the cell, for the owner of the runtime alone."""
    from google.colab import output

    output.serve_kernel_port_as_iframe(port, path=path, height=str(IFRAME_HEIGHT_PX))


def give_back_runtime() -> None:
    """Ends the runtime, so that it costs nothing more."""
    from google.colab import runtime

    runtime.unassign()
