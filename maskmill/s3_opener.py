"""`s3://` for webdataset: tars are read as maskmill reads buckets, by its settings and with its retries.

webdataset knows no `s3://` of its own (users pipe the AWS command line into it). `register_s3` teaches it, in
this process; in a data loader's workers it must have been imported too: `register_s3` as `worker_init_fn`
does.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from maskmill.storage.stores.open import address_store


def register_s3(worker: int = 0) -> None:
    """Lets `webdataset.WebDataset("s3://bucket/train-{000000..000009}.tar")` read, in this process.

    Args:
        worker: its number, where torch's data loader calls this in each (`worker_init_fn=register_s3`).
    """
    from webdataset.gopen import gopen_schemes

    gopen_schemes["s3"] = open_s3


def open_s3(url: str, mode: str = "rb", bufsize: int = 8192, **options: Any) -> BinaryIO:
    """An object to read from front to back.

    Args:
        url: s3://bucket/name.
        mode: "rb".
        bufsize, options: webdataset's, of no use here.

    Raises:
        ValueError: a mode other than "rb".
        maskmill.storage.errors.StorageError: there is no such object, or it cannot be read.
    """
    if mode not in ("rb", "r"):
        raise ValueError(
            f"{url}: mode={mode!r}, but it is opened to be read only: write a local file, and copy it"
        )
    store, name = address_store(url)
    return store.open_read(name)
