"""MASUKA trains your character and puts it in pictures, on any machine.

    from masuka import Studio

The public names are loaded on first use (PEP 562), so that a worker that imports
`masuka.training` does not pull in the store, and the page does not pull in torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["MasukaError", "Settings", "Studio", "__version__"]

_HOMES = {
    "Studio": "masuka.studio",
    "Settings": "masuka.config",
    "MasukaError": "masuka.errors",
}

if TYPE_CHECKING:
    from masuka.config import Settings
    from masuka.errors import MasukaError
    from masuka.studio import Studio


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'masuka' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
