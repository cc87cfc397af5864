"""Masks, captions, labels and names by small models in real formats, through the real builders."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from pycocotools.coco import COCO

import maskmill.pipeline.segmenters
from maskmill.pipeline.annotation import from_sa1b
from maskmill.pipeline.segmenters.base import ImageEmbedding, PromptableImage, Segmenter
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.words import CaptionSettings, LabelSettings, NameSettings
from maskmill.pipeline.words.caption import captions_from_record
from maskmill.pipeline.words.ground import labels_from_record
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.export import export
from maskmill.workers.pictures.preview import preview_page
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardTask, make_spec
from maskmill.workers.run.work_settings import WorkSettings
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages, build_stages
from maskmill.workers.stages.captions import CAPTIONS
from maskmill.workers.stages.labels import LABELS
from maskmill.workers.stages.names import NAMES
from tests.fakes import Pixels
from tests.pipeline.words import tiny_clip
from tests.tiny_models import save_blip, save_grounding_dino
from tests.workers.published import write_inputs

NUM_IMAGES = 9
NAMED = ("circle", "square")


class Counted:
    """A segmenter that notes how many images it embeds, and how often it is loaded."""

    def __init__(self) -> None:
        self.num_embedded = self.num_loaded = 0
        self._load = maskmill.pipeline.segmenters.load_segmenter

    def load(self, settings: SegmenterSettings) -> Segmenter:
        self.num_loaded += 1
        self._inner = self._load(settings)
        return self

    @property
    def image_size(self) -> int:
        return self._inner.image_size

    @property
    def mask_threshold(self) -> float:
        return self._inner.mask_threshold

    @property
    def images_per_batch(self) -> int:
        return self._inner.images_per_batch

    def embed(self, images: Sequence[Pixels]) -> list[ImageEmbedding]:
        self.num_embedded += len(images)
        return self._inner.embed(images)

    def prompt(self, embedding: ImageEmbedding) -> PromptableImage:
        return self._inner.prompt(embedding)


@dataclass(frozen=True)
class Annotated:
    """A dataset made in one pass."""

    spec: RunSpec
    stages: Stages
    segmenter: Counted

    def contents(self, column: str, spec: RunSpec | None = None) -> dict[str, Any]:
        version = ColumnVersion(self.stages.store, column, (spec or self.spec).fingerprints[column])
        return {
            sample.key: json.loads(sample.files["json"])
            for record in version.records()
            for sample in version.read(record)
        }


def make(
    root: Path, captions: CaptionSettings, labels: LabelSettings, names: NameSettings | None = None
) -> RunSpec:
    return make_spec(
        str(root),
        ingest=IngestSettings(),
        masks=MaskSettings(points_per_side=4, predicted_iou=0.1, stability=0.0),
        segmenter=SegmenterSettings(device="cpu"),
        captions=captions,
        labels=labels,
        names=names,
    )


def work(stages: Stages, attempt: str) -> None:
    for shard in range(stages.plan.num_shards):
        run_shard(stages, ShardTask(shard=shard, attempt=attempt * 16))


def objects(root: str) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in Path(root).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Annotated]:
    folder = tmp_path_factory.mktemp("words")
    write_inputs(folder / "inputs")
    make_plan(open_store(folder / "data"), [str(folder / "inputs")], shard_size=6)
    captions = CaptionSettings(
        model=str(save_blip(folder / "captioner", retrieval=False)),
        filter=str(save_blip(folder / "filter", retrieval=True, seed=1)),
        threshold=0.0,
        min_crop_share=0.1,
        max_crops=2,
        max_tokens=8,
    )
    labels = LabelSettings(
        model=str(save_grounding_dino(folder / "detector")),
        text="both",
        vocabulary=("red cat", "big dog"),
        box_threshold=0.3,
        link_iou=0.3,
    )
    clip = tiny_clip.save(tiny_clip.build_clip(), folder / "namer")
    names = NameSettings(model=str(clip), vocabulary=NAMED, dense_side=64, device="cpu", top_k=2)
    spec = make(folder / "data", captions, labels, names)
    counted = Counted()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maskmill.pipeline.segmenters, "load_segmenter", counted.load)
        stages = build_stages(spec)
        work(stages, "a")
        yield Annotated(spec, stages, counted)


def test_one_pass_runs_the_encoder_once_an_image(annotated: Annotated) -> None:
    columns = {column: annotated.contents(column) for column in (MASKS, CAPTIONS, LABELS, NAMES)}
    assert [len(found) for found in columns.values()] == [NUM_IMAGES] * 4
    assert annotated.segmenter.num_embedded == NUM_IMAGES and annotated.segmenter.num_loaded == 1
    assert sum(len(record["labels"]) for record in columns[LABELS].values()) > NUM_IMAGES
    assert verify(annotated.stages.store, deep=True).ok


def test_every_mask_that_a_record_names_is_there(annotated: Annotated) -> None:
    masks, captions, labels = (annotated.contents(column) for column in (MASKS, CAPTIONS, LABELS))
    linked = 0
    for key, record in masks.items():
        grid = {row["id"] for row in record["annotations"]}
        own = {row["id"] for row in labels[key]["annotations"]}
        assert not grid & own and labels[key]["image"] == record["image"] == captions[key]["image"]
        for label in labels[key]["labels"]:
            assert label["mask"] in (grid if label["link_iou"] is not None else own) or label["mask"] is None
            linked += label["link_iou"] is not None
        assert {crop["mask"] for crop in captions[key]["crops"]} <= grid
        assert captions_from_record(captions[key]).whole.caption == captions[key]["caption"]
        assert len(labels_from_record(labels[key]).annotations) == len(own)
    assert linked > 0 and any(record["crops"] for record in captions.values())


def settings_of(spec: RunSpec) -> tuple[CaptionSettings, LabelSettings, NameSettings]:
    """The settings of a run's words."""
    kept = spec.settings
    return kept.of(CaptionSettings), kept.of(LabelSettings), kept.of(NameSettings)


def test_the_sources_caption_is_judged_and_kept(annotated: Annotated) -> None:
    texts = [
        text
        for record in annotated.contents(CAPTIONS).values()
        for text in record["texts"]
        if text["origin"] == "source"
    ]
    assert [text["text"] for text in texts] == ["a dog <b>& a cat"] and 0 <= texts[0]["score"] <= 1


def test_a_changed_caption_threshold_touches_neither_images_nor_masks(annotated: Annotated) -> None:
    spec = annotated.spec
    captions, labels, names = settings_of(spec)
    changed = make(Path(spec.root), dataclasses.replace(captions, threshold=1.0), labels, names)
    kept = {
        column for column in spec.fingerprints if changed.fingerprints[column] == spec.fingerprints[column]
    }
    assert kept == {IMAGES, MASKS, NAMES}
    before, embedded = objects(spec.root), annotated.segmenter.num_embedded
    stages = build_stages(dataclasses.replace(changed, idle=(IMAGES, MASKS, NAMES)))
    work(stages, "b")
    after = objects(spec.root)
    assert {name: after[name] for name in before} == before
    new = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert new == {CAPTIONS, LABELS}
    assert annotated.segmenter.num_embedded - embedded <= NUM_IMAGES  # for the boxes, at most once an image
    captions = annotated.contents(CAPTIONS, changed)
    assert all(record["caption"] is None and record["dropped"] for record in captions.values())
    publish_columns(annotated.stages.store, changed)
    assert verify(annotated.stages.store, deep=True).ok


def test_a_caption_column_alone_loads_no_segmenter(annotated: Annotated) -> None:
    spec = annotated.spec
    captions, _, _ = settings_of(spec)
    other = make(Path(spec.root), dataclasses.replace(captions, seed=1, min_crop_share=None), LabelSettings())
    loaded = annotated.segmenter.num_loaded
    work(build_stages(dataclasses.replace(other, idle=(IMAGES, MASKS))), "c")
    assert annotated.segmenter.num_loaded == loaded
    assert len(annotated.contents(CAPTIONS, other)) == NUM_IMAGES and LABELS not in other.fingerprints


@pytest.mark.parametrize("images_per_batch", [1, 3])
def test_done_again_is_equal_whatever_is_batched(
    annotated: Annotated, tmp_path: Path, images_per_batch: int
) -> None:
    """With the same batches to the last digit; else texts and names: a text's draws are its own."""
    inputs = Path(annotated.spec.root).parent / "inputs"
    spec = dataclasses.replace(
        annotated.spec, root=str(tmp_path), work=WorkSettings(images_per_batch=images_per_batch)
    )
    make_plan(open_store(tmp_path), [str(inputs)], shard_size=6)
    stages = dataclasses.replace(annotated.stages, spec=spec, store=open_store(tmp_path))
    run_shard(stages, ShardTask(shard=1, attempt="d" * 16))
    again = dataclasses.replace(annotated, spec=spec, stages=stages)
    for column in (CAPTIONS, LABELS):
        found, expected = again.contents(column), annotated.contents(column)
        assert len(found) == 4
        for key, record in found.items():
            if images_per_batch == 1:
                assert record == expected[key]
            assert list(strings(record)) == list(strings(expected[key]))


def strings(value: Any) -> Iterator[str]:
    """All texts in a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def publish_columns(store: ObjectStore, spec: RunSpec) -> Generation:
    return publish(
        store, spec.fingerprints, settings={}, models={}, totals={}, created_utc="2025-01-01T00:00:00+00:00"
    )


def test_settings_that_change_nothing_keep_the_fingerprint(annotated: Annotated, tmp_path: Path) -> None:
    spec = annotated.spec
    captions, labels, names = settings_of(spec)
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("# two\nred cat\nbig dog\n")
    by_file = dataclasses.replace(labels, batch_size=1, vocabulary=str(vocabulary))
    captions = dataclasses.replace(captions, batch_size=1, device="cpu")
    neutral = make(Path(spec.root), captions, by_file, names)
    assert neutral.fingerprints == spec.fingerprints
    assert neutral.settings.of(LabelSettings).vocabulary == (
        "red cat",
        "big dog",
    )  # workers elsewhere have no such file
    vocabulary.write_text("red cat\nbig dog\nhouse\n")
    changed = make(Path(spec.root), captions, by_file)
    assert changed.fingerprints[LABELS] != spec.fingerprints[LABELS]


def test_what_cannot_be_is_told_before_work_starts(annotated: Annotated, tmp_path: Path) -> None:
    spec = annotated.spec
    captions, labels, _ = settings_of(spec)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n# nothing\n")
    with pytest.raises(ValueError, match="has no phrases"):
        make(Path(spec.root), captions, dataclasses.replace(labels, vocabulary=str(empty)))
    with pytest.raises(ValueError, match="captions are off"):
        make(Path(spec.root), CaptionSettings(), labels)
    with pytest.raises(ValueError, match="captioner"):
        make(Path(spec.root), dataclasses.replace(captions, model=str(tmp_path / "no")), labels)


@pytest.fixture(scope="module")
def published(annotated: Annotated) -> Generation:
    return publish_columns(annotated.stages.store, annotated.spec)


def test_the_joined_sample_exports_to_sa1b(
    annotated: Annotated, published: Generation, tmp_path: Path
) -> None:
    report = export(annotated.stages.store, published, str(tmp_path), format="sa1b")
    with tarfile.open(tmp_path / "sa_000000.tar") as tar:
        members = [member for member in tar if member.name.endswith(".json")]
        records = [json.loads(tar.extractfile(member).read()) for member in members]  # type: ignore[union-attr]
    masks, captions, labels = (annotated.contents(column) for column in (MASKS, CAPTIONS, LABELS))
    names = annotated.contents(NAMES)
    assert len(records) == NUM_IMAGES
    for record in records:
        key = record["image"]["key"]
        assert record["image"]["caption"] == captions[key]["caption"]
        assert record["image"]["captions"] == captions[key]["texts"]
        assert len(record["annotations"]) == len(masks[key]["annotations"]) + len(labels[key]["annotations"])
        told = [label["label"] for row in record["annotations"] for label in row["labels"]]
        told += [box["label"] for box in record["image"].get("boxes", [])]
        assert sorted(told) == sorted(label["label"] for label in labels[key]["labels"])
        named = [row["names"] for row in record["annotations"] if "names" in row]
        assert named == [row["names"] for row in names[key]["names"]]
        assert from_sa1b(record).annotations  # still the released dataset's form
    assert report.num_masks == sum(len(record["annotations"]) for record in records)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("form", ["coco", "lvis"])
def test_the_joined_sample_exports_to_json_that_pycocotools_loads(
    annotated: Annotated, published: Generation, tmp_path: Path, form: Literal["coco", "lvis"]
) -> None:
    export(annotated.stages.store, published, str(tmp_path), format=form, images=False)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "annotations.json"))
    labels = annotated.contents(LABELS)
    names = {category["name"] for category in coco.loadCats(coco.getCatIds())}
    found = {label["label"] for record in labels.values() for label in record["labels"] if label["mask"]}
    assert "object" in names and names <= {"object", *NAMED, *found} and len(names) > 2
    assert len(coco.imgs) == NUM_IMAGES
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert int(coco.annToMask(annotation).sum()) == annotation["area"]
        labelled = annotation["labels"]
        called = labelled[0]["label"] if labelled else annotation["names"][0]["name"]
        assert coco.cats[annotation["category_id"]]["name"] == called
    if form == "lvis":
        for image in coco.imgs.values():
            of_image = {one["category_id"] for one in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))}
            assert (
                image["not_exhaustive_category_ids"] == sorted(of_image) and image["neg_category_ids"] == []
            )
        assert {"synset", "frequency", "image_count", "instance_count"} <= coco.cats[1].keys()
        assert coco.cats[1]["frequency"] == "r"
        counted = sum(category["instance_count"] for category in coco.cats.values())
        assert counted == len(coco.anns)


def test_words_are_shown_escaped(annotated: Annotated, published: Generation) -> None:
    page = preview_page(annotated.stages.store, published)
    captions = annotated.contents(CAPTIONS)
    assert all(html.escape(record["caption"]) in page for record in captions.values())
    assert "red cat" in page or "big dog" in page
    assert "<b>& a cat" not in page
