"""`ingest` with embeddings: a generation of pictures without masks, reviewed from empty pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.runs import ingest as runs
from maskmill.flows.runs.steps.annotating import Annotated
from maskmill.pipeline.rle import decode
from maskmill.pipeline.segmenters.interactive import Clicks
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.browse.filters import Filters
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.generations import latest
from maskmill.storage.drivers.shard_feed import ShardFeed
from maskmill.storage.errors import InputError
from maskmill.storage.stores.open import open_store
from maskmill.workers.page.reviewing import Opening, Sitting
from maskmill.workers.page.session import Session
from maskmill.workers.reading.kept_embeddings import KeptEmbeddings
from maskmill.workers.reading.samples import read_annotated
from maskmill.workers.reviews.column import publish_saves
from maskmill.workers.reviews.rows import MaskWork
from maskmill.workers.run.spec import RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages
from tests.fakes import write_pictures

ONE = "000000001"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very turns at shards, without Ray's workers around them."""

    def annotate(spec: RunSpec, config: RunConfig, feed: ShardFeed, *, build: Any = None) -> Annotated:
        stages = (build or build_stages)(spec)
        while not feed.ended:
            if (shard := feed.next()) is None:
                continue
            run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))
        return Annotated(new_images=sum(feed.shards.values()))

    monkeypatch.setattr(runs, "annotate_shards", annotate)


def test_people_begin_on_empty_pictures_whose_embeddings_are_kept(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 2)
    config = load_config(None, None, ["embeddings.keep=float16", "segmenter.device=cpu"])
    root = str(tmp_path / "data")
    report = runs.ingest(root, [str(tmp_path / "in")], config)
    assert (report.generation, report.new_images) == (1, 2)
    again = runs.ingest(root, [str(tmp_path / "in")], config)
    assert (again.generation, again.new_images) == (1, 0), "nothing is new"

    store = open_store(root)
    generation = latest(store)
    assert generation is not None and set(generation.columns) == {"images", "embeddings"}
    assert verify(store, deep=True).ok
    kept = KeptEmbeddings(store, generation, SegmenterSettings(model="nano"))
    assert kept.get(ONE) is not None

    # Looked through, clicked and saved
    session = Session(store, generation, person="ana", segmenter=SegmenterSettings(model="nano"))
    try:
        assert session.search(Filters()).keys("key") == [ONE, "000000002"]
        opened = session.reviewing.open(ONE, "ana")
        assert opened["rows"] == []
        mask = session.answers.answer(ONE, Clicks(((20.0, 20.0),), (1,))).mask
        assert decode(mask).any()
        work = [MaskWork(how="added", segmentation=mask.to_coco(), clicks=1)]
        opening: Opening = opened["opening"]
        sitting = Sitting(name="one", number=1)
        facts: dict[str, Any] = {"rejected": (), "finished": True, "seconds": 1.0, "clicks": 1}
        session.reviewing.save(ONE, "ana", opening, sitting, work, **facts)
    finally:
        session.close()

    reviewed = publish_saves(store, created_utc="2025-01-01T00:00:00+00:00")
    assert reviewed is not None
    (sample,) = read_annotated(store, reviewed, people=True)
    assert np.array_equal(sample.record["annotations"][0]["segmentation"]["size"], [mask.height, mask.width])


def test_without_embeddings_no_generation_is_published(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    report = runs.ingest(str(tmp_path / "data"), [str(tmp_path / "in")], load_config(None, None, []))
    assert report.generation is None and latest(open_store(tmp_path / "data")) is None
    with pytest.raises(InputError):
        runs.ingest(str(tmp_path / "data"), [str(tmp_path / "none")], load_config(None, None, []))
