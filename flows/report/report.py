"""What a run tells: a tally while it works, a report at its end, and both as Prefect artifacts.

Whoever wants to see a run live (the command line's progress bar) watches it: `with watching(watcher):
generate(...)`. The flow itself knows no terminal.
"""

from __future__ import annotations

import base64
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from maskmill.flows.report.words import count, duration
from maskmill.storage.secret_words import blank_secrets

if TYPE_CHECKING:
    from maskmill.workers.measure.compare import DiffReport

PROGRESS_EVERY_S = 1.0
MAX_SHEET_BYTES = 4 * 2**20  # a data URI lies in Prefect's database
LEAST_PACE_S = 0.5  # a pace over less is no pace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tally:
    """Where a run stands.

    Attributes:
        images_total: planned images of the shards this run works on.
        images_done: of these, annotated or rejected.
        masks_done: masks kept so far.
        num_rejects: images rejected so far.
        shards_total, shards_done: of this run.
        workers_ready: workers whose models are loaded.
        elapsed_s: seconds since the first worker was ready; 0 before.
    """

    images_total: int
    shards_total: int
    images_done: int = 0
    masks_done: int = 0
    num_rejects: int = 0
    shards_done: int = 0
    workers_ready: int = 0
    elapsed_s: float = 0.0

    @property
    def images_per_s(self) -> float:
        """The mean pace since the first worker was ready; 0 before."""
        return self.images_done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def masks_per_s(self) -> float:
        """Masks kept a second, since the first worker was ready; 0 before."""
        return self.masks_done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds left at the mean pace so far; None while nothing is done."""
        if not self.images_done or not self.elapsed_s:
            return None
        return (self.images_total - self.images_done) / self.images_per_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunReport:
    """What came of a run; `dataclasses.asdict` of it is what `generate --json` prints.

    Attributes:
        generation: the newest generation's number; None when nothing is annotated yet.
        published: this run published it.
        images, annotated, rejected: of the whole dataset. annotated + rejected + missing = images.
        missing, duplicated, damaged: what `verify` found; 0 in a sound dataset.
        masks: masks in the generation.
        new_images: images this run annotated or rejected.
        rejects: reason -> images, over the whole dataset; duplicates are among them.
        failed_shards: shard -> why it was given up.
        seconds: of the whole run.
        images_per_s: over this run's new images, once a worker was ready; 0 without any.
        export: where the export lies, if one was asked for.
        remarks: what is worth a look -> images taken in by this run that it is true of.
    """

    dataset: str
    generation: int | None
    published: bool
    images: int
    annotated: int
    rejected: int
    missing: int
    duplicated: int
    damaged: int
    masks: int
    new_images: int
    rejects: Mapping[str, int]
    failed_shards: Mapping[int, str]
    problems: tuple[str, ...]
    seconds: float
    images_per_s: float
    export: str | None = None
    remarks: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Every planned image is annotated or rejected, once, and whole."""
        return not (self.missing or self.duplicated or self.damaged or self.failed_shards)


class Watcher(Protocol):
    """Sees a run live. Called on the flow's thread; must return quickly and never raise."""

    def step(self, title: str, counts: str = "") -> None:
        """The run enters a step; `counts` is what `count` counts in it, one of them: "image"."""

    def count(self, done: int, total: int | None = None) -> None:
        """How far the step is, where it can be counted; `total` is None while unknown."""

    def tally(self, tally: Tally) -> None:
        """Where annotation stands; several times a second."""

    def note(self, text: str) -> None:
        """Something the user should know, such as a lost worker."""

    def record(self, text: str) -> None:
        """Something for the run's log, where there is one; nobody has to see it live."""


class Silence:
    """A watcher for runs that nobody watches."""

    def step(self, title: str, counts: str = "") -> None:
        """As `Watcher`; tells nobody."""

    def count(self, done: int, total: int | None = None) -> None:
        """As `Watcher`; tells nobody."""

    def tally(self, tally: Tally) -> None:
        """As `Watcher`; tells nobody."""

    def note(self, text: str) -> None:
        """As `Watcher`; tells nobody."""

    def record(self, text: str) -> None:
        """As `Watcher`; tells nobody."""


_watcher: ContextVar[Watcher] = ContextVar("maskmill_watcher", default=Silence())  # noqa: B039 - it keeps nothing


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Runs started inside the block on this thread show themselves to `watcher`."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def watcher() -> Watcher:
    """Who watches the current run."""
    return _watcher.get()


class ProgressArtifact:
    """A Prefect progress artifact that is updated at most once in `every_s`, and at its end."""

    def __init__(
        self, key: str, *, every_s: float = PROGRESS_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from prefect.artifacts import create_progress_artifact

        self._every_s, self._clock = every_s, clock
        self._last_s = clock()
        made = create_progress_artifact(0.0, key=key, description="images annotated or rejected")
        assert isinstance(made, UUID)  # a coroutine only in an asynchronous task
        self._id = made

    def update(self, tally: Tally, *, last: bool = False) -> None:
        """Shows `tally`, unless the last update is too fresh."""
        from prefect.artifacts import update_progress_artifact

        if not last and self._clock() - self._last_s < self._every_s:
            return
        self._last_s = self._clock()
        share = tally.images_done / tally.images_total if tally.images_total else 1.0
        text = (
            f"{tally.images_done} of {tally.images_total} images, {tally.masks_done} masks, "
            f"{tally.num_rejects} rejected, {tally.images_per_s:.2f} images/s"
        )
        update_progress_artifact(self._id, min(100.0, 100.0 * share), description=text)


def table_artifact(report: RunReport) -> None:
    """Leaves the report as a table artifact of the run."""
    lines_artifact(summary(report), key="maskmill-result", description=f"dataset {report.dataset}")


def lines_artifact(lines: Iterable[tuple[str, Any]], *, key: str, description: str) -> None:
    """Leaves names and values as a table artifact of the run; what may be secret in them is blanked."""
    from prefect.artifacts import create_table_artifact

    rows = [{"what": name, "value": blank_secrets(str(value))} for name, value in lines]
    create_table_artifact(rows, key=key, description=blank_secrets(description))


_pictures: ContextVar[bool] = ContextVar("maskmill_pictures", default=True)


@contextmanager
def without_pictures() -> Iterator[None]:
    """Runs inside the block draw nothing for Prefect: its server ends with the run and has no pages."""
    token = _pictures.set(False)
    try:
        yield
    finally:
        _pictures.reset(token)


def pictures_wanted() -> bool:
    """Whether somebody may look at pictures among a run's artifacts."""
    return _pictures.get()


def sheet_artifact(png: bytes, *, generation: int) -> bool:
    """Leaves a contact sheet as an image artifact; a sheet too large for Prefect's database is left out.

    Returns:
        Whether it was left.
    """
    if len(png) > MAX_SHEET_BYTES:
        return False
    image_artifact(png, key="maskmill-sheet", description=f"generation {generation}, a sample")
    return True


def image_artifact(png: bytes, *, key: str, description: str) -> None:
    """Leaves a picture as an image artifact of the run; it then lies in Prefect's database."""
    from prefect.artifacts import create_image_artifact

    address = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    create_image_artifact(address, key=key, description=description)


def summary(report: RunReport) -> list[tuple[str, Any]]:
    """The report's lines for people: name and value."""
    lines: list[tuple[str, Any]] = [
        ("images", f"{report.images:,}"),
        ("annotated", f"{report.annotated:,}"),
        ("rejected", f"{report.rejected:,}"),
    ]
    lines += [(f"  {reason}", count) for reason, count in Counter(report.rejects).most_common()]
    lines.append(("masks", f"{report.masks:,}"))
    if report.annotated:
        lines.append(("masks per image", f"{report.masks / report.annotated:.1f}"))
    for name in ("missing", "duplicated", "damaged"):
        if getattr(report, name):
            lines.append((name, getattr(report, name)))
    lines.append(("generation", report.generation if report.generation is not None else "none yet"))
    if report.new_images:
        lines.append(("this run", f"{count(report.new_images, 'image')} in {duration(report.seconds)}"))
        lines.append(("pace", f"{report.images_per_s:.2f} images/s, once workers were ready"))
    if report.export is not None:
        lines.append(("export", report.export))
    return lines


def difference_lines(report: DiffReport) -> list[tuple[str, Any]]:
    """A difference between generations as lines for people; none where nothing differs."""
    lines: list[tuple[str, Any]] = [
        (change.name, f"{change.before} -> {change.after}") for change in (*report.settings, *report.models)
    ]
    lines += [(f"{column}: shards", f"{count} differ") for column, count in report.shards_changed.items()]
    if report.masks is not None:
        masks = report.masks
        if report.shards_read < report.shards_to_read:
            lines.append(("read", f"{report.shards_read} of {report.shards_to_read} shards of masks"))
        lines += [(f"images {name}", getattr(masks, f"images_{name}")) for name in ("added", "removed")]
        lines.append(("images changed", f"{masks.images_changed} of {masks.images} compared"))
        lines += [(f"masks {name}", f"{getattr(masks, name):,}") for name in ("same", "added", "removed")]
        lines += [(f"masks changed, IoU {band}", f"{count:,}") for band, count in masks.changed.items()]
    for column in report.columns:
        names = ("same", "changed", "added", "removed")
        lines.append((column.column, ", ".join(f"{getattr(column, name):,} {name}" for name in names)))
    return lines


def pace(tally: Tally) -> str:
    """The moving part of a progress line."""
    if not tally.workers_ready:
        return "workers are starting"
    if tally.elapsed_s < LEAST_PACE_S:
        return f"{tally.num_rejects} rejected"
    left = f", {duration(tally.left_s)} left" if tally.left_s is not None else ""
    rates = f"{tally.images_per_s:.1f} images/s, {tally.masks_per_s:.0f} masks/s"
    return f"{rates}, {tally.num_rejects} rejected{left}"
