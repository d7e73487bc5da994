"""Every error that a person may see, and the signal that stops a job.

    MasukaError(message, hint)      message: what happened; hint: what to do now
    ├ UserError                     the request cannot be carried out as asked
    │ ├ InvalidInput(field)         a value is out of range or of the wrong kind
    │ ├ NotFound                    what was named does not exist (or is not yours)
    │ ├ Conflict                    it exists already, or its state forbids this
    │ └ NotAllowed                  this person may not do this
    ├ ResourceError                 the machine is too small for it
    │ ├ OutOfMemory(needed, free)
    │ ├ OutOfDisk
    │ └ NoAccelerator
    ├ ExternalError                 somebody else's service
    │ ├ AccessDenied
    │ ├ DownloadFailed
    │ ├ RemoteUnavailable
    │ └ Refused                     moderation
    ├ StoreError                    the database
    │ ├ Locked
    │ ├ SchemaTooNew
    │ └ Damaged
    ├ TrainingError                 the numbers went wrong (a loss that is not finite)
    └ Cancelled                     not a failure: somebody asked for it

Anything else that is raised is a bug. `Stop` is no error: it leaves a job from
within a model's forward pass and must pass every `except Exception` on its way.
"""

from __future__ import annotations

from typing import Any


class MasukaError(Exception):
    """A sentence about what happened, with a hint about what to do now."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def as_dict(self) -> dict[str, Any]:
        """The one shape in which an error is stored, printed and shown."""
        return {"type": type(self).__name__, "message": self.message, "hint": self.hint}


class UserError(MasukaError):
    """The request cannot be carried out as it was asked."""


class InvalidInput(UserError):
    """A value is out of range or of the wrong kind; `field` names it."""

    def __init__(self, message: str, hint: str = "", *, field: str = "") -> None:
        super().__init__(message, hint)
        self.field = field

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "field": self.field}


class NotFound(UserError):
    """What was named does not exist, or belongs to somebody else."""


class Conflict(UserError):
    """It exists already, or its present state forbids this."""


class NotAllowed(UserError):
    """This person may not do this."""


class ResourceError(MasukaError):
    """The machine is too small for the request."""


class OutOfMemory(ResourceError):
    """Memory ran out, or would; sizes are bytes, 0 where unknown."""

    def __init__(self, message: str, hint: str = "", *, needed: int = 0, free: int = 0) -> None:
        super().__init__(message, hint)
        self.needed = needed
        self.free = free

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "needed": self.needed, "free": self.free}


class OutOfDisk(ResourceError):
    """The disk is full, or would be."""


class NoAccelerator(ResourceError):
    """This needs a GPU and there is none."""


class ExternalError(MasukaError):
    """A service outside this machine did not do its part."""


class AccessDenied(ExternalError):
    """The service wants an account, a licence click or another token."""


class DownloadFailed(ExternalError):
    """A download did not arrive whole."""


class RemoteUnavailable(ExternalError):
    """The service cannot be reached or is overloaded."""


class Refused(ExternalError):
    """The service's moderation said no."""


class StoreError(MasukaError):
    """The database could not be read or written."""


class Locked(StoreError):
    """Another program holds the database."""


class SchemaTooNew(StoreError):
    """The database was written by a newer MASUKA."""


class Damaged(StoreError):
    """The database file is not what it should be."""


class TrainingError(MasukaError):
    """The training's own numbers went wrong, for example a loss that is not finite."""


class Cancelled(MasukaError):
    """Somebody asked for the job to stop; raised to whoever waits for it."""


class Stop(BaseException):
    """Leaves a running job at once; `why` is 'cancel' or 'pause'.

    A `BaseException`, because libraries between a forward hook and the job log and
    re-wrap every `Exception` that passes through them.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def from_dict(data: dict[str, Any]) -> MasukaError:
    """The error that `as_dict` described; an unknown type becomes a MasukaError."""
    kind = globals().get(str(data.get("type")), MasukaError)
    if not (isinstance(kind, type) and issubclass(kind, MasukaError)):
        kind = MasukaError
    extra = {k: data[k] for k in ("field", "needed", "free") if k in data}
    return kind(str(data.get("message", "")), str(data.get("hint", "")), **extra)
