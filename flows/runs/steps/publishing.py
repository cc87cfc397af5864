"""The step that publishes what is committed as the dataset's next generation, and checks the sums.

Like all steps it looks at storage alone, so it may be repeated without harm. What the generation before has
already is carried and not read again: records never change, and their sha256 is in its rows.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.storage.care.rewrite import settle_forgotten
from maskmill.storage.care.verify import verify
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.generations import Publication, latest, publish_over
from maskmill.storage.dataset.merge import committed_rows, count_rejects, count_rows, merge_rows
from maskmill.storage.errors import Overtaken
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import MASKS

if TYPE_CHECKING:
    from maskmill.storage.care.verify import VerifyReport
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.merge import Committed
    from maskmill.workers.run.spec import RunSpec


MAX_RACES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What the verify-and-publish step found.

    Attributes:
        generation: the newest one's number; None while nothing is annotated.
        is_new: this step published it.
        masks: in it.
        check: the sums, and whatever is wrong.
        rejects: reason -> images, those the plan rejected (such as duplicates) included.
    """

    generation: int | None
    is_new: bool
    masks: int
    check: VerifyReport
    rejects: Mapping[str, int]


def publish_and_verify(
    spec: RunSpec, config: RunConfig, *, made_by: str = "generate", partial: bool = False
) -> Published:
    """Publishes what is committed as the next generation, and checks the dataset's sums.

    Columns that this run does not make are carried over from the generation before. Nothing is published when
    the latest generation holds just that. Shards that lack a column of the run keep what they had; but unless
    `partial` says that this is meant, a run that had to give shards up never replaces a fuller generation.

    Args:
        spec: the run: its fingerprints say what counts.
        config: its settings, as the generation keeps them.
        made_by: what the generation says made it.
        partial: a generation may mix versions by shard.

    Raises:
        DatasetError: records contradict each other.
        DamagedObject: a record cannot be read.
        Overtaken: others kept committing or publishing meanwhile.
    """
    for _ in range(MAX_RACES):
        try:
            return _publish_and_verify(spec, config, made_by, partial)
        except Overtaken as exc:
            overtaken = exc  # records were superseded since they were read: they are read again
    raise overtaken


def _publish_and_verify(spec: RunSpec, config: RunConfig, made_by: str, partial: bool) -> Published:
    store = open_store(spec.root)
    settle_forgotten(store, created_utc=now_utc())
    before = latest(store)
    committed = committed_rows(store, spec.fingerprints, before)

    generation = before
    main = MASKS if MASKS in spec.fingerprints else list(spec.fingerprints)[-1]
    if committed.num_shards[main] and (partial or before is None or _as_full(committed)):
        generation = _publish(spec, config, committed, before, made_by)

    rejects = Counter(load_plans(store).rejects_by_reason)
    rejects.update(count_rejects(store, committed, spec.fingerprints))
    return Published(
        generation=generation.number if generation is not None else None,
        is_new=generation is not None and (before is None or before.number != generation.number),
        masks=int(generation.totals.get("masks", 0)) if generation is not None else 0,
        check=verify(store, deep=False, known=before),
        rejects=dict(rejects),
    )


def _publish(
    spec: RunSpec, config: RunConfig, committed: Committed, before: Generation | None, made_by: str
) -> Generation:
    from maskmill.workers.reviews.column import with_reviews

    store = open_store(spec.root)
    settings = config.model_dump(mode="json", include={"recipe", *spec.settings})

    def make(parent: Generation | None) -> Publication:
        """The latest generation merged with what this run committed."""
        same = parent is None or (before is not None and parent.number == before.number)
        ours = committed if same else committed_rows(store, spec.fingerprints, parent)
        merged = merge_rows(store, ours.fresh, parent)
        reviewed = with_reviews(store, merged.rows, created_utc=now_utc())
        for sentence in reviewed.damage:
            watcher().note(sentence)
        for column, shards in merged.dropped.items():
            watcher().note(f"{column} of {shards} shards no longer fit what they were made from: left out")
        if parent is not None and not reviewed.rows.over(parent.manifest).changes:
            return Publication(reviewed.rows, {})
        carried = {column for (column,) in merged.rows.scan("column")} - spec.fingerprints.keys()
        kept = {column: parent.columns[column] for column in carried} if parent is not None else {}
        facts = {
            "columns": reviewed.columns({**kept, **spec.fingerprints}),
            "settings": {**_sections(parent, carried), **settings},
            "models": {**(parent.models if parent is not None and carried else {}), **ours.models},
            "totals": count_rows(store, reviewed.rows),
        }
        return Publication(reviewed.rows, facts)

    return publish_over(store, make, now_utc(), made_by=made_by)


def _sections(parent: Generation | None, columns: Iterable[str]) -> dict[str, Any]:
    """What the generation before says of how these columns were made."""
    return {name: parent.settings[name] for name in columns if parent is not None and name in parent.settings}


def _as_full(committed: Committed) -> bool:
    """Whether no column of the run has fewer shards than the generation has of it."""
    return all(
        number >= committed.in_parent.get(column, 0) for column, number in committed.num_shards.items()
    )
