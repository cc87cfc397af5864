"""What readers see of a published dataset: samples spread evenly, counts that add up, pictures upright."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.storage.dataset.generations import publish
from maskmill.storage.errors import DamagedObject, DatasetError
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.reading.samples import upright_jpeg
from maskmill.workers.reading.survey import count_rejects, sample_images, spread, survey_masks
from maskmill.workers.run.spec import IMAGES
from tests.fakes import jpeg_bytes
from tests.workers.published import CAPTION, NUM_ANNOTATED, Published, publish_dataset, shapes, turned_jpeg


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


@pytest.mark.parametrize(("num_items", "num_wanted"), [(100, 7), (5, 5), (3, 9), (1, 1), (0, 4)])
def test_spread_draws_one_place_from_each_stretch(num_items: int, num_wanted: int) -> None:
    places = spread(num_items, num_wanted, seed=3)
    assert len(set(places)) == len(places) == min(num_items, num_wanted)
    stretch = num_items / max(1, len(places))
    assert all(i * stretch - 1 <= place < (i + 1) * stretch + 1 for i, place in enumerate(places))
    assert places == spread(num_items, num_wanted, seed=3)


def test_different_seeds_draw_different_places() -> None:
    assert len({tuple(spread(1000, 4, seed)) for seed in range(5)}) == 5


def test_asking_for_more_than_there_is_gives_all_in_order(data: Published) -> None:
    samples = sample_images(data.store, data.generation, 100)
    keys = [sample.key for sample in samples]
    assert len(keys) == NUM_ANNOTATED and keys == sorted(set(keys))
    for sample in samples:
        assert sample.image_HW3.shape == (sample.annotated.height, sample.annotated.width, 3)
    assert CAPTION in {sample.caption for sample in samples}
    assert any(sample.source.endswith("z.tar::b.jpg") for sample in samples)


def test_a_few_come_from_all_over(data: Published) -> None:
    drawn = {
        sample.key
        for seed in range(12)
        for sample in sample_images(data.store, data.generation, 2, seed=seed)
    }
    assert len(drawn) >= 6
    assert len(sample_images(data.store, data.generation, 2)) == 2


def test_counts_agree_with_the_records(data: Published) -> None:
    survey = survey_masks(data.store, data.generation)
    samples = sample_images(data.store, data.generation, 100)
    masks = [annotation for sample in samples for annotation in sample.annotated.annotations]
    assert (survey.num_images, survey.num_masks) == (NUM_ANNOTATED, len(masks))
    assert sorted(survey.area_px) == sorted(mask.area_px for mask in masks)
    assert sorted(survey.predicted_iou) == sorted(mask.predicted_iou for mask in masks)
    assert sorted(survey.masks_per_image) == sorted(len(sample.annotated.annotations) for sample in samples)
    assert survey.masks_per_image.min() == 0, "an image without masks counts"
    assert survey.num_shards_read == survey.num_shards == 3


def test_a_part_of_the_shards_still_counts_all_masks(data: Published) -> None:
    whole = survey_masks(data.store, data.generation)
    part = survey_masks(data.store, data.generation, max_shards=1)
    assert part.num_masks == whole.num_masks
    assert part.num_shards_read == 1 and 0 < part.area_px.size < whole.area_px.size


def test_rejects_are_counted_by_reason(data: Published) -> None:
    assert count_rejects(data.store, data.generation) == {"not_an_image": 1}


def test_a_generation_without_masks_says_what_to_do(tmp_path: Path) -> None:
    data = publish_dataset(tmp_path)
    images_only = publish(
        data.store,
        {IMAGES: data.spec.fingerprints[IMAGES]},
        settings={},
        models={},
        totals={},
        created_utc="2025-01-01T00:00:00+00:00",
    )
    with pytest.raises(DatasetError, match="generation 2 has no masks; run `generate` first"):
        sample_images(data.store, images_only, 3)


def test_a_turned_jpeg_is_written_upright_and_a_plain_one_as_it_is() -> None:
    plain, turned = jpeg_bytes(shapes(1)), turned_jpeg(shapes(1))
    assert upright_jpeg(plain, 64, 48, "x") is plain
    upright = upright_jpeg(turned, 48, 64, "x")
    assert upright != turned and (decode_image(upright).shape) == (64, 48, 3)
    assert upright_jpeg(upright, 48, 64, "x") is upright


def test_a_picture_of_another_size_than_its_masks_is_damage() -> None:
    with pytest.raises(DamagedObject, match=r"photo: is 64x48 px upright, but its masks are for 60x48"):
        upright_jpeg(jpeg_bytes(shapes(1)), 60, 48, "photo")
    with pytest.raises(DamagedObject, match="photo: could be decoded"):
        upright_jpeg(b"rubbish", 60, 48, "photo")
