"""All that the doctor looks at, in the order in which it is told: what is nearest comes first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from maskmill.flows.config import RunConfig
from maskmill.flows.services import state as up_state
from maskmill.flows.services.doctor import held, machine, neighbours, places
from maskmill.flows.services.doctor.findings import Finding
from maskmill.storage.stores.open import is_remote
from maskmill.workers.run.memory import worker_bytes


def examine(
    config: RunConfig,
    dataset: str | None = None,
    *,
    with_speeds: bool = True,
    tell: Callable[[str], None] = lambda title: None,
) -> Iterator[Finding]:
    """A finding at a time; nothing is changed, and nothing is fetched.

    Args:
        config: of the run that is meant.
        dataset: where its dataset goes, to try the store; None tries none.
        with_speeds: whether number formats are timed.
        tell: told what is looked at next, where it takes a while.
    """
    address = up_state.ray_address(config.run.ray_address)

    tell("looking at this machine")
    yield machine.python()
    yield machine.cores()
    yield machine.memory(worker_bytes(config.column_sections()))
    yield machine.disk("temporary files", Path(tempfile.gettempdir()))
    if dataset is not None and not is_remote(dataset):
        yield machine.disk("dataset's disk", Path(dataset).expanduser().absolute())
    yield machine.shared_memory()
    yield machine.open_files()

    yield places.hidden_modules()
    yield places.proxies(_asked(address))
    yield places.temporary()
    yield places.home()

    tell("asking torch")
    yield from machine.compute(with_speeds=with_speeds)
    tell("loading the models")
    yield from held.models(config)

    tell("asking Prefect's server")
    yield neighbours.prefect_server()
    tell("asking Ray")
    yield from neighbours.ray_cluster(address)
    if dataset is not None:
        tell(f"trying {dataset}")
        yield held.store(dataset, tell)


def _asked(address: str | None) -> dict[str, str]:
    """Whom a run asks, and where: for the proxies."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    named = {
        "Prefect": os.environ.get("PREFECT_API_URL"),
        "the store": endpoint,
        "Ray": f"ray://{address.removeprefix('ray://')}" if address else None,
    }
    return {who: url for who, url in named.items() if url}
