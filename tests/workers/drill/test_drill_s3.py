"""A job on a real S3 store behind a proxy that fails, stalls and cuts: nothing comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.drill.command import SUMS, drill, sums_of

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


@pytest.mark.s3
def test_nothing_comes_of_an_unreliable_s3_store(tmp_path: Path) -> None:
    from tests.ceph import missing_programs, running_ceph

    if missing := missing_programs():
        pytest.skip(f"no real S3 store: {', '.join(missing)} not installed; see tests/ceph.py")
    with running_ceph(tmp_path / "ceph") as ceph:
        ceph.make_bucket("drill")
        words = ("--seed", "3", "--faults", "26", "--minutes", "5", "--scratch", str(tmp_path / "x"))
        code, report = drill(*words, "--store", "s3://drill/data", environment=ceph.environment)
    assert sums_of(report) == SUMS
    assert code == 0 and {"http_500", "http_503", "slow", "cut", "torn_upload"} <= set(report["faults"])
