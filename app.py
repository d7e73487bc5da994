"""The app: the environment's settings, the studio, the page, and its link."""

from __future__ import annotations

import sys

from masuka.config import Settings
from masuka.errors import MasukaError
from masuka.hosting import space
from masuka.hosting.runtime import detect
from masuka.hosting.zero import lender
from masuka.ui.serve import serve, show, wait


def main() -> int:
    """0 when it was closed, 1 with a sentence when it could not start."""
    try:
        host = detect()
        settings = space.settled(Settings.from_environment(), host)
        served = serve(settings, lend=lender(settings) if host.zero_gpu else None)
    except MasukaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    show(served, settings)
    wait(served)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
