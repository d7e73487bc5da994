"""`python -m masuka`: the command line."""

from __future__ import annotations

from masuka.cli import main

main()
