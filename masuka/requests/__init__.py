"""Validated requests: ranges, defaults and help texts, the single truth for each parameter."""

from masuka.requests.actor import Actor
from masuka.requests.base import Limit, Param, Request, params

__all__ = ["Actor", "Limit", "Param", "Request", "params"]
