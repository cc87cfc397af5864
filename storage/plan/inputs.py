"""What the user points at: folders, globs, manifests, WebDataset tars, S3 prefixes, single images.

Every input is checked at once, before any work: a missing, unreadable, empty or image-less one is an
InputError that says what was found. Then the listing is walked lazily, in a fixed order, and gives image
files, tars and problems. Nothing is dropped silently: what is no image, tar or caption is counted.

    folder        all below it, sorted; links are followed, each folder once; hidden names are only counted
    glob          *, ?, [..] and ** for any depth
    manifest      a .txt with a path or address a line, relative to the manifest's folder; # starts a comment
    tar           read in place, image by image
    s3://...      an object of these kinds, a glob, or all below a prefix

A caption is a .txt, or a .json with "caption", beside the image; which, is grouped.py's rule.
"""

from __future__ import annotations

import codecs
import glob
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskmill.storage.errors import InputError, ObjectNotFound
from maskmill.storage.plan.endings import IMAGE_ENDINGS, TAR_ENDING, ending_of
from maskmill.storage.plan.walk import (
    Beside,
    InputFile,
    InputProblem,
    Skipped,
    look_at_local,
    look_at_remote,
    walk_folder,
    walk_prefix,
)
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import (
    absolute_address,
    address_beside,
    address_forms,
    address_store,
    is_inside,
    is_known,
    is_remote,
    open_store,
    split_bucket,
)

COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MANIFEST_ENDING = ".txt"
_MAGIC = re.compile(r"[*?\[]")


class InputListing:
    """The inputs' files, lazily. Iterate it once; `skipped` is complete at the end.

    Attributes:
        inputs: absolute paths and addresses.
        skipped: what was seen and isn't used, by ending or kind in brackets.
    """

    def __init__(self, inputs: Sequence[str], dataset_root: str | None, photograph: str | None) -> None:
        if not inputs:
            raise InputError(
                "no input given; name a folder, a tar, a .txt manifest, a glob or an s3:// prefix"
            )
        self.inputs = tuple(_absolute(text) for text in inputs)
        self.skipped: Skipped = Counter()
        self._asked = _Asked(dataset_root, photograph)
        for address in self.inputs:
            _refuse_dataset(address, dataset_root)
            _check_some(address, self._asked)

    def __iter__(self) -> Iterator[InputFile | InputProblem]:
        for address in self.inputs:
            yield from _walk_input(address, self._asked, self.skipped)


@dataclass(frozen=True)
class _Asked:
    """What is asked of every input; see `list_inputs`."""

    dataset_root: str | None
    photograph: str | None


def list_inputs(
    inputs: Sequence[str], *, dataset_root: str | None = None, photograph: str | None = None
) -> InputListing:
    """Checks the inputs and lists their files.

    Args:
        inputs: paths, globs or s3:// addresses.
        dataset_root: where the dataset is: refused as an input, passed over inside one.
        photograph: the field of a sample that is the photograph; None goes by grouped.py's rule.

    Raises:
        InputError: an input is missing, unreadable, unsupported, without any image, or inside the dataset.
        BucketNotFound, AccessDenied, StoreUnavailable: of an S3 input.
    """
    return InputListing(inputs, dataset_root, photograph)


def _absolute(text: str) -> str:
    if not text:
        raise InputError("an empty path was given as input; name a folder, a tar, a manifest or a glob")
    if not is_known(text):
        raise InputError(f"{text}: cannot be read directly; download it, or use {address_forms()}")
    return absolute_address(text)


def _refuse_dataset(address: str, dataset_root: str | None) -> None:
    if dataset_root is not None and is_inside(address, dataset_root):
        raise InputError(f"{address}: is inside the dataset {dataset_root}; keep inputs and dataset apart")


def _check_some(address: str, asked: _Asked) -> None:
    """Walks until there is anything to report or annotate; raises InputError if the walk ends before."""
    skipped: Skipped = Counter()
    problems: list[InputProblem] = []
    for found in _walk_input(address, asked, skipped):
        if isinstance(found, InputFile) or _is_manifest(address):
            return
        problems.append(found)
    seen = most_of(skipped) or "nothing"
    trouble = "".join(f"; {problem.source}: {problem.detail}" for problem in problems[:3])
    if has_only_other_fields(asked.photograph, skipped):
        raise no_such_field(address, asked.photograph, skipped)
    wanted = ", ".join(ending.removeprefix(".") for ending in IMAGE_ENDINGS)
    raise InputError(
        f"{address}: no images in it (found {seen}{trouble}); give images ({wanted}) or .tar files"
    )


def has_only_other_fields(photograph: str | None, skipped: Mapping[str, int]) -> bool:
    """Of inputs without a photograph: whether they have images, by other fields than the setting names."""
    return photograph is not None and any(name.startswith("(field ") for name in skipped)


def no_such_field(address: str, photograph: str | None, skipped: Mapping[str, int]) -> InputError:
    """What to say of inputs whose images all have other fields than `ingest.photograph`."""
    return InputError(
        f"{address}: no image has the field that ingest.photograph={photograph!r} names "
        f"(found {most_of(skipped)}); name one that is there, or leave the setting off"
    )


def most_of(counts: Mapping[str, int], number: int = 8) -> str:
    """Counts for people, the largest first: "12 .mp4, 3 .heic"."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in most[number:])
    shown = [f"{count} {name}" for name, count in most[:number]]
    return ", ".join([*shown, f"{rest} others"] if rest else shown)


def _walk_input(address: str, asked: _Asked, skipped: Skipped) -> Iterator[InputFile | InputProblem]:
    if is_remote(address):
        yield from _walk_bucket(address, asked, skipped)
        return
    path = Path(address)
    _check_reachable(path)
    if path.is_dir():
        yield from walk_folder(path, asked.dataset_root, skipped, asked.photograph)
    elif path.exists():
        yield from _walk_file(address, skipped)
    elif _MAGIC.search(address):
        yield from _walk_glob(address, asked, skipped)
    else:
        raise InputError(f"{address}: does not exist; check the path")


def _check_reachable(path: Path) -> None:
    try:
        if path.is_dir():
            os.scandir(path).close()
    except OSError as exc:
        raise InputError(f"{path}: cannot be read ({exc.strerror}); give this user access") from exc


def _walk_file(address: str, skipped: Skipped) -> Iterator[InputFile | InputProblem]:
    """One file or object: an image, a tar, or a manifest."""
    ending = ending_of(address)
    if address.lower().endswith(COMPRESSED_TARS):
        raise InputError(f"{address}: a compressed tar cannot be read in place; decompress it to .tar")
    if ending == MANIFEST_ENDING:
        yield from _walk_manifest(address)
    elif ending in IMAGE_ENDINGS or ending == TAR_ENDING:
        yield _look_at(address, Beside())
    else:
        raise InputError(
            f"{address}: not a folder, an image, a .tar or a .txt manifest; a list of images is a .txt "
            "with a path a line"
        )


def _is_manifest(address: str) -> bool:
    return ending_of(address) == MANIFEST_ENDING


def _walk_manifest(address: str) -> Iterator[InputFile | InputProblem]:
    store, name = address_store(address)
    folder, beside = address.rpartition("/")[0], Beside()
    with (
        store.open_read(name) as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape") as lines,
    ):
        if raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise InputError(f"{address}: the list is UTF-16; save it as UTF-8")
        raw.seek(0)
        for line in lines:
            entry = line.strip()
            if entry and not entry.startswith("#"):
                yield _look_at_entry(entry, folder, beside)


def _look_at_entry(entry: str, folder: str, beside: Beside) -> InputFile | InputProblem:
    if "\0" in entry or not is_known(entry):
        return InputProblem(_printable(entry), "unsupported", f"not {address_forms()}; download it first")
    if ending_of(entry) not in (*IMAGE_ENDINGS, TAR_ENDING):
        return InputProblem(_printable(entry), "unsupported", "not an image or .tar by its ending")
    try:
        return _look_at(address_beside(folder, entry), beside)
    except InputError as exc:  # an address that is none: the list's other lines stand
        return InputProblem(_printable(entry), "unsupported", str(exc))


def _look_at(address: str, beside: Beside) -> InputFile | InputProblem:
    if is_remote(address):
        return look_at_remote(address)
    return look_at_local(Path(address), beside.caption_of(Path(address)))


def _walk_glob(pattern: str, asked: _Asked, skipped: Skipped) -> Iterator[InputFile | InputProblem]:
    reached, beside = set[str](), Beside()
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - absolute patterns
        path = Path(match)
        real = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - the name may be a link
        if real in reached:  # ** goes round through linked folders
            skipped["(reached twice)"] += 1
            continue
        reached.add(real)
        if path.is_dir():
            if "**" not in pattern:  # ** gives what is inside by itself
                yield from walk_folder(path, asked.dataset_root, skipped, asked.photograph)
        elif ending_of(match) in (*IMAGE_ENDINGS, TAR_ENDING):
            yield look_at_local(path, beside.caption_of(path))
        else:
            skipped[ending_of(match) or "(no ending)"] += 1
    if not reached:
        raise InputError(f"{pattern}: nothing matches; check the pattern, and quote it for your shell")


def _walk_bucket(address: str, asked: _Asked, skipped: Skipped) -> Iterator[InputFile | InputProblem]:
    root, name = split_bucket(address)
    if name and ending_of(name) and not name.endswith("/") and _is_object(address):
        yield from _walk_file(address, skipped)
        return
    store = open_store(root)
    magic = _MAGIC.search(name)
    if magic and _has_any(store, f"{name}/"):
        magic = None  # it is a name first, as of local folders
    prefix = name[: magic.start()] if magic else (f"{name}/" if name else "")
    pattern = re.compile(_glob_regex(name)) if magic else None
    yield from walk_prefix(store, prefix, asked.dataset_root, skipped, pattern, asked.photograph)


def _has_any(store: ObjectStore, prefix: str) -> bool:
    return next(iter(store.list(prefix)), None) is not None


def _is_object(address: str) -> bool:
    store, name = address_store(address)
    try:
        store.stat(name)
    except ObjectNotFound:
        return False
    return True


def _glob_regex(pattern: str) -> str:
    """A glob over '/'-separated names: * and ? within a part, **/ for any depth."""
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, flags=re.DOTALL)
    plain = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        plain.get(token) or (token.replace("[!", "[^", 1) if len(token) > 2 else re.escape(token))
        for token in tokens
    )


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
