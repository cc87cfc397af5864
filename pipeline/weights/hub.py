"""Models by their id on the Hugging Face hub: the layer's only door to a network, opened on a call only.

A hub id is `owner/name`, `owner/name@revision` or `owner/name@revision:path/of/a/file.pth` (the revision may
be left out). `fetch` gives a local folder or file. Only one process of a machine downloads a model: the rest
wait at a lock and find it in the hub's own cache (HF_HOME, HF_HUB_CACHE), which HF_HUB_OFFLINE=1 makes the
only source. Gated models use the hub's own token (`hf auth login`, or HF_TOKEN). Of a folder only what
`from_pretrained` reads is fetched: settings, vocabularies and weights, safetensors where there are any.

What it doesn't know: what is in a model (weights.py, pretrained.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskmill.pipeline.weights.errors import MissingWeights

SETTINGS = ("*.json", "*.txt", "*.model")
SAFETENSORS = ("model.safetensors", "model-*.safetensors")
TORCH_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*.bin")
"""What of a model's folder is read, by file name; torch files only where it has no safetensors."""

_ID = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[\w./ -]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubId:
    """A model on the hub; `revision` None is its main branch, `file` None is its folder."""

    name: str
    revision: str | None = None
    file: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether it names one commit, so that it means the same at any time and place."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.name}{revision}{f':{self.file}' if self.file else ''}"


def parse(source: str) -> HubId | None:
    """The hub id that `source` spells, None where it spells none."""
    match = _ID.fullmatch(source)
    return HubId(match["name"], match["revision"], match["file"]) if match else None


def pin(hub_id: HubId) -> HubId:
    """The same model at the commit that its revision stands for now; fetches it.

    Raises:
        MissingWeights: as `fetch`.
    """
    if hub_id.is_pinned:
        return hub_id
    return HubId(hub_id.name, _fetch_folder(hub_id).name, hub_id.file)


def fetch(hub_id: HubId) -> Path:
    """The model on this machine, downloaded where the cache lacks it.

    Args:
        hub_id: of a folder, or of one file.

    Returns:
        The snapshot's folder, or the file in it.

    Raises:
        MissingWeights: no such model, revision or file; gated; no network or offline and not in the cache.
            Each says what to do.
    """
    folder = _fetch_folder(hub_id)
    if hub_id.file is None:
        return folder
    if not (folder / hub_id.file).is_file():
        raise MissingWeights(f"{hub_id.name} on the hub has no file {hub_id.file}: look at its page")
    return folder / hub_id.file


def _fetch_folder(hub_id: HubId) -> Path:
    with _one_a_machine(hub_id):
        if hub_id.file is not None:
            return _snapshot(hub_id, [hub_id.file])
        folder = _snapshot(hub_id, [*SETTINGS, *SAFETENSORS])
        if any(any(folder.glob(pattern)) for pattern in SAFETENSORS):
            return folder
        return _snapshot(hub_id, [*SETTINGS, *TORCH_WEIGHTS])


@contextlib.contextmanager
def _one_a_machine(hub_id: HubId) -> Iterator[None]:
    """Holds the model's lock file in the hub's cache."""
    from huggingface_hub import constants

    locks = Path(constants.HF_HUB_CACHE) / ".locks" / "maskmill"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{hub_id.name.replace('/', '--')}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file frees the lock, also where the process dies


def _snapshot(hub_id: HubId, patterns: list[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        folder = snapshot_download(
            hub_id.name, revision=hub_id.revision, allow_patterns=patterns, ignore_patterns=_below(patterns)
        )
    except errors.GatedRepoError as error:
        raise MissingWeights(
            f"{hub_id.name} is gated: accept its terms at huggingface.co/{hub_id.name}, then log in on every "
            "machine that loads it (hf auth login, or HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MissingWeights(
            f"{hub_id.name} on the hub has no revision {hub_id.revision}: name a branch, tag or commit of it"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise MissingWeights(
            f"{hub_id.name} is neither a path here nor a model on the hub: check the name; if it is private, "
            "log in (hf auth login, or HF_TOKEN)"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, errors.OfflineModeIsEnabled) as error:
        raise MissingWeights(_unreachable(hub_id, error)) from error
    return Path(folder)


def _below(patterns: list[str]) -> list[str] | None:
    """Folders in a model's folder hold other formats; a pattern's * would look into them too."""
    return None if any("/" in pattern for pattern in patterns) else ["*/*"]


def _unreachable(hub_id: HubId, error: Exception) -> str:
    from huggingface_hub import constants

    where = f"the cache of this machine ({constants.HF_HUB_CACHE})"
    fetch = f"hf download {hub_id.name}{f' --revision {hub_id.revision}' if hub_id.revision else ''}"
    if constants.HF_HUB_OFFLINE:
        return (
            f"{hub_id} is not whole in {where}, and HF_HUB_OFFLINE forbids fetching it: unset it, or run "
            f"`{fetch}` where there is a network and bring the folder here, by its path"
        )
    told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{hub_id} is not whole in {where}, and the hub cannot be reached ({told}): check the network, or "
        f"run `{fetch}` elsewhere and bring the folder here, by its path"
    )
