"""The preview page: self-contained, complete, and safe whatever the names in it say."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from maskmill.workers.pictures.preview import histograms, preview_page
from maskmill.workers.pictures.render import contact_sheet, thumbnail
from maskmill.workers.reading.survey import MaskSurvey, sample_images, survey_masks
from tests.workers.published import CAPTION, HOSTILE_NAME, NUM_ANNOTATED, Published, publish_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("<i>published"))


@pytest.fixture(scope="module")
def page(data: Published) -> str:
    return preview_page(data.store, data.generation, num_images=100, title="A & <B>")


class Outline(HTMLParser):
    """Tags, addresses and text of a document."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_captions_and_settings_stay_text(page: str) -> None:
    outline = Outline(page)
    assert not {"script", "iframe", "link", "form"} & set(outline.tags)
    assert "<script" not in page and "<i>" not in page
    assert outline.handlers == []
    for hostile in (HOSTILE_NAME, CAPTION, "A & <B>", "<i>published", "</code><script>"):
        assert hostile in outline.text


def test_nothing_is_asked_of_the_network(page: str) -> None:
    outline = Outline(page)
    assert outline.addresses and all(address.startswith("data:image/jpeg") for address in outline.addresses)
    assert "default-src 'none'; img-src data:" in page
    assert not re.search(r"url\(|@import|https?://", page)


def test_every_image_and_mask_is_there(data: Published, page: str) -> None:
    outline = Outline(page)
    survey = survey_masks(data.store, data.generation)
    assert outline.tags.count("img") == NUM_ANNOTATED
    masks = re.findall(r'<path color="#[0-9a-f]{6}" d="M[^"]+"><title>IoU [\d.]+ · stability', page)
    assert len(masks) == survey.num_masks
    assert "not_an_image" in outline.text
    for heading in ("Predicted IoU", "Stability score", "Area", "Masks an image"):
        assert heading in outline.text


def test_histograms_count_every_mask_and_image(data: Published) -> None:
    survey = survey_masks(data.store, data.generation)
    counts = [sum(chart.counts) for chart in histograms(survey)]
    assert counts == [survey.num_masks] * 3 + [survey.num_images]


def test_histograms_of_nothing() -> None:
    none, no_images = np.zeros(0), np.zeros(0, np.int64)
    charts = histograms(MaskSurvey(0, 0, none, none, no_images, no_images, 0, 0))
    assert all(sum(chart.counts) == 0 and chart.median is None for chart in charts)


def test_a_page_is_the_same_every_time(data: Published) -> None:
    pages = {preview_page(data.store, data.generation, num_images=2, seed=5) for _ in range(2)}
    assert len(pages) == 1


def test_a_contact_sheet_shows_a_photograph_and_its_masks_in_every_cell(data: Published) -> None:
    sheet = np.asarray(
        Image.open(io.BytesIO(contact_sheet(data.store, data.generation, columns=3, cell_px=206)))
    )
    samples = sample_images(data.store, data.generation, 12)
    top, tinted = 24 + 34, 0
    for row in range(3):
        of_row = samples[row * 3 : row * 3 + 3]
        height = max(thumbnail(sample.image_HW3, None, 100, 100).height for sample in of_row)
        for column, sample in enumerate(of_row):
            left = 24 + column * (206 + 20)
            photo, masks = (
                sheet[top : top + height, left : left + 100],
                sheet[top : top + height, left + 106 :][:, :100],
            )
            for picture in (photo, masks):
                assert (picture.max(axis=2) < 230).mean() > 0.2, "neither paper nor mat"
            assert np.ptp(photo.astype(int), axis=2).max() < 10, "the photographs are grey"
            has_masks = bool(sample.annotated.annotations)
            assert (np.ptp(masks.astype(int), axis=2) > 40).any() == has_masks
            tinted += has_masks
        top += height + 2 * 18 + 8 + 20
    assert tinted == NUM_ANNOTATED - 1


@pytest.mark.parametrize("wrong", [{"num_images": 0}, {"columns": 0}, {"cell_px": 10}])
def test_a_sheet_of_nothing_is_refused(data: Published, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        contact_sheet(data.store, data.generation, **wrong)  # type: ignore[arg-type]
