"""`annotate`: pictures in, masks out, in this process; no dataset, Ray or Prefect.

Masks are those that `maskmill generate` makes of the same pixels with the same recipe and weights. Pictures
are decoded by the project's codec: upright, sRGB, RGB. They are not scaled down, as `generate` does with
those over a recipe's `max_shorter_side_px`: masks are of the picture's own size.

The last model is kept, so that a second call needn't load it again; an `Annotator` keeps its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskmill.masks import Masks
from maskmill.pipeline.annotation import AnnotatedImage, to_sa1b
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.segmenters import load_segmenter
from maskmill.storage.errors import InputError, ObjectNotFound
from maskmill.storage.stores.open import absolute_address, address_store, is_remote
from maskmill.workers.foreign.images.codec import DecodeError, decode_image, upright_pixels
from maskmill.workers.run.recipe import DEFAULT_RECIPE, mask_settings, segmenter_settings

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.pipeline.settings import MaskSettings, SegmenterSettings

Picture: TypeAlias = npt.NDArray[np.uint8] | str | os.PathLike[str] | Image.Image
"""uint8[H, W, 3] in RGB; a path or s3:// address of an image file; or Pillow's picture."""


class Annotator:
    """Annotates pictures with one model and one set of thresholds.

    Args:
        recipe: where settings come from: nano, fast or sa1b (`maskmill config list`).
        model: another than the recipe's, such as "vit_b"; see `maskmill models`.
        weights: a file, folder or hub id; nano's ship inside.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", "mps".
        masks: other values for settings of [masks], such as `{"points_per_side": 32}`.

    Attributes:
        mask_settings, segmenter_settings: as resolved.

    Raises:
        ValueError: an unknown recipe, model or setting, or a value out of range.
    """

    def __init__(
        self,
        *,
        recipe: str = DEFAULT_RECIPE,
        model: str | None = None,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        masks: Mapping[str, Any] | None = None,
    ) -> None:
        asked = {"model": model, "weights": None if weights is None else os.fspath(weights), "device": device}
        changes = {name: value for name, value in asked.items() if value is not None}
        self.mask_settings: MaskSettings = mask_settings(recipe, masks)
        self.segmenter_settings: SegmenterSettings = segmenter_settings(recipe, changes)

    @cached_property
    def _segmenter(self) -> Segmenter:
        return _loaded(self.segmenter_settings, _stamp(self.segmenter_settings.weights))

    @overload  # a str is a picture, never a sequence of them
    def __call__(self, image: Picture) -> Masks: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, image: Sequence[Picture]) -> list[Masks]: ...
    def __call__(self, image: Picture | Sequence[Picture]) -> Masks | list[Masks]:
        """Annotates a picture, or several.

        Args:
            image: see `Picture`; or a list of them, which are numbered from 1 in the records.

        Returns:
            The masks of the picture; of a list, a list in its order.

        Raises:
            InputError: something that is no picture, or a file that cannot be read as one; a ValueError. A
                list's arrays and paths are looked at before the first is annotated.
            WeightsError: weights that are missing, damaged or another model's; a ValueError.
        """
        several = isinstance(image, (list, tuple))
        pictures = list(cast("Sequence[Picture]", image)) if several else [cast("Picture", image)]
        for place, picture in enumerate(pictures):
            _check(picture, f"image {place + 1} of {len(pictures)}: " if several else "")
        found = list(self.each(pictures))
        return found if several else found[0]

    def each(self, images: Iterable[Picture]) -> Iterator[Masks]:
        """Annotates pictures as they come, one result after the other: for more than memory holds.

        Args:
            images: see `Picture`; read one by one. The model sees one at a time too, as `generate` does by
                default: on a CPU, batches would change last digits.

        Raises:
            InputError, WeightsError: as a call does, when the picture's turn comes.
        """
        stage = AutomaticMasks(self._segmenter, self.mask_settings)
        for number, picture in enumerate(images, start=1):
            (annotated,) = stage([_pixels(picture)])
            yield _masks(number, picture, annotated)


@overload  # as above
def annotate(  # type: ignore[overload-overlap]
    image: Picture,
    *,
    recipe: str = ...,
    model: str | None = ...,
    weights: str | os.PathLike[str] | None = ...,
    device: str | None = ...,
    masks: Mapping[str, Any] | None = ...,
) -> Masks:
    """Of one picture: its masks."""


@overload
def annotate(
    image: Sequence[Picture],
    *,
    recipe: str = ...,
    model: str | None = ...,
    weights: str | os.PathLike[str] | None = ...,
    device: str | None = ...,
    masks: Mapping[str, Any] | None = ...,
) -> list[Masks]:
    """Of a sequence: the masks of each."""


def annotate(
    image: Picture | Sequence[Picture],
    *,
    recipe: str = DEFAULT_RECIPE,
    model: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    masks: Mapping[str, Any] | None = None,
) -> Masks | list[Masks]:
    """The masks of a picture, or of each of a list.

    Args:
        image: a path, an array uint8[H, W, 3] in RGB, Pillow's picture, or a list of these.
        recipe, model, weights, device, masks: as `Annotator` has them.

    Returns:
        `Masks`; of a list, a list of them.

    Raises:
        ValueError: as `Annotator` and its call; names the input and the cure.
    """
    made = Annotator(recipe=recipe, model=model, weights=weights, device=device, masks=masks)
    return made(cast("Picture", image))


@lru_cache(maxsize=1)
def _loaded(settings: SegmenterSettings, stamp: object) -> Segmenter:
    """The model; `stamp` changes when its file does."""
    return load_segmenter(settings)


def _stamp(weights: str | None) -> tuple[int, int] | None:
    """Size and time of a weights file or folder; None for what is elsewhere."""
    path = Path(weights).expanduser() if weights is not None else None
    if path is None or not path.exists():
        return None
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _masks(number: int, picture: Picture, annotated: AnnotatedImage) -> Masks:
    """A result; of a file, the picture is read again when it is to be shown, so that a list stays small."""
    name = os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else f"image-{number}.jpg"
    record = to_sa1b(annotated, image_id=number, file_name=name)
    return Masks(record=record, picture=partial(_pixels, picture))


def _check(picture: object, where: str) -> None:
    """What can be said of a picture before it is decoded. Raises InputError."""
    if isinstance(picture, Image.Image):
        return
    if isinstance(picture, (str, os.PathLike)):
        _check_path(os.fspath(picture), where)
    elif isinstance(picture, np.ndarray):
        _check_array(picture, where)
    else:
        raise InputError(
            f"{where}something of type {type(picture).__name__} is no picture: give a path, a numpy array "
            "uint8[H, W, 3], Pillow's picture, or a list of these"
        )


def _check_array(pixels: npt.NDArray[Any], where: str) -> None:
    cure = ""
    if pixels.ndim == 2:
        cure = ": of a grey picture, np.stack([grey] * 3, axis=-1) is one"
    elif pixels.ndim == 4:
        cure = ": give a batch as a list of pictures, list(batch)"
    elif pixels.ndim == 3 and pixels.shape[2] == 4:
        cure = ": leave transparency out, image[..., :3]"
    elif pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        cure = ": channels come last, image.transpose(1, 2, 0)"
    elif pixels.dtype != np.uint8:
        cure = ": of floats from 0 to 1, (image * 255).round().astype(np.uint8) is one"
    elif pixels.ndim == 3 and pixels.shape[2] == 3 and 0 not in pixels.shape:
        return
    raise InputError(f"{where}an array {pixels.dtype}{list(pixels.shape)} is no picture uint8[H, W, 3]{cure}")


def _check_path(address: str, where: str) -> None:
    if "://" in address and not address.startswith("file://"):
        if not is_remote(address):
            raise InputError(f"{where}{address}: give a local path or s3://bucket/name, or download it first")
        return
    path = Path(absolute_address(address))
    if path.is_dir():
        raise InputError(
            f"{where}{address} is a folder: name its files, such as sorted(Path({address!r}).glob('*.jpg')), "
            "or use `maskmill generate`"
        )
    if not path.exists():
        raise InputError(f"{where}{address} does not exist: check the path")


def _pixels(picture: Picture) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3], upright. Raises InputError."""
    _check(picture, "")
    if isinstance(picture, np.ndarray):
        return picture
    name = os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else "the picture"
    try:
        if isinstance(picture, Image.Image):
            return upright_pixels(picture)
        return decode_image(_read(name))
    except DecodeError as exc:
        raise InputError(f"{name}: is no image that can be used ({exc})") from exc


def _read(address: str) -> bytes:
    """A file's bytes, from disk or S3. Raises InputError, and StorageError for a store that fails."""
    address = absolute_address(address)
    store, name = address_store(address)
    try:
        return store.read(name)
    except ObjectNotFound as exc:
        raise InputError(f"{address} does not exist: check the address") from exc
