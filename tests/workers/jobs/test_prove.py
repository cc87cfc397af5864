"""Both sides on the same pictures: masks held together, numbers that follow from one another."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import sam_model_registry

from maskmill.pipeline.prove import peers
from maskmill.pipeline.prove.peers import NoPeer, Peer, load_peer
from maskmill.pipeline.reference import adjust_heads
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.storage.errors import InputError
from maskmill.workers.jobs import prove as proving
from maskmill.workers.jobs.prove import Proof, prove
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.recipe import mask_settings

MASKS = dataclasses.replace(mask_settings("nano"), points_per_side=4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pieces of a photograph, and a file that is none."""
    import skimage.data

    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        piece = skimage.data.astronaut()[number * 60 : number * 60 + 180, 100:340]
        Image.fromarray(piece).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def run(photos: Path, **changes: object) -> Proof:
    given = {"ingest": IngestSettings(), "masks": MASKS, "segmenter": SegmenterSettings(device="cpu")}
    return prove([str(photos)], num_images=4, **{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def proof(photos: Path) -> Proof:
    return run(photos)


def test_nano_gives_the_public_generators_masks(proof: Proof) -> None:
    assert proof.is_same and proof.pairing is not None
    assert proof.pairing.masks_ours == proof.pairing.masks_reference > 3
    assert proof.theirs is not None and proof.theirs.name.startswith("segment_anything's")
    assert len(proof.pictures) == 3 and proof.skipped == (
        f"{Path(proof.pictures[0][0]).parent}/broken.jpg: not_an_image",
    )
    assert {(width, height) for _, width, height in proof.pictures} == {(240, 180)}


def test_its_numbers_follow_from_the_seconds(proof: Proof) -> None:
    assert proof.theirs is not None
    for side in (proof.ours, proof.theirs):
        assert len(side.seconds) == 3
        assert side.images_per_s == pytest.approx(3 / sum(side.seconds), rel=0.01)
        assert side.peak_bytes is not None and side.peak_bytes > 0
        assert side.gpu_busy is None or torch.cuda.is_available()
    ratios = [slow / fast for slow, fast in zip(proof.theirs.seconds, proof.ours.seconds, strict=True)]
    assert proof.speedup == pytest.approx(statistics.median(ratios), rel=0.02)
    spent = sum(proof.seconds_by_step.values())
    assert spent <= 1.05 * statistics.mean(proof.ours.seconds)
    assert proof.words_per_s == {} and proof.machine["torch"] == torch.__version__.partition("+")[0]


def test_other_masks_are_not_called_the_same(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def looser(segmenter: SegmenterSettings, masks: MaskSettings) -> Peer:
        return load_peer(segmenter, dataclasses.replace(masks, predicted_iou=masks.predicted_iou - 0.1))

    monkeypatch.setattr(proving, "load_peer", looser)
    proof = run(photos)
    assert proof.is_same is False and proof.pairing is not None and proof.pairing.only_reference


def test_a_family_without_a_peer_is_timed_alone(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> Peer:
        raise NoPeer("nobody knows this family")

    monkeypatch.setattr(proving, "load_peer", nobody)
    proof = run(photos)
    assert (proof.is_same, proof.theirs, proof.speedup, proof.pairing) == (None, None, None, None)
    assert proof.no_peer == "nobody knows this family" and proof.ours.images_per_s > 0


def test_sam2_without_its_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(b"not read")
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    settings = SegmenterSettings(model="sam2", weights=str(tmp_path / "sam2.1_hiera_tiny.pt"), device="cpu")
    with pytest.raises(NoPeer, match="the sam2 package isn't installed: SAM2_BUILD_CUDA=0 pip install"):
        load_peer(settings, MASKS)


def test_nothing_to_run_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"no image to run: .*not_an_image"):
        run(tmp_path)


def test_the_command_writes_one_json(photos: Path, tmp_path: Path) -> None:
    words = ["prove", "--images", str(photos), "--count", "1", "--set", "masks.points_per_side=3"]
    done = subprocess.run(
        [sys.executable, "-c", "from maskmill.flows.cli import main; main()", *words, "--out", "proof.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "proof.json").read_text())
    assert told["same"] is True and told["model"] == "nano" and told["masks"]["points_per_side"] == 3
    assert "The same masks" in done.stdout and f"{told['speedup']:g} times" in done.stdout
    assert told["pairing"]["pairs_equal"] == len(told["pairing"]["pair_ious"])


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_a_random_vit_b_gives_the_public_generators_masks(photos: Path, tmp_path: Path) -> None:
    """A real checkpoint file of segment_anything's, its heads adjusted so that masks pass."""
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]()
    adjust_heads(sam, np.asarray(Image.open(photos / "0.png").convert("RGB").resize((128, 128))))
    torch.save(sam.state_dict(), tmp_path / "vit_b.pth")
    segmenter = SegmenterSettings(model="vit_b", weights=str(tmp_path / "vit_b.pth"), device="cpu")
    proof = prove(
        [str(photos / "0.png")],
        ingest=IngestSettings(),
        masks=MaskSettings(points_per_side=3),
        segmenter=segmenter,
        num_images=1,
    )
    assert proof.is_same and proof.pairing is not None and proof.pairing.masks_ours > 0
    assert proof.speedup is not None and proof.speedup > 0
