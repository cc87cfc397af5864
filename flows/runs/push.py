"""The run `push`: a generation as a dataset on a hub. It only reads, so it holds nothing of the dataset."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.flows.report.report import watcher
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.stores.open import open_store

if TYPE_CHECKING:
    from maskmill.flows.config import RunConfig


def push_generation(
    dataset: str,
    which: int | str | None,
    address: str,
    config: RunConfig,
    *,
    staging: Path | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Publishes a generation.

    Args:
        dataset: its root.
        which: a number or tag; None is the latest.
        address: hf://owner/name.
        config: its sections export and publish.
        staging: a folder for the files, kept; None takes a temporary one.
        private: of a repository that is made now.
        dry_run: write the files to `staging`, push nothing.

    Returns:
        What was published: JSON values.

    Raises:
        InputError: an address that is none, or nothing to publish.
        ExportError: the staging folder holds something else.
        AccessDenied, StoreUnavailable: the hub refuses, or fails.
    """
    from maskmill.storage.stores.hub import repo_of
    from maskmill.workers.exports.publish.push import push, stage

    store, watched = open_store(dataset), watcher()
    generation, repo = find_generation(store, which), repo_of(address)
    choices = dataclasses.replace(config.export, format="hf")
    with contextlib.ExitStack() as stack:
        folder = staging or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maskmill-push-")))
        told: dict[str, Any] = {"dataset": dataset, "generation": generation.number, "repo": repo}
        if dry_run:
            watched.step(f"writing Parquet to {folder}", "image")
            staged = stage(store, generation, repo, folder, choices, config.publish, count=watched.count)
        else:
            staged, pushed = push(
                store,
                generation,
                address,
                folder,
                choices,
                config.publish,
                private=private,
                step=watched.step,
                count=watched.count,
            )
            told |= dataclasses.asdict(pushed)
        return {**told, **staged.numbers.told(), "files": list(staged.names)}
