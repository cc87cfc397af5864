"""Bytes to arrays and back: the only bridge between the two.

Everything that is stored as an image is a JPEG that *conforms*: 8 bit, RGB or grey, upright (no EXIF
rotation), sRGB, shorter side within the setting. A JPEG that already conforms is kept byte for byte; all else
is decoded, turned, converted, scaled down and encoded once. What cannot be used raises `DecodeError` with a
reason to count by:

    empty_file          no bytes
    not_an_image        no known image format, or a header that makes no sense
    truncated           the header is fine, the pixels are not all there
    damaged             the header is fine, the pixels cannot be decoded
    heic                a HEIC picture, as phones take them: convert it
    animated            more than one frame or page; a page of a TIFF that declares itself a smaller copy
                        or a mask (NewSubfileType) is none
    too_many_pixels     more than `max_pixels` by its header; nothing was decoded
    too_small           a side under `min_side_px`
    too_long            a side that JPEG cannot hold
    unsupported_pixels  float or 32-bit integer pixels with the full range, LAB

Choices: transparency is laid on white; more than 8 bits are scaled as `range` says (deep_pixels.py); a colour
profile that changes anything is applied, and one that doesn't fit its image is dropped, as `converted` says
(profiles.py); of a phone's JPEG with several pictures inside (MPO) the first counts. A JPEG that lacks only
its end marker is whole, and gets it back. `IngestSettings.rules` 1 reads as before: see there.

Doesn't know files, shards or settings of other stages. Shape suffixes: H rows, W columns, C channels.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

from maskmill.storage.plan.endings import IMAGE_FORMATS
from maskmill.workers.foreign.images import deep_pixels, profiles, unended
from maskmill.workers.foreign.images.strangers import told_of
from maskmill.workers.run.ingest_settings import (
    FULL,
    INGEST_REVISION,
    PILLOW_MAX_PIXELS,
    IngestSettings,
)
from maskmill.workers.run.reject_reasons import Header, refused

__all__ = [
    "FORMATS",
    "DecodeError",
    "IngestSettings",
    "NormalisedImage",
    "decode_image",
    "normalise",
    "upright_pixels",
]

FORMATS = tuple(IMAGE_FORMATS)
"""What is opened; MPO comes by JPEG. Formats that run other programs (EPS) stay closed."""

END_ADDED = "end_added"

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _REDUCED = 254, 255, 2

_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's readers raise on broken input; MemoryError and our own mistakes are not among them.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
)


class DecodeError(Exception):
    """These bytes are no image we can use. `reason` is a short word to count by, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, eq=False)
class NormalisedImage:
    """An image as it is stored.

    Attributes:
        jpeg: bytes that conform.
        width, height: of the stored image in px.
        converted: what was done, words joined by "+" ("png", "rotated", "resized", "alpha", ...); "" when
            `jpeg` is the input itself.
        pixels_HWC: uint8 RGB; exactly what `decode_image(jpeg)` gives.
        narrow: a picture of 16 bits that uses less than a tenth of their range, stored by the full one.
    """

    jpeg: bytes
    width: int
    height: int
    converted: str
    pixels_HWC: npt.NDArray[np.uint8]
    narrow: bool = False


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A picture of mode RGB or L, upright, in sRGB, and what that took."""

    picture: Image.Image
    done: list[str]
    narrow: bool = False


def decode_image(data: bytes, *, max_pixels: int = PILLOW_MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """The upright picture in these bytes.

    Args:
        data: a file in one of `FORMATS`.
        max_pixels: more, by the header, are refused undecoded.

    Returns:
        uint8[H, W, 3], RGB in sRGB.

    Raises:
        DecodeError: reasons as listed in this file's header.
    """
    return upright_pixels(_open(data, INGEST_REVISION), data=data, max_pixels=max_pixels)


def upright_pixels(
    image: Image.Image, *, data: bytes | None = None, max_pixels: int = PILLOW_MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """The upright picture that Pillow opened or made; Args, Returns, Raises: as `decode_image`.

    `data` is the file that it was opened from, where there is one.
    """
    settings = IngestSettings(min_side_px=1, max_pixels=max_pixels)
    return _pixels(_upright_rgb_or_grey(image, data, settings).picture)


def normalise(data: bytes, settings: IngestSettings) -> NormalisedImage:
    """The image in these bytes as it is to be stored: the bytes themselves where they conform.

    Args:
        data: a file in one of `FORMATS`.
        settings: size and quality.

    Raises:
        DecodeError: reasons as listed in this file's header.
    """
    decoded = _upright_rgb_or_grey(_open(data, settings.rules_in_force), data, settings)
    picture, done = decoded.picture, decoded.done
    smaller = _fit(picture.size, settings.max_shorter_side_px)
    if smaller != picture.size:
        done.append("resized")
    if not done:
        return NormalisedImage(data, *picture.size, "", _pixels(picture))
    if done == [END_ADDED]:
        return NormalisedImage(data + unended.END, *picture.size, END_ADDED, _pixels(picture))
    if smaller != picture.size:
        picture = picture.resize(smaller, Image.Resampling.LANCZOS)
    jpeg = _encode(picture, settings.jpeg_quality)
    return NormalisedImage(jpeg, *picture.size, "+".join(done), decode_image(jpeg), decoded.narrow)


def _open(data: bytes, rules: int) -> Image.Image:
    """Reads the header alone; of a TIFF with smaller copies of its picture, the picture is in place."""
    if not data:
        raise DecodeError("empty_file", "the file has no bytes")
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        raise DecodeError(
            "heic", "a HEIC picture, which cannot be read: convert it first (heif-convert in.heic out.jpg)"
        )

    try:
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            num_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if num_frames > 1 and image.format == "TIFF" and rules > 1:
                num_frames = _to_full_page(image, num_frames)
    except Image.DecompressionBombError as error:
        raise DecodeError("too_many_pixels", str(error)) from error
    except _BROKEN as error:
        reason = "truncated" if "runcated" in str(error) else "not_an_image"
        raise DecodeError(reason, f"{len(data)} bytes: {told_of(data) or _words(error)}") from error

    if num_frames > 1:
        raise DecodeError("animated", f"{num_frames} frames or pages in a {image.format}")
    return image


def _to_full_page(image: Image.Image, num_pages: int) -> int:
    """Goes to the page that is no smaller copy and no mask of another; how many such pages there are.

    Source: TIFF 6.0, NewSubfileType (254), bits 0 and 2, and its forerunner SubfileType (255).
    """
    full: list[int] = []
    for page in range(num_pages):
        image.seek(page)
        tags = getattr(image, "tag_v2", {})
        is_part = bool(int(tags.get(_NEW_SUBFILE_TYPE, 0)) & 0b101) or tags.get(_SUBFILE_TYPE) == _REDUCED
        full += [] if is_part else [page]
        if len(full) > 1:
            return num_pages
    image.seek(full[0] if full else 0)
    return 1


def _check_header(image: Image.Image, settings: IngestSettings) -> None:
    found = refused(Header(*image.size, str(image.format), image.mode), settings)
    if found is not None:
        raise DecodeError(found.reason, found.detail)


def _upright_rgb_or_grey(image: Image.Image, data: bytes | None, settings: IngestSettings) -> _Decoded:
    """Decodes; gives the picture in mode RGB or L, turned upright, in sRGB, and what that took."""
    _check_header(image, settings)
    is_jpeg = image.format == "JPEG"
    try:
        converted, done, narrow = _loaded(image, data, settings)
    except Image.DecompressionBombError as error:
        raise DecodeError("too_many_pixels", str(error)) from error
    except _BROKEN as error:
        truncated = "runcated" in str(error) or isinstance(error, EOFError)
        raise DecodeError("truncated" if truncated else "damaged", _words(error)) from error
    turn = _ORIENTATIONS.get(_orientation(image))
    if turn is not None:
        converted = converted.transpose(turn)
        done.append("rotated")
    return _Decoded(converted, done if is_jpeg else [str(image.format).lower(), *done], narrow)


def _loaded(
    image: Image.Image, data: bytes | None, settings: IngestSettings
) -> tuple[Image.Image, list[str], bool]:
    """The picture's pixels in 8 bits; what that took, and whether it uses little of its 16 bits."""
    rules = settings.rules_in_force
    if data is not None and rules > 1 and deep_pixels.is_deep_colour(image):
        shown = deep_pixels.colour(data, FORMATS, image, settings.range)
        if settings.range == FULL:  # Pillow's own high bytes, as it always was
            return *_to_rgb_or_grey(image, rules), shown.narrow
        picture, done = _to_rgb_or_grey(shown.image, rules)
        return picture, ["16bit", *done], shown.narrow

    whole, done_before = image, []
    try:
        image.load()
    except OSError as error:
        if data is None or rules == 1 or image.format != "JPEG" or "runcated" not in str(error):
            raise
        whole, done_before = unended.completed(data, error), [END_ADDED]
    if rules > 1 and deep_pixels.is_deep_grey(whole):
        return _from_deep_grey(whole, settings.range)
    picture, done = _to_rgb_or_grey(whole, rules)
    return picture, [*done_before, *done], False


def _from_deep_grey(image: Image.Image, wanted: str) -> tuple[Image.Image, list[str], bool]:
    try:
        shown = deep_pixels.grey(image, wanted)
    except deep_pixels.NoFullRange as error:
        raise DecodeError(
            "unsupported_pixels",
            f"{error}: store 8 or 16 bit grey, or RGB, or set ingest.range to percentile or min-max",
        ) from error
    return shown.image, ["16bit" if image.mode.startswith("I;16") else image.mode.lower()], shown.narrow


def _orientation(image: Image.Image) -> int:
    """EXIF's number, 1 where there is none or it can't be read. Ask after loading: TIFF turns itself."""
    try:
        with _quiet():
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (*_BROKEN, TypeError):
        return 1


def _to_rgb_or_grey(image: Image.Image, rules: int) -> tuple[Image.Image, list[str]]:
    mode = image.mode
    if mode in ("F", "I", "LAB"):
        raise DecodeError("unsupported_pixels", f"pixels of mode {mode}: store 8 or 16 bit grey, or RGB")
    if mode.startswith("I;16"):
        return _grey_from_16_bit(image), ["16bit"]
    done = [] if mode in ("RGB", "L") else [mode.lower()]
    if image.has_transparency_data:
        image, done = _on_white(image), [*done, "alpha"]
    elif mode == "P":
        image = image.convert("RGB")
    elif mode == "1":
        image = image.convert("L")
    return _by_profile(image, done) if rules > 1 else _by_profiles_name(image, done)


def _by_profile(image: Image.Image, done: list[str]) -> tuple[Image.Image, list[str]]:
    """Mode RGB or L, by the image's colour profile where it has one that fits and changes anything."""
    profile = image.info.get("icc_profile")
    plain = image if image.mode in ("RGB", "L") else image.convert("RGB")
    if not profile:
        return plain, done
    shown = image if image.mode in ("RGB", "L", "CMYK") else plain
    effect = profiles.effect_of(profile, shown.mode)
    if effect == "none":
        return plain, done
    if effect == "unusable":
        return plain, [*done, "icc_dropped"]
    return profiles.to_srgb(shown, profile), [*done, "icc"]


def _grey_from_16_bit(image: Image.Image) -> Image.Image:
    """As the first rules did, whatever the file says of black and white."""
    values_HW = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values_HW * 255 + 32_767) // 65_535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba.getchannel("A"))
    if profile and image.mode not in ("L", "LA"):  # a grey profile no longer fits
        white.info["icc_profile"] = profile
    return white


def _by_profiles_name(image: Image.Image, done: list[str]) -> tuple[Image.Image, list[str]]:
    """As the first rules did: what is called sRGB is taken for it, grey stays as it is."""
    profile = image.info.get("icc_profile")
    plain = image if image.mode in ("RGB", "L") else image.convert("RGB")
    if not profile or image.mode == "L":
        return plain, [*done, "icc_dropped"] if profile else done
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return image, done
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return plain, [*done, "icc_dropped"]
    assert converted is not None  # it is only when converting in place
    return converted, [*done, "icc"]


def _fit(size: tuple[int, int], max_shorter_side_px: int | None) -> tuple[int, int]:
    shorter = min(size)
    if max_shorter_side_px is None or shorter <= max_shorter_side_px:
        return size
    width, height = (max(1, round(side * max_shorter_side_px / shorter)) for side in size)
    return width, height


def _encode(picture: Image.Image, quality: int) -> bytes:
    """Full colour resolution (4:4:4): masks end where colours do."""
    buffer = io.BytesIO()
    bare = Image.fromarray(np.asarray(picture))  # leaves EXIF, profile and comments behind
    bare.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


_WARNINGS_LOCK = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds Pillow's warnings about headers; filters belong to the process, so one thread at a time."""
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _words(error: BaseException) -> str:
    return str(error).split("<_io")[0].strip() or type(error).__name__
