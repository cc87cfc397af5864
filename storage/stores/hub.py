"""A folder onto the Hugging Face hub, as one commit: readers see the dataset before it or after it.

How it works: large files are sent first, a few at a time, and nothing shows them; the hub says which it has
already, so a push that was stopped sends only the rest. One commit then names all of them, and takes away
data files that an earlier push left. Address and token are the hub's own: HF_ENDPOINT, HF_TOKEN or `hf auth
login`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.storage.errors import AccessDenied, InputError, StoreUnavailable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"
TOGETHER = 16
"""Files sent together."""


@dataclass(frozen=True)
class Pushed:
    """What a push did: the commit, its page, files and bytes in it, old data files taken away."""

    url: str
    commit: str
    num_files: int
    size_bytes: int
    num_removed: int


def repo_of(address: str) -> str:
    """ "hf://owner/name" -> "owner/name"; hf://datasets/owner/name is the same.

    Raises:
        InputError: no such address.
    """
    name = address.removeprefix(SCHEME).removeprefix("datasets/").rstrip("/")
    if not address.startswith(SCHEME) or name.count("/") != 1 or not all(name.split("/")):
        raise InputError(f"{address}: is no place on the hub: use hf://owner/name")
    return name


def page_of(repo: str) -> str:
    """The address of a dataset's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/datasets/{repo}"


def push_folder(
    folder: Path,
    names: Sequence[str],
    repo: str,
    *,
    message: str,
    private: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Pushed:
    """Makes a dataset's repository hold these files.

    Args:
        folder: that holds them.
        names: of the files, below it.
        repo: owner/name; made if it isn't there.
        message: of the commit.
        private: of a repository that is made now.
        progress: called with the number of files sent so far.

    Raises:
        AccessDenied: not logged in, or not allowed to write there.
        StoreUnavailable: the hub cannot be reached, or fails.
        InputError: a name that no repository can have.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, errors

    api = HfApi()
    try:
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        adds = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names]
        for first in range(0, len(adds), TOGETHER):
            api.preupload_lfs_files(repo, adds[first : first + TOGETHER], repo_type="dataset")
            if progress is not None:
                progress(min(first + TOGETHER, len(adds)))
        old = _old_data(api, repo, names)
        operations: list[Any] = [*adds, *(CommitOperationDelete(path_in_repo=name) for name in old)]
        done = api.create_commit(repo, operations, commit_message=message, repo_type="dataset")
    except errors.HFValidationError as exc:
        raise InputError(f"hf://{repo}: {exc}") from exc
    except errors.LocalTokenNotFoundError as exc:
        raise AccessDenied(f"hf://{repo}: log in first (hf auth login, or HF_TOKEN)") from exc
    except errors.HfHubHTTPError as exc:
        raise _our_error(repo, exc) from exc
    except (RuntimeError, httpx.TransportError) as exc:  # a file that could not be sent; no way to the hub
        raise StoreUnavailable(f"hf://{repo}: {_first_line(exc)} Run the same command again.") from exc
    return Pushed(
        url=page_of(repo),
        commit=str(done.oid),
        num_files=len(names),
        size_bytes=sum((folder / name).stat().st_size for name in names),
        num_removed=len(old),
    )


def _old_data(api: HfApi, repo: str, names: Sequence[str]) -> list[str]:
    """Data files of an earlier push that this one doesn't have: a reader's pattern would match them too."""
    there = api.list_repo_files(repo, repo_type="dataset")
    return sorted({name for name in there if name.startswith("data/")} - set(names))


def _our_error(repo: str, exc: Any) -> AccessDenied | StoreUnavailable:
    status = getattr(exc.response, "status_code", None)
    told = _first_line(exc)
    if status in (401, 403):
        return AccessDenied(
            f"hf://{repo}: the hub lets nobody write there as you are logged in ({told}): hf auth login, or "
            "HF_TOKEN, with a token that may write"
        )
    return StoreUnavailable(f"hf://{repo}: the hub fails ({told}); run the same command again")


def _first_line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
