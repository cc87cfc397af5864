"""What bytes are that lie under an image's name and are none: what a download left in the image's place.

It doesn't know images; codec.py asks when Pillow knows none.
"""

from __future__ import annotations

_BEGINNINGS = (
    (b"version https://git-lfs.github.com/", "a pointer of Git LFS: fetch what it stands for (git lfs pull)"),
    (b"<!doctype html", "a web page: the download was answered by one"),
    (b"<html", "a web page: the download was answered by one"),
    (b"<?xml", "XML: the download may have been answered by an error"),
    (b"{", "JSON: the download may have been answered by an error"),
    (b"%pdf", "a PDF: save its pages as images"),
    (b"\x1f\x8b", "packed by gzip: unpack it"),
    (b"pk\x03\x04", "a zip archive: unpack it"),
)


def told_of(data: bytes) -> str:
    """What the bytes are, and what to do; "" where nothing tells."""
    beginning = data[:64].lstrip().lower()
    return next((told for begins, told in _BEGINNINGS if beginning.startswith(begins)), "")
