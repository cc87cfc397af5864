"""A model's masks and pace on the user's own pictures and machine, beside its family's own code.

How it works: a few pictures are drawn and decoded as a run would, and each is annotated by both sides in
turn, ours first on one picture and last on the next, because a machine's speed drifts. Masks are paired by
IoU; what one side lacks is listed with its distance to the nearest threshold. Of the first picture peak
memory is measured. Then the words' stages, where models are set, run as a worker runs them.

What it does not know: the truth about the pictures, other machines, and how reading and writing overlap with
the model in a run (`generate --dry-run` estimates that).
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version

import torch

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.masks.automask import AutomaticMasks, warm_up
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.prove.pairs import Pairing, merge, pair_up
from maskmill.pipeline.prove.peers import NoPeer, Peer, load_peer
from maskmill.pipeline.prove.spent import Spent, timed, with_peak_bytes
from maskmill.pipeline.segmenters import load_segmenter, weights_identity
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.storage.errors import InputError
from maskmill.workers.foreign.images.codec import DecodeError, normalise
from maskmill.workers.jobs.draw_inputs import sample_inputs
from maskmill.workers.jobs.estimate import estimate_inputs
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import RunSpec

WORD_STEPS = ("captions", "labels", "names")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One side's pace.

    Attributes:
        name: whose code.
        dtype: it computed in.
        images_per_s: over all pictures.
        seconds: of each picture.
        cpu_seconds: of the process, over all pictures.
        peak_bytes: of the first picture; None where the system doesn't tell.
        gpu_busy: share of its time in which the GPU worked; None without one.
    """

    name: str
    dtype: str
    images_per_s: float
    seconds: tuple[float, ...]
    cpu_seconds: float
    peak_bytes: int | None
    gpu_busy: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proof:
    """What came out.

    Attributes:
        model, weights_sha256: what was run.
        masks: its settings.
        pictures: (source, width, height) of each.
        skipped: "source: reason" of pictures that can't be run.
        ours, theirs: both sides; `theirs` is None where `no_peer` says why.
        speedup: median over the pictures of their seconds by ours.
        pairing: the masks, over all pictures; None without a peer.
        words_per_s: images a second of each stage of words that is set.
        seconds_by_step: ours, a picture.
        machine: what it ran on.
    """

    model: str
    weights_sha256: str
    masks: MaskSettings
    pictures: tuple[tuple[str, int, int], ...]
    skipped: tuple[str, ...]
    ours: Side
    theirs: Side | None
    no_peer: str
    speedup: float | None
    pairing: Pairing | None
    words_per_s: dict[str, float]
    seconds_by_step: dict[str, float]
    machine: dict[str, str]

    @property
    def is_same(self) -> bool | None:
        """Whether both sides found the same masks; None without a peer."""
        return None if self.pairing is None else self.pairing.is_same


def prove(
    inputs: Sequence[str],
    *,
    ingest: IngestSettings,
    masks: MaskSettings,
    segmenter: SegmenterSettings,
    words: RunSpec | None = None,
    num_images: int = 6,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Runs both sides on a sample of the inputs.

    Args:
        inputs: as `generate` takes them.
        ingest, masks, segmenter: the run's settings.
        words: a run with stages of words, to time them too; None times none.
        num_images: pictures to run, drawn evenly.
        seed: draws which.
        progress: called with (pictures done, pictures to do).

    Raises:
        InputError: an input that cannot be listed, or no picture that can be run.
        WeightsError: the weights are missing or damaged.
    """
    pictures, skipped = _decoded(inputs, ingest, num_images, seed)
    stage = AutomaticMasks(load_segmenter(segmenter), masks)
    warm_up()
    stage([pictures[0][1][:64, :64].copy()])  # compiles loops, fills caches
    peer, no_peer = _peer(segmenter, masks)
    runs = _Runs(stage, peer)
    for number, (_, pixels) in enumerate(pictures):
        runs.take(pixels, ours_first=number % 2 == 0, with_memory=number == 0)
        progress(number + 1, len(pictures))
    pairs = zip(runs.ours, runs.theirs, strict=True) if peer else ()
    return Proof(
        model=segmenter.model,
        weights_sha256=weights_identity(segmenter),
        masks=masks,
        pictures=tuple((source, pixels.shape[1], pixels.shape[0]) for source, pixels in pictures),
        skipped=skipped,
        ours=runs.side("ours", "maskmill", segmenter.dtype),
        theirs=runs.side("theirs", peer.name, "float32") if peer else None,
        no_peer=no_peer,
        speedup=_speedup(runs.spent) if peer else None,
        pairing=merge([pair_up(mine, other, masks) for mine, other in pairs]) if peer else None,
        words_per_s=_words(inputs, words, len(pictures), seed),
        seconds_by_step=_mean_steps(runs.ours),
        machine=_machine(segmenter),
    )


class _Runs:
    """Both sides' results, picture by picture."""

    def __init__(self, stage: AutomaticMasks, peer: Peer | None) -> None:
        self.ours: list[AnnotatedImage] = []
        self.theirs: list[AnnotatedImage] = []
        self.spent: dict[str, list[Spent]] = {"ours": [], "theirs": []}
        self._stage, self._peer = stage, peer
        self._peak: dict[str, int | None] = {}
        self._busy: dict[str, list[float]] = {"ours": [], "theirs": []}

    def take(self, pixels: Pixels, *, ours_first: bool, with_memory: bool) -> None:
        """One picture by both sides."""
        sides = ["ours", "theirs"] if self._peer else ["ours"]
        for name in sides if ours_first else reversed(sides):
            work = partial(self._work, name, pixels)
            with _gpu_watched() as busy:
                if with_memory:
                    (image, spent), self._peak[name] = _peak(partial(timed, work))
                else:
                    image, spent = timed(work)
            (self.ours if name == "ours" else self.theirs).append(image)
            self.spent[name].append(spent)
            self._busy[name] += busy

    def side(self, key: str, name: str, dtype: str) -> Side:
        """One side's pace over all pictures."""
        seconds = tuple(round(one.wall_s, 4) for one in self.spent[key])
        busy = self._busy[key]
        return Side(
            name=name,
            dtype=dtype,
            images_per_s=round(len(seconds) / sum(one.wall_s for one in self.spent[key]), 4),
            seconds=seconds,
            cpu_seconds=round(sum(one.cpu_s for one in self.spent[key]), 4),
            peak_bytes=self._peak.get(key),
            gpu_busy=round(statistics.mean(busy) / 100, 3) if busy else None,
        )

    def _work(self, name: str, pixels: Pixels) -> AnnotatedImage:
        if name == "ours":
            return self._stage([pixels])[0]
        assert self._peer is not None
        return self._peer.generate(pixels)


def _peer(segmenter: SegmenterSettings, masks: MaskSettings) -> tuple[Peer | None, str]:
    try:
        return load_peer(segmenter, masks), ""
    except NoPeer as exc:
        return None, str(exc)


def _decoded(
    inputs: Sequence[str], ingest: IngestSettings, num_images: int, seed: int
) -> tuple[list[tuple[str, Pixels]], tuple[str, ...]]:
    """The drawn pictures as a run decodes them. Raises InputError where none can be."""
    decoded, skipped = [], []
    for image in sample_inputs(inputs, num_images, seed=seed, ingest=ingest).images:
        try:
            decoded.append((image.source, normalise(image.data, ingest).pixels_HWC))
        except DecodeError as error:
            skipped.append(f"{image.source}: {error.reason}")
    if not decoded:
        raise InputError(f"no image to run: {'; '.join(skipped) or 'the inputs hold none'}")
    return decoded, tuple(skipped)


def _words(inputs: Sequence[str], spec: RunSpec | None, num_images: int, seed: int) -> dict[str, float]:
    """Images a second of each stage of words, timed as a worker runs it."""
    if spec is None or not set(spec.fingerprints) & set(WORD_STEPS):
        return {}
    with tempfile.TemporaryDirectory(prefix="maskmill-prove-") as folder:
        apart = dataclasses.replace(spec, root=folder)
        found = estimate_inputs(inputs, apart, num_workers=1, num_images=num_images, seed=seed)
    return {
        step: round(1 / seconds, 4)
        for step, seconds in found.seconds_by_step.items()
        if step in WORD_STEPS and seconds
    }


def _speedup(spent: dict[str, list[Spent]]) -> float:
    pairs = zip(spent["theirs"], spent["ours"], strict=True)
    return round(statistics.median(slow.wall_s / fast.wall_s for slow, fast in pairs), 2)


def _mean_steps(images: Sequence[AnnotatedImage]) -> dict[str, float]:
    steps = sorted({step for image in images for step in image.seconds_by_step})
    return {
        step: round(statistics.mean(image.seconds_by_step.get(step, 0.0) for image in images), 4)
        for step in steps
    }


def _peak(
    work: Callable[[], tuple[AnnotatedImage, Spent]],
) -> tuple[tuple[AnnotatedImage, Spent], int | None]:
    try:
        return with_peak_bytes(work)
    except OSError:  # /proc doesn't tell, or may not be written
        return work(), None


@contextmanager
def _gpu_watched() -> Iterator[list[float]]:
    """The GPU's busy percentages while the block runs, ten a second, by the driver's own tool; none without
    one."""
    found: list[float] = []
    program = shutil.which("nvidia-smi")
    if program is None or not torch.cuda.is_available():
        yield found
        return
    words = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]
    process = subprocess.Popen([*words, "--id=0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        """Takes the percentages as they come."""
        found.extend(float(line) for line in lines if line.strip().isdecimal())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield found
    finally:
        process.terminate()
        process.wait()
        reader.join()


def _machine(segmenter: SegmenterSettings) -> dict[str, str]:
    device = choose_device(segmenter.device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": _cpu_name(),
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("maskmill", "torch", "numpy")},
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a file of the system's
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
