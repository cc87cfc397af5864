"""Bad and odd images, table-driven: everything is generated here."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from maskmill.workers.foreign.images.codec import DecodeError, IngestSettings, decode_image, normalise

SETTINGS = IngestSettings()


def picture(width: int = 96, height: int = 64) -> npt.NDArray[np.uint8]:
    """A red left half, green top right, blue bottom right: every turn of it looks different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (220, 30, 30)
    pixels[: height // 2, width // 2 :] = (30, 200, 30)
    pixels[height // 2 :, width // 2 :] = (30, 30, 210)
    return pixels


def noise() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def save(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(**options: object) -> bytes:
    return save(Image.fromarray(picture()), "JPEG", quality=95, **options)


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header promises a size, with hardly any pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


def frames(format: str) -> bytes:
    pages = [Image.new("RGB", (40, 40), (shade, 0, 0)) for shade in (0, 120, 240)]
    return save(pages[0], format, save_all=True, append_images=pages[1:])


def close(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> bool:
    """Equal but for JPEG's noise, edges aside."""
    difference = np.abs(first.astype(int) - second.astype(int)).max(axis=2)
    return first.shape == second.shape and float((difference > 24).mean()) < 0.05


REJECTED = {
    "empty": (b"", "empty_file"),
    "text named jpg": (b"hello, I am a text" * 100, "not_an_image"),
    "html": (b"<html>404</html>", "not_an_image"),
    "magic alone": (b"\xff\xd8\xff", "not_an_image"),
    "zeros": (bytes(5000), "not_an_image"),
    "jpeg cut in its pixels": (jpeg()[:-200], "truncated"),
    "jpeg cut in its tables": (jpeg()[:100], "truncated"),
    "png cut": (save(Image.fromarray(noise()), "PNG")[:900], "truncated"),
    "png with rubbish for pixels": (png_header(64, 64), "truncated"),
    "bomb": (png_header(30_000, 30_000), "too_many_pixels"),
    "bomb under Pillow's limit": (png_header(13_300, 13_300), "too_many_pixels"),
    "1x1": (save(Image.new("RGB", (1, 1)), "PNG"), "too_small"),
    "1x5000": (save(Image.new("RGB", (1, 5000)), "JPEG"), "too_small"),
    "70000 long": (save(Image.new("RGB", (70_000, 16)), "PNG"), "too_long"),
    "gif": (frames("GIF"), "animated"),
    "apng": (frames("PNG"), "animated"),
    "webp film": (frames("WEBP"), "animated"),
    "tiff pages": (frames("TIFF"), "animated"),
    "float tiff": (save(Image.fromarray(np.ones((64, 64), np.float32)), "TIFF"), "unsupported_pixels"),
    "int32 tiff": (save(Image.fromarray(np.ones((64, 64), np.int32)), "TIFF"), "unsupported_pixels"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n", "not_an_image"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_bad_input_is_rejected_with_its_reason(name: str) -> None:
    data, reason = REJECTED[name]
    with pytest.raises(DecodeError) as caught:
        normalise(data, SETTINGS)
    assert caught.value.reason == reason, caught.value
    assert caught.value.detail


TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(orientation: int, format: str) -> None:
    """The file holds the picture turned; its EXIF number says how to turn it back."""
    upright = Image.fromarray(picture())
    turned = upright.transpose(TURNED[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(turned, format, exif=exif)
    assert close(decode_image(data), picture())
    stored = normalise(data, SETTINGS)
    assert (stored.width, stored.height) == (96, 64)
    assert close(stored.pixels_HWC, picture())
    assert (stored.jpeg == data) == (format == "JPEG" and orientation == 1)


def grey_half() -> npt.NDArray[np.uint8]:
    return np.repeat(np.array([[60] * 32 + [200] * 32], np.uint8), 64, axis=0)


def rgb_of(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def with_alpha() -> Image.Image:
    """The picture with its left half fully transparent."""
    alpha = np.full((64, 96), 255, np.uint8)
    alpha[:, :48] = 0
    return Image.fromarray(np.dstack([picture(), alpha]))


def white_left() -> npt.NDArray[np.uint8]:
    expected = picture()
    expected[:, :48] = 255
    return expected


def sixteen_bit_rgb() -> bytes:
    bgr = picture()[:, :, ::-1].astype(np.uint16) * 257
    return bytes(cv2.imencode(".png", bgr)[1])


def grey_with_alpha() -> bytes:
    alpha = np.full((64, 64), 255, np.uint8)
    return save(Image.merge("LA", [Image.fromarray(grey_half()), Image.fromarray(alpha)]), "PNG")


def palette_with_transparency() -> bytes:
    image = Image.fromarray(picture()).quantize(8)
    return save(image, "PNG", transparency=bytes([255] * 8))


PICTURE = Image.fromarray(picture())
GREY_16 = Image.fromarray(grey_half().astype(np.uint16) * 257)
BLACK_OR_WHITE = np.where(grey_half() > 128, 255, 0).astype(np.uint8)

CONVERTED = {
    "png": (save(PICTURE, "PNG"), picture(), "png"),
    "webp": (save(PICTURE, "WEBP", quality=95), picture(), "webp"),
    "bmp": (save(PICTURE, "BMP"), picture(), "bmp"),
    "16-bit grey": (save(GREY_16, "PNG"), rgb_of(grey_half()), "png+16bit"),
    "16-bit grey tiff": (save(GREY_16, "TIFF"), rgb_of(grey_half()), "tiff+16bit"),
    "16-bit rgb": (sixteen_bit_rgb(), picture(), "png"),
    "cmyk jpeg": (save(PICTURE.convert("CMYK"), "JPEG", quality=95), picture(), "cmyk"),
    "palette": (save(PICTURE.quantize(8), "PNG"), picture(), "png+p"),
    "palette, opaque": (palette_with_transparency(), picture(), "png+p+alpha"),
    "alpha": (save(with_alpha(), "PNG"), white_left(), "png+rgba+alpha"),
    "one bit": (save(Image.fromarray(grey_half() > 128), "PNG"), rgb_of(BLACK_OR_WHITE), "png+1"),
    "grey and alpha": (grey_with_alpha(), rgb_of(grey_half()), "png+la+alpha"),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_other_formats_become_conforming_jpeg(name: str) -> None:
    data, expected, converted = CONVERTED[name]
    stored = normalise(data, SETTINGS)
    assert stored.converted == converted
    assert close(stored.pixels_HWC, expected)
    again = normalise(stored.jpeg, SETTINGS)
    assert again.jpeg == stored.jpeg and again.converted == ""
    np.testing.assert_array_equal(again.pixels_HWC, stored.pixels_HWC)
    np.testing.assert_array_equal(decode_image(stored.jpeg), stored.pixels_HWC)


@pytest.mark.parametrize(
    "data",
    [jpeg(), jpeg(progressive=True), save(Image.fromarray(grey_half()), "JPEG"), jpeg(comment=b"hello")],
    ids=["baseline", "progressive", "grey", "comment"],
)
def test_a_conforming_jpeg_is_kept_byte_for_byte(data: bytes) -> None:
    stored = normalise(data, SETTINGS)
    assert stored.jpeg is data and stored.converted == ""
    np.testing.assert_array_equal(stored.pixels_HWC, decode_image(data))


@pytest.mark.parametrize(
    ("width", "height", "size"), [(200, 100, (128, 64)), (90, 300, (64, 213)), (64, 64, (64, 64))]
)
def test_the_shorter_side_is_limited(width: int, height: int, size: tuple[int, int]) -> None:
    data = save(Image.fromarray(picture(width, height)), "JPEG")
    stored = normalise(data, IngestSettings(max_shorter_side_px=64))
    assert (stored.width, stored.height) == size == stored.pixels_HWC.shape[1::-1]
    assert stored.converted == ("resized" if size != (width, height) else "")
    assert normalise(data, IngestSettings(max_shorter_side_px=None)).jpeg == data


def test_colour_profiles() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert normalise(jpeg(icc_profile=srgb), SETTINGS).converted == ""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    dropped = normalise(jpeg(icc_profile=lab), SETTINGS)  # fits no RGB image
    assert dropped.converted == "icc_dropped"
    assert close(dropped.pixels_HWC, picture())
    assert normalise(jpeg(icc_profile=b"rubbish"), SETTINGS).converted == "icc_dropped"


def test_a_colour_profile_is_converted() -> None:
    """A profile made from sRGB's by exchanging red and green: the picture comes out with them exchanged."""
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "ours".encode("utf-16-be"))
    swapped = swapped.replace(b"rXYZ", b"tmp_").replace(b"gXYZ", b"rXYZ").replace(b"tmp_", b"gXYZ")
    stored = normalise(jpeg(icc_profile=swapped), SETTINGS)
    assert stored.converted == "icc"
    assert stored.pixels_HWC[32, 20, 1] > 200 > 60 > stored.pixels_HWC[32, 20, 0]  # red became green
    assert "icc_profile" not in Image.open(io.BytesIO(stored.jpeg)).info


def test_a_phones_several_pictures_count_as_their_first() -> None:
    image = Image.fromarray(picture())
    data = save(image, "MPO", save_all=True, append_images=[image.resize((48, 32))], quality=95)
    stored = normalise(data, SETTINGS)
    assert stored.converted == "mpo"
    assert close(stored.pixels_HWC, picture())


def test_damaged_exif_is_ignored() -> None:
    data = jpeg(exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01")
    assert close(decode_image(data), picture())


@pytest.mark.parametrize(
    "values",
    [
        {"max_shorter_side_px": 10},
        {"jpeg_quality": 0},
        {"min_side_px": 0},
        {"max_pixels": 10**9},
        {"jpeg_quality": True},
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        IngestSettings(**values)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
)
def test_damage_is_decoded_or_rejected_never_anything_else(
    format: str, hits: list[tuple[float, int]]
) -> None:
    data = bytearray(save(Image.fromarray(picture(40, 30)), format))
    for place, value in hits:
        data[int(place * len(data))] = value
    try:
        stored = normalise(bytes(data), SETTINGS)
    except DecodeError as error:
        assert error.reason
    else:
        assert stored.pixels_HWC.shape == (stored.height, stored.width, 3)


def test_threads_agree() -> None:
    """Warnings' filters belong to the process: many threads decode at once without one leaking."""
    files = [data for data, *_ in CONVERTED.values()] * 5
    expected = [normalise(data, SETTINGS).jpeg for data in files]
    with ThreadPoolExecutor(8) as pool:
        assert [stored.jpeg for stored in pool.map(lambda data: normalise(data, SETTINGS), files)] == expected
