"""A long listing on a real S3 store: `python -m tests.ceph BUCKET python -m benchmarks.listing s3://BUCKET/x`.

Puts `--objects` small objects by put-if-absent, as many drivers' commits would be, then lists them all, one
page in memory at a time. Printed as JSON: the puts' and the listing's pace, and how far memory rose while
listing.

What it doesn't know: a store that is far away; a page of 1,000 names is one request.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store


def put_many(store: ObjectStore, num_objects: int, num_threads: int) -> float:
    """Seconds to put so many commit records' names; each must be new."""
    version = ColumnVersion(store, "masks", "0" * 16)
    began = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        won = pool.map(lambda i: store.put_if_absent(version.record_name(i), b"%d" % i), range(num_objects))
        assert all(won)
    return time.perf_counter() - began


def list_all(store: ObjectStore) -> dict[str, Any]:
    """Lists without keeping anything, then as the driver does to learn which shards exist."""
    next(iter(store.list("masks/")), None)  # connects
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    count = sum(1 for _ in store.list("masks/"))
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    sum(1 for _ in store.list("masks/"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    began = time.perf_counter()
    committed = len(ColumnVersion(store, "masks", "0" * 16).committed())
    return {
        "listed": count,
        "committed": committed,
        "list_s": round(seconds, 2),
        "committed_s": round(time.perf_counter() - began, 2),
        "peak_rss_rise_mb": round((after - before) / 1024, 1),
        "python_peak_mb": round(peak / 2**20, 2),
    }


def main() -> None:
    """Reads the sizes and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=16)
    given = parser.parse_args()
    store = open_store(given.root)
    put_s = put_many(store, given.objects, given.threads)
    print(json.dumps({"put_s": round(put_s, 1), **list_all(store)}, indent=1))


if __name__ == "__main__":
    main()
