"""Which names are pictures, captions and tars: by their endings."""

from __future__ import annotations

import os

IMAGE_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "AVIF": (".avif",),
}
"""What can be taken in: Pillow's name of a format and the endings of its files. The codec opens these formats
and no others (workers/foreign/images), and files with these endings are inputs: one list for both."""

IMAGE_ENDINGS = tuple(ending for endings in IMAGE_FORMATS.values() for ending in endings)
CAPTION_ENDINGS = (".txt", ".json")  # the first one found is used
TAR_ENDING = ".tar"


def ending_of(name: str) -> str:
    """Lower-case ending with its dot, or "": `a/B.JPG` -> `.jpg`."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - names of S3 and tars are no paths
