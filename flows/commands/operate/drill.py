"""`maskmill drill`: disturb a job on purpose and prove that nothing came of it."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskmill.flows.commands.help import one_of
from maskmill.flows.commands.options import Debug, Json, folder_to_write
from maskmill.flows.report import console
from maskmill.flows.report.words import count, duration

DRIVER = "maskmill.flows.commands.operate.drill_driver"

if TYPE_CHECKING:
    from maskmill.workers.drill.values import DrillReport

Kinds = Annotated[
    str,
    typer.Option(
        help="crashes: processes, writes and objects; upsets: pauses, clocks, Ray's services, records, "
        "commands at once.",
        **one_of("crashes", "upsets"),
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        help="A new place for the dataset, such as s3://bucket/drill on this machine's store.",
        metavar="DEST",
    ),
]
Scratch = Annotated[
    Path | None,
    typer.Option(
        help="A new folder for all else, kept; a temporary one by default.",
        callback=folder_to_write,
        file_okay=False,
    ),
]


def drill(
    seed: Annotated[int, typer.Option(min=0, help="Draws the faults, their order and the pictures.")] = 0,
    faults: Annotated[int, typer.Option(min=20, max=100_000, help="How many to inject.")] = 350,
    minutes: Annotated[
        float,
        typer.Option(
            min=1,
            max=1440,
            help="After so many no more faults come; the job is completed.",
            metavar="MINUTES",
        ),
    ] = 20.0,
    kinds: Kinds = "crashes",
    store: Store = None,
    scratch: Scratch = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Kill, cut and fill up a running job, then check that nothing was lost.

    Workers, Ray nodes and drivers are killed, writes refused and torn, an S3 store fails behind a proxy,
    pictures kill and shards are damaged; or, --kinds upsets, processes sleep, clocks jump, Ray's services
    are lost, records are damaged and commands run at once. Then every key is compared with the same job
    undisturbed. Loopback only.
    """
    with console.clear_errors(debug=debug), ExitStack() as stack:
        from maskmill.flows.services.ray.cluster import loopback_environment

        loopback_environment()
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        from maskmill.storage.stores.open import open_store
        from maskmill.workers.drill.conductor import run_drill
        from maskmill.workers.drill.values import DrillSettings

        _check_kinds(kinds)
        if store is not None:
            open_store(store)
        folder = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maskmill-drill-")))
        settings = DrillSettings(
            seed=seed,
            num_faults=faults,
            minutes=minutes,
            store=store,
            scratch=folder.resolve(),
            kinds=kinds,
        )
        report = run_drill(settings, [sys.executable, "-P", "-m", DRIVER], _tell)
        if json:
            console.print_json({**dataclasses.asdict(report), "ok": report.ok})
        else:
            _show(report)
        console.exit_unless(report.ok)


def _check_kinds(kinds: str) -> None:
    from maskmill.storage.errors import InputError
    from maskmill.workers.drill.schedule import SETS

    if kinds not in SETS:
        raise InputError(f"--kinds {kinds!r} is unknown: use one of {', '.join(SETS)}")


def _tell(text: str) -> None:
    console.err.print(console.plain(text))


def _show(report: DrillReport) -> None:
    console.print_pairs(
        [
            *report.faults.items(),
            ("faults", report.num_faults),
            ("images", f"{report.images:,} in {count(report.shards, 'shard')}"),
            *((f"drivers {how}", count) for how, count in report.drivers.items()),
            ("keys lost", report.lost),
            ("keys duplicated", report.duplicated),
            ("keys different", report.different),
            ("damage undetected", report.undetected),
            ("took", duration(report.seconds)),
        ],
        title=f"drill, seed {report.seed}, {report.dataset}",
    )
    for problem in report.problems:
        console.note(problem)
    if report.ok:
        console.out.print("[green]Nothing came of it[/green]: every key is there once, as undisturbed.")
    else:
        console.out.print("[red]Not sound[/red]")
