"""`maskmill prefect ...`: Prefect's own commands, with the server, secret and packages of this maskmill."""

from __future__ import annotations

import os
import sys

import typer

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def prefect(context: typer.Context) -> None:
    """Prefect's own commands, against the server of `maskmill up`.

    Or that of PREFECT_API_URL. For instance: maskmill prefect deployment ls; maskmill prefect deployment run
    relabel/NAME.
    """
    from maskmill.flows.services import state as up_state
    from maskmill.flows.services.prefect import pools

    up_state.use_server()
    words = [sys.executable, "-m", "prefect", *context.args]
    os.execve(sys.executable, words, {**pools.RUN_ENVIRONMENT, **os.environ})
