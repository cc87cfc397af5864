"""`python -m maskmill`: the command line."""

from __future__ import annotations

from maskmill.flows.cli import main

main()
