"""What lies under an image's name and is none says what it is."""

from __future__ import annotations

import gzip

import pytest

from maskmill.workers.foreign.images.codec import DecodeError, normalise
from maskmill.workers.run.ingest_settings import IngestSettings


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        (b"\n <!DOCTYPE HTML><html>404</html>", "a web page"),
        (b"<HTML><body>busy</body></HTML>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"error": "denied"}', "JSON"),
        (b"%PDF-1.7\n", "save its pages as images"),
        (gzip.compress(b"picture"), "packed by gzip"),
        (b"words of any kind", "cannot identify"),
    ],
)
def test_bytes_that_are_no_image_are_named(data: bytes, told: str) -> None:
    with pytest.raises(DecodeError, match=told) as error:
        normalise(data, IngestSettings())
    assert error.value.reason == "not_an_image"
