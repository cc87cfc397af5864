"""Of what a run reads and writes: the models that settings name, and the store that a dataset goes to."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from maskmill.flows.config import RunConfig
from maskmill.flows.services.doctor.findings import Finding, fine, look, wrong
from maskmill.storage.errors import StorageError
from maskmill.storage.stores.suite import probe

LOAD_TIMEOUT_S = 600.0


def models(config: RunConfig) -> Iterator[Finding]:
    """Each model that the settings name: here, whole, of the right kind. Fetches nothing.

    Args:
        config: of the run.
    """
    asked = {"segmenter": dataclasses.asdict(config.segmenter), "words": _words(config)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "maskmill.workers.jobs.models_report"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=LOAD_TIMEOUT_S,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        killed = "it was killed, as where memory runs out" if done.returncode < 0 else why
        cure = "use a smaller model, or give this machine (or container) more memory"
        yield wrong("weights", f"{asked['segmenter']} cannot be loaded: {killed}", cure)
        return
    for row in json.loads(done.stdout):
        yield _of_model(row)


def store(dataset: str, tell: Callable[[str], None]) -> Finding:
    """What a dataset needs of its store, tried there (`maskmill probe`).

    Args:
        dataset: its root, a folder or s3://bucket/prefix.
        tell: told each promise before it is tried.
    """
    try:
        outcomes = probe(dataset, tell=tell)
    except (StorageError, OSError) as exc:
        cure = "check the address and its rights; of a bucket also AWS_PROFILE, AWS_ENDPOINT_URL and its name"
        return wrong("store", f"{dataset}: {exc}", cure)
    broken = [one for one in outcomes if not one.kept]
    if broken:
        says = f"{dataset} breaks {len(broken)} of {len(outcomes)} promises: " + "; ".join(
            f"{one.name} ({one.detail})" for one in broken[:3]
        )
        cure = (
            "use a store (or its own address, without the proxy between) that keeps them; see docs/scale.md"
        )
        return wrong("store", says, cure)
    return fine("store", f"{dataset} keeps all {len(outcomes)} promises that a dataset needs")


def _of_model(row: dict[str, Any]) -> Finding:
    name = "weights" if row["role"] == "segmenter" else row["role"]
    if row["on_hub"]:
        says = f"{row['source']} is not on this machine; a run fetches it from the hub when it starts"
        if os.environ.get("HF_HUB_OFFLINE", "").strip() in ("1", "true", "TRUE"):
            cure = "unset HF_HUB_OFFLINE, or fetch it elsewhere and name the folder by its path"
            return wrong(name, f"{row['source']} is not on this machine, and HF_HUB_OFFLINE is set", cure)
        return look(name, says, f"fetch it before if nodes have no network: hf download {row['source']}")
    if row["error"]:
        says, _, cure = row["error"].partition(": ")
        rest, _, last = cure.rpartition(": ")
        says = f"{says}: {rest}" if rest else says
        return wrong(name, says, last)
    says = f"{row['path']}, sha256 {row['sha256'][:12]}..."
    if row["is_published"]:
        return fine(name, f"{says}: its authors' file, and it loads")
    if row["is_other"]:
        cure = "fine if you trained it; else `maskmill fetch` brings the original"
        return look(name, f"{says}: named like its authors' file, but another; it loads", cure)
    return fine(name, f"{says}: {'it loads' if name == 'weights' else 'its files are here'}")


def _words(config: RunConfig) -> dict[str, str]:
    found = {
        "captioner": config.captions.model,
        "filter": config.captions.filter if config.captions.model else None,
        "detector": config.labels.model,
        "namer": config.names.model,
    }
    return {role: source for role, source in found.items() if source is not None}
