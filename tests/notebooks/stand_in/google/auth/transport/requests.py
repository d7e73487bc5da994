"""A request that is never sent."""

from __future__ import annotations


class Request:
    """What `Credentials.refresh` is given."""
