"""`maskmill push`: a generation as a dataset on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from maskmill.flows.commands.look.export import (
    ClassMap,
    ClassNames,
    IdsOf,
    LabelScore,
    Limit,
    MasksWhere,
    Split,
    Where,
    what_is_taken,
)
from maskmill.flows.commands.options import ConfigFile, Dataset, Debug, Json, Sets, Which
from maskmill.flows.report import console
from maskmill.flows.report.words import count, size


def push(
    dataset: Dataset,
    dest: Annotated[str, typer.Argument(help="hf://owner/name; made if it isn't there.")],
    generation: Which = None,
    private: Annotated[
        bool, typer.Option("--private", help="If it is made now: for its owners alone.")
    ] = False,
    staging: Annotated[
        Path | None,
        typer.Option(
            help="Write the files here and keep them; a temporary folder by default.", file_okay=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the files to --staging, push nothing.")
    ] = False,
    ids_of: IdsOf = "",
    where: Where = "",
    masks_where: MasksWhere = "",
    limit: Limit = None,
    split: Split = "",
    classes: ClassNames = "",
    class_map: ClassMap = None,
    min_label_score: LabelScore = 0.0,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Publish a generation on the Hugging Face hub.

    Parquet, a card with numbers and pictures, Croissant metadata, in one commit: readers see all of it or
    none. Licence, consent and contact are in [publish]: --set publish.license=cc-by-4.0. Log in with
    `hf auth login` or HF_TOKEN.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.config import load_config
        from maskmill.flows.runs.push import push_generation

        _check_staging(dry_run, staging)
        taken = what_is_taken(where, masks_where, limit, split, classes, class_map, min_label_score)
        run = load_config(None, config, set or [])
        taken |= {"format": "hf", "ids_of": ids_of or run.export.ids_of}
        run = run.model_copy(update={"export": changed_settings(run.export, taken)})
        with console.watched():
            done = push_generation(
                dataset, generation, dest, run, staging=staging, private=private, dry_run=dry_run
            )
        if json:
            console.print_json(done)
        else:
            _show(done, staging)
        if not run.publish.license:
            console.note("the card says no licence: --set publish.license=cc-by-4.0, or whatever holds")


def changed_settings(settings: Any, changes: dict[str, Any]) -> Any:
    """Settings with what was asked for. Raises ConfigError where it doesn't go together."""
    import dataclasses

    from maskmill.flows.config import ConfigError

    try:
        return dataclasses.replace(settings, **changes)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def _check_staging(dry_run: bool, staging: Path | None) -> None:
    """Raises InputError where nothing would be left to look at."""
    from maskmill.storage.errors import InputError

    if dry_run and staging is None:
        raise InputError("--dry-run needs --staging: the folder to look at")


def _show(done: dict[str, Any], staging: Path | None) -> None:
    verb = "[green]Published[/green]" if "commit" in done else "[green]Written[/green], not pushed"
    console.out.print(f"{verb}: {count(done['images'], 'image')}, {count(done['masks'], 'mask')}")
    pairs = [("generation", done["generation"]), ("repository", done["repo"])]
    if "commit" in done:
        files = f"{count(done['num_files'], 'file')}, {size(done['size_bytes'])}"
        pairs += [("page", done["url"]), ("commit", done["commit"]), ("pushed", files)]
    if staging is not None:
        pairs.append(("files", staging))
    console.print_pairs(pairs)
