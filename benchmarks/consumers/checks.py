"""The checks, in an environment with the tools, without maskmill: `checks.py NAME FOLDER` prints a row.

A check reads an export by its tool's own reader, and compares masks with expected.json; it raises where they
differ.
"""

# mypy: ignore-errors
# The tools have no types, and are not installed where this is checked.

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask


def expected(folder):
    """Masks by image id and mask id: bool[H, W]."""
    found = json.loads((folder / "expected.json").read_text())
    return {
        int(image): {int(one): coco_mask.decode(rle).astype(bool) for one, rle in masks.items()}
        for image, masks in found.items()
    }


def quiet(call):
    """What a call gives, without its chatter."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call()


def lvis(folder):
    """LVIS's own reader: `LVIS(file)`, `ann_to_mask`."""
    from lvis import LVIS

    read, masks = LVIS(str(folder / "lvis/annotations.json")), 0
    for image, wanted in expected(folder).items():
        for row in read.load_anns(read.get_ann_ids(img_ids=[image])):
            assert (read.ann_to_mask(row).astype(bool) == wanted.pop(row["id"])).all()
            masks += 1
        assert not wanted
    return "lvis", "`LVIS(...).ann_to_mask`", f"{masks} masks equal"


def supervision_coco(folder):
    """`DetectionDataset.from_coco` of the run lengths."""
    import supervision

    read = supervision.DetectionDataset.from_coco(
        str(folder / "coco/images"), str(folder / "coco/annotations.json"), force_masks=True
    )
    return "supervision", "`DetectionDataset.from_coco`", f"{_detections(read, folder, 1.0)[0]} masks equal"


def supervision_yolo(folder):
    """`DetectionDataset.from_yolo`: polygons, filled by OpenCV."""
    import supervision

    whole, lowest = 0, 1.0
    for split in ("train", "val", "test"):
        if (folder / f"yolo/images/{split}").exists():
            read = supervision.DetectionDataset.from_yolo(
                str(folder / f"yolo/images/{split}"),
                str(folder / f"yolo/labels/{split}"),
                str(folder / "yolo/data.yaml"),
                force_masks=True,
            )
            masks, least = _detections(read, folder, 0.7)
            whole, lowest = whole + masks, min(lowest, least)
    return "supervision", "`DetectionDataset.from_yolo`, its splits", f"{whole} masks, IoU from {lowest:.2f}"


def _detections(read, folder, least):
    """How many masks were read, and the lowest IoU with ours."""
    wanted, masks, lowest = expected(folder), 0, 1.0
    for path, _, found in read:
        ours = list(wanted[int(Path(path).stem[3:])].values())
        assert len(found) == len(ours), f"{path}: {len(found)} of {len(ours)} masks"
        for one in found.mask if len(found) else ():
            best = max((one & other).sum() / (one | other).sum() for other in ours)
            assert best >= least, f"{path}: IoU {best}"
            masks, lowest = masks + 1, min(lowest, float(best))
    return masks, lowest


def ultralytics(folder):
    """The trainer's own check of a label file, and its masks of polygons."""
    from ultralytics.data.utils import polygon2mask, verify_image_label

    wanted, masks, lowest = expected(folder), 0, 1.0
    for image in (folder / "yolo/images").rglob("*.jpg"):
        label = folder / "yolo/labels" / image.parent.name / f"{image.stem}.txt"
        got = verify_image_label((str(image), str(label), "", False, 1, 0, 0, False))
        _, boxes, shape, segments, _, missing, _, empty, corrupt, message = got
        assert not (missing or corrupt), message
        ours = list(wanted[int(image.stem[3:])].values())
        assert len(boxes) == len(segments) == len(ours) or (empty and not ours)
        for segment in segments:
            points = (segment * (shape[1], shape[0])).reshape(1, -1)
            drawn = polygon2mask(shape, points).astype(bool)
            best = max((drawn & other).sum() / (drawn | other).sum() for other in ours)
            assert best > 0.85, f"{image.name}: IoU {best}"
            masks, lowest = masks + 1, min(lowest, float(best))
    return "ultralytics", "`verify_image_label`, `polygon2mask`", f"{masks} masks, IoU from {lowest:.2f}"


def label_studio_converter(folder):
    """The brush's run lengths by the converter's own decoder."""
    from label_studio_converter import brush

    return "label-studio-converter", "`brush.decode_rle` of predictions", _brushes(folder, brush)


def label_studio_sdk(folder):
    """The same by the SDK's converter, and its importer of COCO on our polygons."""
    from label_studio_sdk.converter import brush
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    told, out = _brushes(folder, brush), folder / "coco_as_tasks.json"
    quiet(lambda: convert_coco_to_ls(str(folder / "coco_polygons/annotations.json"), str(out)))
    tasks = json.loads(out.read_text())
    masks = sum(
        len(one["result"]) for task in tasks for one in task.get("annotations", task.get("predictions"))
    )
    outlines = sum(
        len(row["segmentation"])
        for row in json.loads((folder / "coco_polygons/annotations.json").read_text())["annotations"]
    )
    assert masks >= outlines, f"{masks} regions of {outlines} outlines"
    return (
        "label-studio-sdk",
        "`brush.decode_rle`; `convert_coco_to_ls` of polygons",
        f"{told}; {masks} regions",
    )


def _brushes(folder, brush):
    wanted, masks = expected(folder), 0
    for task in json.loads((folder / "label_studio/tasks.json").read_text()):
        ours = wanted[int(Path(task["data"]["image"]).stem[3:])]
        for region in task["predictions"][0]["result"]:
            values = quiet(lambda region=region: brush.decode_rle(region["value"]["rle"]))
            shape = (region["original_height"], region["original_width"], 4)
            assert (values.reshape(shape)[:, :, 3] > 0).tolist() == ours[int(region["id"][1:])].tolist()
            masks += 1
    return f"{masks} masks equal"


def faster_coco_eval(folder):
    """COCOeval's numbers by both, on results that are shifted truths."""
    from faster_coco_eval import COCO as Faster
    from faster_coco_eval import COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = folder / "coco/annotations.json"
    truth, draw = json.loads(path.read_text()), np.random.default_rng(0)
    results = []
    for row in truth["annotations"]:
        moved = np.roll(coco_mask.decode(row["segmentation"]), int(draw.integers(0, 6)), axis=1)
        rle = coco_mask.encode(np.asfortranarray(moved))
        score = float(draw.random())
        told = {"image_id": row["image_id"], "category_id": row["category_id"], "score": score}
        results.append({**told, "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}})

    def stats(kind, evaluator):
        annotations = kind(str(path))
        run = evaluator(annotations, annotations.loadRes(json.loads(json.dumps(results))), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
        return np.array(run.stats[:12], np.float64)

    theirs = quiet(lambda: stats(Faster, COCOeval_faster))
    reference = quiet(lambda: stats(COCO, COCOeval))
    assert np.allclose(theirs, reference, atol=1e-9), f"{theirs} and {reference}"
    return (
        "faster-coco-eval",
        "`COCOeval_faster` beside `COCOeval`",
        f"12 numbers equal, AP {reference[0]:.4f}",
    )


def mlcroissant(folder):
    """Croissant of a pushed dataset: no errors, the record sets of its splits."""
    import mlcroissant as croissant

    read = croissant.Dataset(jsonld=str(folder / "hf/croissant.json"))
    issues = read.metadata.ctx.issues
    assert not issues.errors, issues.report()
    names = [one.name for one in read.metadata.record_sets]
    assert len(names) > 1
    return "mlcroissant", "`Dataset(jsonld=...)` of a pushed dataset", f"no errors; {', '.join(names)}"


CHECKS = (
    lvis,
    supervision_coco,
    supervision_yolo,
    ultralytics,
    label_studio_converter,
    label_studio_sdk,
    faster_coco_eval,
    mlcroissant,
)


def main():
    """One check, or the names of all."""
    if sys.argv[1] == "--list":
        print(*(check.__name__ for check in CHECKS))
        return
    check = next(one for one in CHECKS if one.__name__ == sys.argv[1])
    try:
        name, read, found = check(Path(sys.argv[2]))
    except ModuleNotFoundError as exc:
        print(f"| {check.__name__} | | | not installed here ({exc.name}) |")
        return
    print(f"| {name} | {importlib.metadata.version(name)} | {read} | {found} |")


if __name__ == "__main__":
    main()
