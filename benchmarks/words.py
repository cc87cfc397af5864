"""Captions, labels and names beside transformers' own code one image at a time: equal, and how much sooner.

    python -m benchmarks.words --kind captions,labels,labels_lvis,names --count 32 --images FOLDER --runs 3

Random weights of full size (words_models.py); the peer takes one image at a time, ours a batch:

* captions: BLIP-large; the peer is its processor and `generate`, 3 beams, 5 to 20 tokens.
* labels: Grounding DINO-base with COCO's 80 names as one text; the peer is its processor, model and
  post-processing. (transformers' pipeline would make a pass for each single name.) Ours keeps the text's
  features.
* labels_lvis: LVIS's 1,203 names, some texts of 256 tokens, each a pass of the peer's whole model; ours
  encodes an image once for all of them.
* names: CLIP-B/16, LVIS's names; the peer is the pipeline `zero-shot-image-classification`, which encodes
  the names for each image; ours keeps their features.

Rounds are paired, the peer first; the ratios' median is told by wall and by CPU time, and how many images'
results are equal: texts; boxes within a thousandth of the image's longer side, with their names; the best
five names. `passes` are the encoders' rows an image. `host_ms` is its time in the processors (resizing,
tokens), which no device shortens. `--dtype bfloat16` is ours alone; the peer stays in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from PIL import Image

from benchmarks.gpu.clock import wait
from benchmarks.gpu.whole import decoded, photographs
from benchmarks.words_models import blip, clip, grounding_dino
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.settings.words import CaptionSettings, LabelSettings
from maskmill.pipeline.words.caption import Subject
from maskmill.pipeline.words.captioners.blip import BlipCaptioner
from maskmill.pipeline.words.clip import Namer
from maskmill.pipeline.words.detectors.base import Detections
from maskmill.pipeline.words.detectors.grounding_dino import MAX_PHRASE_CHARS, GroundingDino
from maskmill.pipeline.words.text import clean_text
from maskmill.pipeline.words.vocabulary import load_vocabulary

KINDS = ("captions", "labels", "labels_lvis", "names")
BATCHES = {"captions": 8, "labels": 4, "labels_lvis": 1, "names": 32}
"""Images that go through together, as the settings of the stages have them."""

KEPT_BOXES = 20


class Pair(NamedTuple):
    """Both sides of a kind, and what tells whether one image's results are equal.

    Attributes:
        peer: one image's result.
        ours: a batch's.
        equal: of an image's two results.
        prepare: the host's part of one image.
        encoders: whose rows are counted, by name.
    """

    peer: Callable[[Pixels], Any]
    ours: Callable[[Sequence[Pixels]], Sequence[Any]]
    equal: Callable[[Any, Any, Pixels], bool]
    prepare: Callable[[Pixels], object]
    encoders: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparisons and prints a line of JSON for each kind."""
    parser = argparse.ArgumentParser(prog="benchmarks.words")
    parser.add_argument("--kind", default=",".join(KINDS), help="one or several by comma")
    parser.add_argument("--images", type=Path, help="folder of photographs; else made ones of 640x480")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3, help="rounds; each takes all images")
    parser.add_argument("--batch", type=int, help="images together, else the stage's own setting")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tiny", action="store_true", help="narrow models: what the host alone takes")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    images = _images(options.images, options.count)
    for kind in options.kind.split(","):
        batch = options.batch or BATCHES[kind]
        device = torch.device(options.device)
        found = compare(
            kind, images, device, batch=batch, runs=options.runs, tiny=options.tiny, dtype=options.dtype
        )
        print(json.dumps(found))
        sys.stdout.flush()


@torch.inference_mode()
def compare(
    kind: str,
    images: Sequence[Pixels],
    device: torch.device,
    *,
    batch: int,
    runs: int = 1,
    tiny: bool = False,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Rounds of a kind: seconds, ratios, passes, and how many images' results are equal.

    Args:
        kind: of KINDS.
        images: uint8[H, W, 3] each.
        device: of both sides.
        batch: images that ours takes together.
        runs: rounds.
        tiny: narrow models.
        dtype: of ours.
    """
    pair = PAIRS[kind](device, tiny, dtype, images[0])
    pair.peer(images[0])
    pair.ours(images[:batch])
    rows = _counted(pair.encoders)
    spent: list[tuple[_Spent, _Spent]] = []
    for _ in range(runs):
        theirs, peer_spent = _timed(lambda: [pair.peer(image) for image in images], device)
        for count in rows.values():
            count[0] = 0
        ours, our_spent = _timed(
            lambda: [
                one for at in range(0, len(images), batch) for one in pair.ours(images[at : at + batch])
            ],
            device,
        )
        spent.append((peer_spent, our_spent))
    host = [_timed(partial(pair.prepare, image), device)[1].wall_s for image in images[:8]]
    return {
        "kind": kind,
        "images": len(images),
        "batch": batch,
        "dtype": dtype,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "speedup": _median(peer.wall_s / own.wall_s for peer, own in spent),
        "speedup_cpu": _median(peer.cpu_s / own.cpu_s for peer, own in spent),
        "images_a_second_peer": _median(len(images) / peer.wall_s for peer, _ in spent),
        "images_a_second": _median(len(images) / own.wall_s for _, own in spent),
        "equal": sum(pair.equal(*three) for three in zip(theirs, ours, images, strict=True)),
        "passes_an_image": {name: round(count[0] / len(images), 3) for name, count in rows.items()},
        "host_ms": round(1e3 * statistics.median(host), 2),
    }


def captions(device: torch.device, tiny: bool, dtype: str, _: Pixels) -> Pair:
    """BLIP-large, beams."""
    loaded = blip(device, tiny=tiny)
    own = loaded if dtype == "float32" else blip(device, tiny=tiny)
    settings = CaptionSettings(model="random", strategy="beam", device=str(device), dtype=dtype)
    captioner = BlipCaptioner(own.model.to(getattr(torch, dtype)), own.processor, settings)
    limits = {"min_new_tokens": settings.min_tokens, "max_new_tokens": settings.max_tokens}

    def peer(image: Pixels) -> str:
        """As its model card has it, with beams."""
        inputs = loaded.processor(images=Image.fromarray(image), return_tensors="pt").to(device)
        tokens = loaded.model.generate(**inputs, num_beams=settings.num_beams, do_sample=False, **limits)
        return str(loaded.processor.batch_decode(tokens, skip_special_tokens=True)[0])

    def ours(images: Sequence[Pixels]) -> list[str]:
        """The stage's."""
        found = captioner.captions([Subject(str(place), image) for place, image in enumerate(images)])
        return [texts[0] for texts in found]

    def prepare(image: Pixels) -> object:
        """Pixels."""
        return loaded.processor(images=Image.fromarray(image), return_tensors="pt")

    encoders = {"image": own.model.vision_model.encoder, "text": own.model.text_decoder.bert.encoder}
    return Pair(peer, ours, lambda theirs, text, _: bool(theirs == text), prepare, encoders)


def labels(device: torch.device, tiny: bool, dtype: str, first: Pixels, *, vocabulary: str = "coco") -> Pair:
    """Grounding DINO-base; some twenty boxes of the first image pass."""
    loaded, own = (grounding_dino(device, tiny=tiny) for _ in range(2))
    names = load_vocabulary(vocabulary)

    def run(image: Pixels, text: str) -> tuple[Any, Any]:
        """A pass of the whole model."""
        inputs = loaded.processor(images=Image.fromarray(image), text=text, return_tensors="pt").to(device)
        return inputs, loaded.model(**inputs)

    best_N = run(first, f"{'. '.join(names[:40])}.")[1].logits.sigmoid().amax(dim=-1)[0].sort(descending=True)
    threshold = float(best_N.values[KEPT_BOXES : KEPT_BOXES + 2].mean())
    settings = LabelSettings(
        model="random", box_threshold=threshold, text_threshold=threshold, device=str(device), dtype=dtype
    )
    detector = GroundingDino(own.model.to(getattr(torch, dtype)), own.processor, settings)
    queries = detector.phrase_queries(names)

    def peer(image: Pixels) -> list[dict[str, Any]]:
        """As its model card has it, a pass a text."""
        found = []
        for query in queries:
            inputs, outputs = run(image, query.text)
            found += loaded.processor.post_process_grounded_object_detection(
                outputs,
                inputs["input_ids"],
                threshold=threshold,
                text_threshold=threshold,
                target_sizes=[image.shape[:2]],
            )
        return found

    def ours(images: Sequence[Pixels]) -> list[list[Detections]]:
        """The detector's."""
        fresh = [image.copy() for image in images]  # the detector knows an image that it has just seen
        found = iter(detector.detect([(image, query) for image in fresh for query in queries]))
        return [[next(found) for _ in queries] for _ in images]

    def prepare(image: Pixels) -> object:
        """Pixels and tokens."""
        return loaded.processor(images=Image.fromarray(image), text=queries[0].text, return_tensors="pt")

    inner = own.model.model
    encoders = {"image": inner.backbone.conv_encoder.encoder, "text": inner.text_backbone.encoder}
    return Pair(peer, ours, _same_boxes, prepare, encoders)


def _same_boxes(theirs: Sequence[Any], ours: Sequence[Detections], image: Pixels) -> bool:
    """Each text's boxes within a thousandth of the image's longer side, and the words marked in it."""
    for own, found in zip(theirs, ours, strict=True):
        spoken = [
            clean_text(text.replace("[SEP]", " ").replace("[CLS]", " "), max_chars=MAX_PHRASE_CHARS).strip(
                " ."
            )
            for text in own["text_labels"]
        ]
        boxes = own["boxes"].cpu().numpy()
        if list(found.phrases) != spoken or boxes.shape != found.boxes_xyxy_N4.shape:
            return False
        if len(boxes) and np.abs(boxes - found.boxes_xyxy_N4).max() > max(image.shape) / 1000:
            return False
    return True


def names(device: torch.device, tiny: bool, dtype: str, _: Pixels) -> Pair:
    """CLIP-B/16 on whole images; the stage names masks by the same two calls."""
    loaded = clip(device, tiny=tiny)
    own = loaded if dtype == "float32" else clip(device, tiny=tiny)
    words, template = load_vocabulary("lvis"), "a photo of a {}."
    pipeline: Any = transformers.pipeline(
        "zero-shot-image-classification",
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        image_processor=loaded.processor,
        device=device,
    )
    namer = Namer(own.model.to(getattr(torch, dtype)), own.processor, own.tokenizer, device=str(device))
    words_WD = namer.text_features(words, [template])

    def peer(image: Pixels) -> list[str]:
        """The best five."""
        found = pipeline(Image.fromarray(image), candidate_labels=list(words), hypothesis_template=template)
        return [one["label"] for one in found[:5]]

    def ours(images: Sequence[Pixels]) -> list[list[str]]:
        """The best five of each."""
        scores_NW = namer.scores(namer.image_features(images), words_WD)[1]
        return [[words[place] for place in row] for row in scores_NW.topk(5, dim=1).indices.tolist()]

    def prepare(image: Pixels) -> object:
        """Pixels; the names' tokens are made once a run."""
        return loaded.processor(images=Image.fromarray(image), return_tensors="pt")

    encoders = {"image": own.model.vision_model.encoder, "text": own.model.text_model.encoder}
    return Pair(peer, ours, lambda theirs, found, _: bool(theirs == found), prepare, encoders)


PAIRS: dict[str, Callable[[torch.device, bool, str, Pixels], Pair]] = {
    "captions": captions,
    "labels": labels,
    "labels_lvis": partial(labels, vocabulary="lvis"),
    "names": names,
}


def _images(folder: Path | None, count: int) -> list[Pixels]:
    """Photographs of a folder in the order of their names, or made ones."""
    if folder is None:
        return [decoded(data) for data in photographs(count, 640, 480)]
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [decoded(path.read_bytes()) for path in paths[:count]]


def _counted(encoders: dict[str, Any]) -> dict[str, list[int]]:
    """A count of rows by encoder, kept by hooks from now on."""
    counts: dict[str, list[int]] = {name: [0] for name in encoders}

    def count(total: list[int], given: Sequence[Any], named: dict[str, Any]) -> None:
        """Of the first tensor's rows."""
        first = next(value for value in [*given, *named.values()] if isinstance(value, torch.Tensor))
        total[0] += len(first)

    for name, module in encoders.items():
        module.register_forward_pre_hook(
            lambda _, given, named, total=counts[name]: count(total, given, named), with_kwargs=True
        )
    return counts


class _Spent(NamedTuple):
    """Of one side in a round."""

    wall_s: float
    cpu_s: float


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, _Spent]:
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    result = work()
    wait(device)
    return result, _Spent(time.perf_counter() - start_s, time.process_time() - start_cpu_s)


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


if __name__ == "__main__":
    main()
