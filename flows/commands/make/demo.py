"""`maskmill demo` and what it is made of: pictures that need no download, a dataset of them, and pages to
look at."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from maskmill.flows.commands.options import Debug, folder_to_write
from maskmill.flows.report import console

Folder = Annotated[
    Path, typer.Argument(help="The folder to write to.", callback=folder_to_write, file_okay=False)
]
Count = Annotated[int, typer.Option(min=1, help="How many scenes.")]
Seed = Annotated[int, typer.Option(min=0, help="Draws the first scene; the next has one more.")]
Size = Annotated[
    int, typer.Option("--size", min=32, max=4096, help="Width and height in pixels.", metavar="PX")
]


def scenes(
    dest: Annotated[
        Path, typer.Argument(help="The folder to write to.", callback=folder_to_write, file_okay=False)
    ],
    count: Count = 24,
    seed: Seed = 0,
    size_px: Size = 512,
    debug: Debug = False,
) -> None:
    """Write generated pictures as JPEGs, equal for equal seeds."""
    with console.clear_errors(debug=debug):
        write_scenes(dest, count=count, seed=seed, size_px=size_px)


def photos(
    dest: Annotated[
        Path, typer.Argument(help="The folder to write to.", callback=folder_to_write, file_okay=False)
    ],
    debug: Debug = False,
) -> None:
    """Copy scikit-image's free photographs."""
    with console.clear_errors(debug=debug):
        write_photos(dest)


def demo(
    folder: Annotated[
        Path, typer.Argument(help="Where everything goes.", callback=folder_to_write, file_okay=False)
    ] = Path("demo"),
    count: Count = 24,
    debug: Debug = False,
) -> None:
    """Try it all: pictures, masks, export, preview.

    Real photographs and generated scenes with the shipped model, in a few minutes.
    Runs the commands it prints; each can be repeated by hand.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        write_photos(folder / "input" / "photos")
        write_scenes(folder / "input" / "scenes", count=count, seed=0, size_px=512)
        _annotate(folder)
        from maskmill.flows.commands.look.inspect import write_preview

        _say("preview", str(folder / "dataset"), "--out", str(folder / "preview"))
        page = write_preview(str(folder / "dataset"), folder / "preview")
        console.out.print(f"[green]The demo is ready[/green]: open {page}")
        dataset = shlex.quote(str(folder / "dataset"))
        console.next_steps(
            [
                (f"maskmill status {dataset}", "what the dataset holds"),
                (f"maskmill verify {dataset} --deep", "read every byte again"),
                ("maskmill generate my-dataset --input MY_PHOTOS", "the same with your own images"),
                ("maskmill fetch mobile_sam", "finer masks on the same laptop: MobileSAM's weights, 41 MB"),
            ]
        )


def write_photos(dest: Path) -> None:
    """Copies the photographs and prints whose they are."""
    from maskmill.workers.jobs.demo_inputs import write_photographs

    _say("photos", str(dest))
    written = write_photographs(dest)
    console.print_pairs([(photo.file_name, f"{photo.title} ({photo.terms})") for photo in written])


def write_scenes(dest: Path, *, count: int, seed: int, size_px: int) -> None:
    """Generates the scenes with a progress line."""
    from maskmill.workers.jobs import demo_inputs

    _say("scenes", str(dest), "--count", str(count), "--seed", str(seed), "--size", str(size_px))
    with console.live_watcher() as watcher:
        watcher.step("drawing scenes", "scene")
        written = demo_inputs.write_scenes(
            dest,
            count=count,
            seed=seed,
            size_px=size_px,
            progress=lambda done: watcher.count(done, count),
        )
    console.out.print(f"{len(written)} scenes of {size_px} x {size_px} pixels")


def _annotate(folder: Path) -> None:
    from maskmill.flows.commands.make.generate import run_watched, show_report
    from maskmill.flows.config import load_config

    dataset, inputs, export = (str(folder / name) for name in ("dataset", "input", "export"))
    pairs = ["run.shard_size=6"]  # a few images a shard, so that all workers have some
    _say("generate", dataset, "--input", inputs, "--recipe", "nano", "--set", *pairs, "--export", export)
    report = run_watched(dataset, [inputs], load_config("nano", sets=pairs), limit=None, export_to=export)
    show_report(report, json=False)
    console.exit_unless(report.sound)


def _say(*words: str) -> None:
    console.out.print(f"\n[bold]$ maskmill {console.plain(shlex.join(words))}[/bold]")
