"""The key panel: secrets that are there, withheld from this notebook, missing, or no answer."""

from __future__ import annotations

from google.colab import note, told


class SecretNotFoundError(Exception):
    pass


class NotebookAccessError(Exception):
    pass


class TimeoutException(Exception):
    pass


def get(key: str) -> str:
    note("secret", name=key)
    if told().get("panel") == "silent":
        raise TimeoutException(f"Requesting secret {key} timed out.")
    if key in told().get("withheld", ()):
        raise NotebookAccessError(f"Notebook does not have access to secret {key}")
    if key not in told().get("secrets", {}):
        raise SecretNotFoundError(f"Secret {key} does not exist.")
    return str(told()["secrets"][key])
