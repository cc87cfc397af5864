"""Ground truth from files, an evaluation on paper, reviews and audits, on a small real dataset."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from maskmill.pipeline.segmenters.base import Segmenter
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.settings.evaluate import EvaluateSettings
from maskmill.pipeline.settings.train import TrainSettings
from maskmill.storage.dataset.generations import latest, load_generation
from maskmill.storage.errors import InputError
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.truth import TruthSet, index_truth, picture_prints, read_manifest, read_truths
from maskmill.workers.jobs.review import review_by_oracle, summary
from maskmill.workers.measure.audit import agreement, audit, audits, put_on_card
from maskmill.workers.measure.evaluate import evaluate, write
from maskmill.workers.pictures.plots import Line, line_chart
from maskmill.workers.run.dataset_models import load
from maskmill.workers.run.loop_settings import LoopSettings
from maskmill.workers.train.stream import Place, TrainStream
from tests.workers.train.training_set import publish_scenes, write_coco, write_student

NOW = "2025-01-01T00:00:00+00:00"
QUICK = EvaluateSettings(clicks="1,2", measures="points,boxes,boundary", failures=2)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    torch.set_num_threads(1)
    weights = write_student(tmp_path_factory.mktemp("student") / "s.safetensors")
    return load(SegmenterSettings(weights=str(weights), device="cpu"))


@pytest.fixture
def truth(tmp_path: Path) -> TruthSet:
    return write_coco(tmp_path / "truth", first=50, count=2)


def test_an_evaluation_has_the_promised_figures_and_files(
    segmenter: Segmenter, truth: TruthSet, tmp_path: Path
) -> None:
    found = evaluate(segmenter, [truth, dataclasses.replace(truth, name="again")], QUICK)
    figures = found.figures()
    assert figures["instances"] == 12 and figures["images"] == 4
    for name in (
        "points_1_best_miou",
        "points_1_chosen_miou",
        "points_2_chosen_miou",
        "boxes_miou",
        "boxes_ap",
    ):
        assert figures[name] == pytest.approx(figures["sets"]["again"][name])
    assert figures["points_1_best_miou"] >= figures["points_1_chosen_miou"]
    names = {path.name for path in write(found, tmp_path / "out")}
    assert names == {"results.json", "masks.jsonl", "clicks.png", "sizes.png", "failures.png"}
    assert json.loads((tmp_path / "out" / "results.json").read_text())["instances"] == 12
    rows = (tmp_path / "out" / "masks.jsonl").read_text().splitlines()
    assert len(rows) == 12 and json.loads(rows[0])["set"] == truth.name
    with Image.open(tmp_path / "out" / "failures.png") as sheet:
        assert sheet.width > 400


def test_given_boxes_count_for_precision(segmenter: Segmenter, truth: TruthSet, tmp_path: Path) -> None:
    index = index_truth(truth)
    rows = [
        {"image_id": i, "category_id": 1, "bbox": one.words["bbox"], "score": 0.9}
        for i, image in index.images.items()
        for one in image.annotations
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    given = dataclasses.replace(truth, boxes=tmp_path / "boxes.json")
    found = evaluate(segmenter, [given], dataclasses.replace(QUICK, measures="boxes"))
    assert 0 <= found.figures()["boxes_ap"] <= 1


def test_truth_that_cannot_be_used_is_named(truth: TruthSet, tmp_path: Path, segmenter: Segmenter) -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        evaluate(segmenter, [], QUICK)
    with pytest.raises(InputError, match=r"nowhere.json: cannot be read"):
        index_truth(dataclasses.replace(truth, coco=tmp_path / "nowhere.json"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"50\.jpg: cannot be read"):
        list(read_truths(index_truth(dataclasses.replace(truth, images=tmp_path / "empty"))))
    data = json.loads(truth.coco.read_text())
    data["annotations"][0]["image_id"] = 999
    stranger = dataclasses.replace(truth, coco=tmp_path / "stranger.json")
    stranger.coco.write_text(json.dumps(data))
    assert index_truth(stranger).left_out.left_out().first == {"unknown_image": ("annotation 1",)}
    stranger.coco.write_text(json.dumps({**data, "annotations": data["annotations"][:1]}))
    with pytest.raises(InputError, match=r"of images that it doesn't list \(annotation 1\)"):
        index_truth(stranger)
    (tmp_path / "m.toml").write_text('[[set]]\nname = "a"\n')
    with pytest.raises(InputError, match="needs name, coco and images"):
        read_manifest(tmp_path / "m.toml")
    (tmp_path / "m.toml").write_text('[[set]]\nname = "a"\ncoco = "t.json"\nimages = "i"\n')
    assert read_manifest(tmp_path / "m.toml")[0].coco == tmp_path / "t.json"
    prints = picture_prints(truth.coco, truth.images)
    assert len(prints) == 2 and all(len(one) == 64 for both in prints.values() for one in both if one)


def test_polygons_crowds_and_empty_masks_are_understood(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    runs = {"size": [20, 30], "counts": [0, 20, 580]}
    rows = [
        {"id": 1, "image_id": 1, "category_id": 3, "segmentation": square, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 3, "segmentation": runs, "iscrowd": 1},
        {"id": 3, "image_id": 1, "category_id": 3, "segmentation": [], "iscrowd": 0},
    ]
    kinds = [{"id": 3, "frequency": "r"}]
    image = {"id": 1, "width": 30, "height": 20, "coco_url": "http://x/a.png"}
    (tmp_path / "t.json").write_text(
        json.dumps({"images": [image], "annotations": rows, "categories": kinds})
    )
    ((_, found),) = read_truths(index_truth(TruthSet("t", tmp_path / "t.json", tmp_path)))
    assert len(found.masks_NHW) == 1 and found.masks_NHW[0].sum() == 100
    assert found.crowd_HW is not None and found.crowd_HW[:, 0].all() and found.crowd_HW.sum() == 20
    assert found.frequency_N == ("r",) and found.categories() == (3,)


def test_pictures_are_found_by_the_rule_and_what_is_no_mask_is_counted(
    segmenter: Segmenter, truth: TruthSet, tmp_path: Path
) -> None:
    data = json.loads(truth.coco.read_text())
    (truth.images / "sub").mkdir()
    (truth.images / "50.jpg").rename(truth.images / "sub" / "50.jpg")
    data["images"][0]["file_name"] = "C:\\sub\\..\\sub\\50.jpg".removeprefix("C:")
    data["images"][1]["file_name"] = "images/51.jpg"
    data["images"][1]["id"] = "second"
    for row in data["annotations"][3:]:
        row |= {"image_id": "second", "category_id": "block"}
    data["annotations"][0]["segmentation"] = [[0, 0, 1e9, 0, 1e9, 1e9]]
    data["annotations"].append({"id": 99, "image_id": "nowhere"})
    truth.coco.write_text(json.dumps({**data, "categories": [{"id": 1, "name": "a"}]}))
    index = index_truth(truth)
    found = dict(read_truths(index))
    assert list(found) == [51, "second"]
    assert [(len(one.masks_NHW), one.category_N) for one in found.values()] == [(2, (1, 1)), (3, (2, 2, 2))]
    figures = evaluate(segmenter, [truth], QUICK).figures()
    assert figures["left_out"] == {truth.name: {"bad_polygon": 1, "unknown_image": 1}}
    assert figures["instances"] == 5


def test_a_detector_s_bad_boxes_are_left_out(truth: TruthSet, tmp_path: Path) -> None:
    good = {"image_id": 51, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}
    rows = [good, {**good, "bbox": [1, 1, 0, 5]}, {**good, "score": float("nan")}, {**good, "category_id": 8}]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    index = index_truth(dataclasses.replace(truth, boxes=tmp_path / "boxes.json"))
    assert index.boxes[51].category_N == (1, 8)
    assert index.left_out.left_out().counts == {"bad_box": 1, "bad_score": 1}
    (tmp_path / "boxes.json").write_text("{}")
    with pytest.raises(InputError, match="it is no JSON list"):
        index_truth(dataclasses.replace(truth, boxes=tmp_path / "boxes.json"))


def test_edges_against_matlab_s_files(segmenter: Segmenter, tmp_path: Path) -> None:
    image = np.zeros((128, 160, 3), np.uint8)
    image[:, 80:] = 255
    Image.fromarray(image).save(tmp_path / "1.png")
    edge = np.zeros((128, 160), np.uint8)
    edge[:, 80] = 1
    cell = np.empty((1, 1), object)
    cell[0, 0] = {"Boundaries": edge, "Segmentation": edge}
    savemat(tmp_path / "1.mat", {"groundTruth": cell})
    quick = dataclasses.replace(QUICK, edge_grid=3)
    found = evaluate(segmenter, [], quick, bsds=(tmp_path, tmp_path)).figures()["edges"]
    assert set(found) == {"model", "sobel", "canny"}
    assert found["sobel"]["ods"] > 0.9 and found["canny"]["ods"] > 0.9
    with pytest.raises(InputError, match=r"holds no \.mat"):
        evaluate(segmenter, [], QUICK, bsds=(tmp_path, tmp_path / "none"))


def test_reviews_stay_as_they_are_and_train_most(segmenter: Segmenter, tmp_path: Path) -> None:
    first = publish_scenes(tmp_path, count=4)
    store = open_store(str(tmp_path / "dataset"))
    known = write_coco(tmp_path / "known", first=0, count=4)
    settings = LoopSettings(reviewed=1, most_clicks=2)

    def review(settings: LoopSettings) -> object:
        now = latest(store)
        assert now is not None
        return review_by_oracle(store, now, known, segmenter, settings, created_utc=NOW)

    one = review(settings)
    assert (one.images, one.new, one.objects) == (1, 1, 3)  # type: ignore[attr-defined]
    assert one.clicks >= 3 and one.drawn <= 3 and one.generation == first.number + 1  # type: ignore[attr-defined]
    assert dataclasses.replace(one, new=0) == dataclasses.replace(review(settings), new=0)  # type: ignore[type-var]
    two = review(dataclasses.replace(settings, reviewed=3, review_mode="semi"))
    assert (two.images, two.new, two.kept) == (3, 2, 6)  # type: ignore[attr-defined]

    found = latest(store)
    assert found is not None and summary(store, found).images == 3
    items = TrainStream(store, found, TrainSettings(reviewed_repeat=3, min_area_px=4)).items(Place())
    epoch = [next(items)[1] for _ in range(3 * 3 + 1)]
    assert sum(raw.reviewed for raw in epoch) == 9
    reviewed = next(raw for raw in epoch if raw.record.get("review", {}).get("mode") == "assisted").labelled()
    assert reviewed.complete and reviewed.by_person_N.all()

    against = audit(store, found)
    assert (against.images, against.masks, against.unjudged) == (3, 3, 6), "who merely kept judged nothing"
    whole = audit(store, found, known)
    assert whole.above_90 == whole.found_50 == 1.0 and whole.images == 4
    assert put_on_card(store, whole, created_utc=NOW).endswith("audits/000001.json")
    assert audits(store, found.number)[0]["above_90"] == 1.0
    same = agreement(store, load_generation(store, 1), found)
    assert (same.images, same.mean_iou, same.above_90) == (4, 1.0, 1.0)
    with pytest.raises(InputError, match="has 4 of the dataset's images, but 9"):
        review(LoopSettings(reviewed=9))


def test_charts_are_pictures_and_refuse_nothing_at_all() -> None:
    line = Line("a", ((0.0, 0.1), (1.0, float("nan")), (2.0, 0.5)))
    data = line_chart("t", [line, Line("flat", ((1.0, 0.2),))], x_label="x", y_label="y")
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (720, 440)
        assert len(image.getcolors(100_000) or ()) > 10
    with pytest.raises(ValueError, match="no point"):
        line_chart("t", [Line("a", ())], x_label="x", y_label="y")


def test_words_find_the_masks_of_their_names(tmp_path: Path) -> None:
    from maskmill.workers.measure.text_to_mask import _answers, _union_ious, text_to_mask
    from tests.workers.train.training_set import annotation, scene_of

    generation = publish_scenes(tmp_path, count=1)
    store, known = open_store(str(tmp_path / "dataset")), write_coco(tmp_path / "known", first=0, count=1)
    with pytest.raises(InputError, match="categories have no names"):
        text_to_mask(store, generation, known)
    data = json.loads(known.coco.read_text())
    known.coco.write_text(json.dumps({**data, "categories": [{"id": 1, "name": "Block"}]}))
    with pytest.raises(InputError, match="no image of generation 1 has labels"):
        text_to_mask(store, generation, known)
    truth = scene_of("0")
    named = ((0, "block", 0.9), (1, "BLOCK", 0.8), (2, "sky", 0.7))
    shapes = [annotation(mask).segmentation.to_coco() for mask in truth.masks_NHW]
    rows = [{"segmentation": shapes[i], "labels": [{"label": name, "score": s}]} for i, name, s in named]
    found = _answers({"annotations": rows}, {"block": 1})
    assert [(score, kind) for _, score, kind in found] == [(0.9, 1), (0.8, 1)]
    both = truth.masks_NHW[:2].any(axis=0).sum() / truth.masks_NHW.any(axis=0).sum()
    assert _union_ious(truth, found) == pytest.approx([both])
