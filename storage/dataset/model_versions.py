"""Models that a dataset holds: numbered versions with a card, gate decisions, promotions, checkpoints.

    models/segmenter/000001/weights.<attempt>.safetensors   as trained
    models/segmenter/000001/card.json                       names the weights; makes the version exist
    models/segmenter/000001/gate/000001.json                what a gate measured and decided; more may follow
    models/segmenter/promotions/000001.json                 numbered: the highest is in force
    models/segmenter/runs/<run>/000050.<attempt>.pt         a training's checkpoint at step 50
    models/segmenter/runs/<run>/000050.json                 names it; makes it exist

All records are put-if-absent: nothing is overwritten. Their numbers are chosen before what they rest on is
looked at: who slept in between finds the number taken, and looks again or is told.
It does not know: what weights mean, or how a gate measures.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.drivers.lease import check_lease
from maskmill.storage.errors import DamagedObject, NoSuchThing, ObjectNotFound, Overtaken, StoreUnavailable
from maskmill.storage.json_text import load_json, sealed
from maskmill.storage.shards.shards import CHUNK_BYTES, WrittenObject, check_size, read_object, write_object
from maskmill.storage.stores.base import ObjectStore

FORMAT_VERSION = 1
FOLDER = "models"
SEGMENTER = "segmenter"
SHIPPED = 0
"""In a promotion: the model that the run's own settings name."""
MAX_RACES = 50


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model version.

    Attributes:
        number: from 1, of its role.
        role: "segmenter".
        model: the architecture, as settings name it ("nano", "vit_b", ...).
        weights: the object.
        trained: what it was trained on and how, for people and for the gate (generation, keys, settings).
        created_utc: ISO 8601.
        run: of the training that made it; the same run makes one model only.
        decisions: of gates, oldest first.
    """

    number: int
    role: str
    model: str
    weights: WrittenObject
    trained: Mapping[str, Any]
    created_utc: str
    run: str = ""
    decisions: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)

    @property
    def folder(self) -> str:
        """Where it is."""
        return _folder(self.role, self.number)


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Which model the next generation uses.

    Attributes:
        number: of the record.
        model: number of the model version, or `SHIPPED`.
        why: for people.
        created_utc: ISO 8601.
        attempt: unique, so that a retried write is known as one's own.
    """

    number: int
    model: int
    why: str
    created_utc: str
    attempt: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training's state after a step.

    Attributes:
        step: steps done.
        data: the object.
        facts: small numbers beside it, such as the loss.
    """

    step: int
    data: WrittenObject
    facts: Mapping[str, Any] = field(default_factory=dict)


def add_model(
    store: ObjectStore,
    weights: Path,
    *,
    model: str,
    trained: Mapping[str, Any],
    created_utc: str,
    run: str = "",
    role: str = SEGMENTER,
) -> ModelCard:
    """Keeps a weights file as the role's next version.

    A run that made a model already gets that one back.

    Raises:
        StoreUnavailable: too many others added models meanwhile.
        LeaseLost: this driver counts as dead.
    """
    for _ in range(MAX_RACES):
        number = max(_numbers(store, f"{FOLDER}/{role}/", "card.json"), default=0) + 1
        made = next((card for card in list_models(store, role) if run and card.run == run), None)
        if made is not None:
            return made
        name = f"{_folder(role, number)}/weights.{new_attempt()}{weights.suffix}"
        written = _write_file(store, name, weights)
        card = ModelCard(
            number=number, role=role, model=model, weights=written, trained=dict(trained),
            created_utc=created_utc, run=run,
        )  # fmt: skip
        facts = {key: value for key, value in asdict(card).items() if key != "decisions"}
        check_lease(store)
        if store.put_if_absent(f"{card.folder}/card.json", _json(facts)):
            return card
        store.delete(name)
    raise StoreUnavailable(f"{store.root}: {MAX_RACES} other models were added meanwhile; try again")


def load_model(store: ObjectStore, number: int, role: str = SEGMENTER) -> ModelCard:
    """A model version with its gates' decisions.

    Raises:
        NoSuchThing: there is no such version; says which there are.
        DamagedObject: its card cannot be read.
    """
    name = f"{_folder(role, number)}/card.json"
    try:
        fields = _read(store, name)
    except ObjectNotFound as exc:
        there = _numbers(store, f"{FOLDER}/{role}/", "card.json")
        raise NoSuchThing(f"{store.root}: no {role} {number}; there are {there or 'none'}") from exc
    folder = f"{_folder(role, number)}/gate/"
    decisions = tuple(_read(store, f"{folder}{one:06d}.json") for one in _numbered(store, folder))
    try:
        fields["weights"] = WrittenObject(**fields["weights"])
        return ModelCard(**fields, decisions=decisions)
    except TypeError as exc:
        raise DamagedObject(f"{store.root}/{name}: not a readable card ({exc})") from exc


def list_models(store: ObjectStore, role: str = SEGMENTER) -> list[ModelCard]:
    """All versions, oldest first."""
    return [load_model(store, number, role) for number in _numbers(store, f"{FOLDER}/{role}/", "card.json")]


def note_decision(store: ObjectStore, number: int, facts: Mapping[str, Any], role: str = SEGMENTER) -> int:
    """Keeps what a gate decided on a version's card; returns the decision's number."""
    return _append(store, f"{_folder(role, number)}/gate/", dict(facts))


def promote(
    store: ObjectStore,
    model: int,
    *,
    why: str,
    created_utc: str,
    over: int | None = None,
    role: str = SEGMENTER,
) -> Promotion:
    """Puts a version in force, or `SHIPPED`. Nothing is written where it is in force already.

    Args:
        store: the dataset.
        model: the version's number.
        why, created_utc: as Promotion has them.
        over: number of the promotion that this one was decided over, 0 before the first: a gate measures
            for hours. None is the one in force now.
        role: "segmenter".

    Raises:
        ObjectNotFound: there is no such version.
        Overtaken: somebody else promoted another version meanwhile.
        LeaseLost: this driver counts as dead.
    """
    now = promoted(store, role)
    if model != SHIPPED:
        load_model(store, model, role)
    if now is not None and now.model == model:
        return now

    base = over if over is not None else number_of(now)
    facts = {"model": model, "why": why, "created_utc": created_utc}
    if number_of(now) == base and _append_after(store, _promotions(role), base, facts):
        return _promotion(store, f"{_promotions(role)}{base + 1:06d}.json")

    winner = promoted(store, role)
    assert winner is not None, "a number was taken"
    if winner.model == model:
        return winner
    raise Overtaken(
        f"{store.root}: model {winner.model} was put in force meanwhile ({winner.why}, "
        f"{winner.created_utc}), so model {model} was not; look, and "
        f"`maskmill promote {store.root} --to {model}` if it is still right"
    )


def number_of(promotion: Promotion | None) -> int:
    """A promotion's number, 0 for none."""
    return promotion.number if promotion is not None else 0


def promoted(store: ObjectStore, role: str = SEGMENTER) -> Promotion | None:
    """The promotion in force; None before the first. Raises DamagedObject."""
    every = promotions(store, role)
    return every[-1] if every else None


def promotions(store: ObjectStore, role: str = SEGMENTER) -> list[Promotion]:
    """All promotions, oldest first."""
    folder = _promotions(role)
    return [_promotion(store, f"{folder}{one:06d}.json") for one in _numbered(store, folder)]


def _promotion(store: ObjectStore, name: str) -> Promotion:
    try:
        return Promotion(**_read(store, name))
    except TypeError as exc:
        raise DamagedObject(f"{store.root}/{name}: not a readable promotion ({exc})") from exc


def save_checkpoint(
    store: ObjectStore,
    run: str,
    step: int,
    data: bytes,
    *,
    facts: Mapping[str, Any],
    keep: int = 2,
    role: str = SEGMENTER,
) -> Checkpoint:
    """Keeps a training's state after a step, and drops all but the last `keep` of the run.

    A step that is kept already keeps its first state.
    """
    folder = _run_folder(role, run)
    written = write_object(store, f"{folder}{step:06d}.{new_attempt()}.pt", data, 1)
    record = _json({"step": step, "data": asdict(written), "facts": dict(facts)})
    if not store.put_if_absent(f"{folder}{step:06d}.json", record):
        store.delete(written.name)
    for old in _numbered(store, folder)[:-keep]:
        stale = _checkpoint(store, folder, old)
        store.delete(f"{folder}{old:06d}.json")
        store.delete(stale.data.name)
    return Checkpoint(step=step, data=written, facts=dict(facts))


def last_checkpoint(store: ObjectStore, run: str, role: str = SEGMENTER) -> Checkpoint | None:
    """The run's latest whole checkpoint; None without any."""
    folder = _run_folder(role, run)
    for step in reversed(_numbered(store, folder)):
        found = _checkpoint(store, folder, step)
        try:
            check_size(store, found.data)
        except (ObjectNotFound, DamagedObject):
            continue  # an older one will do: its steps are done again
        return found
    return None


def read_checkpoint(store: ObjectStore, checkpoint: Checkpoint) -> bytes:
    """Its bytes, checked. Raises DamagedObject, ObjectNotFound."""
    return read_object(store, checkpoint.data)


def fetch(store: ObjectStore, written: WrittenObject, folder: Path) -> Path:
    """A copy of an object as a local file named by its sha256; made once, whole or not at all.

    Raises:
        DamagedObject: the object is not what its record says.
    """
    target = folder / f"{written.sha256}{Path(written.name).suffix}"
    if target.is_file() and target.stat().st_size == written.size_bytes:
        return target

    folder.mkdir(parents=True, exist_ok=True)
    check_size(store, written)
    partial = target.with_name(f"{target.name}.{new_attempt()}.partial")

    digest = hashlib.sha256()
    try:
        with store.open_read(written.name) as source, partial.open("wb") as file:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != written.sha256:
            raise DamagedObject(
                f"{store.root}/{written.name}: its sha256 is not the recorded one; add the model again"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _write_file(store: ObjectStore, name: str, path: Path) -> WrittenObject:
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file, store.open_write(name) as target:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            target.write(chunk)
    return WrittenObject(name, size_bytes, digest.hexdigest(), 1)


def _append(store: ObjectStore, folder: str, facts: Mapping[str, Any]) -> int:
    """Writes the folder's next numbered record."""
    for _ in range(MAX_RACES):
        last = max(_numbered(store, folder), default=0)
        if _append_after(store, folder, last, facts):
            return last + 1
    raise StoreUnavailable(f"{store.root}/{folder}: {MAX_RACES} others wrote records meanwhile; try again")


def _append_after(store: ObjectStore, folder: str, last: int, facts: Mapping[str, Any]) -> bool:
    """Writes the record after number `last`, unless somebody else has. Raises LeaseLost."""
    check_lease(store)
    record = _json({**facts, "number": last + 1, "attempt": new_attempt()})
    return store.put_if_absent(f"{folder}{last + 1:06d}.json", record)


def _checkpoint(store: ObjectStore, folder: str, step: int) -> Checkpoint:
    fields = _read(store, f"{folder}{step:06d}.json")
    return Checkpoint(step=step, data=WrittenObject(**fields["data"]), facts=fields["facts"])


def _folder(role: str, number: int) -> str:
    return f"{FOLDER}/{role}/{number:06d}"


def _promotions(role: str) -> str:
    return f"{FOLDER}/{role}/promotions/"


def _run_folder(role: str, run: str) -> str:
    return f"{FOLDER}/{role}/runs/{run}/"


def _numbers(store: ObjectStore, folder: str, file: str) -> list[int]:
    pattern = re.compile(rf"(\d{{6,}})/{re.escape(file)}")
    names = (info.name[len(folder) :] for info in store.list(folder))
    return sorted(int(found[1]) for name in names if (found := pattern.fullmatch(name)))


def _numbered(store: ObjectStore, folder: str) -> list[int]:
    names = (info.name[len(folder) :] for info in store.list(folder))
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"(\d{6,})\.json", name)))


def _read(store: ObjectStore, name: str) -> dict[str, Any]:
    try:
        fields = load_json(store.read(name))
        if fields.pop("format_version") != FORMAT_VERSION:
            raise DamagedObject(f"{store.root}/{name}: of a newer format; update maskmill")
    except (ValueError, KeyError, AttributeError, TypeError) as exc:
        raise DamagedObject(f"{store.root}/{name}: not a readable record ({exc})") from exc
    assert isinstance(fields, dict)
    return fields


def _json(facts: Mapping[str, Any]) -> bytes:
    return sealed({**facts, "format_version": FORMAT_VERSION})
