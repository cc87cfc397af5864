"""The main job against a real S3 store on loopback: inputs, dataset and export are all there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskmill.storage.stores.open import open_store
from tests.ceph import ACCESS_KEY, SECRET_KEY, Ceph, missing_programs, running_ceph
from tests.fakes import write_pictures
from tests.flows.runs.test_generate import ENTRY, Maskmill

pytestmark = [pytest.mark.s3, pytest.mark.timeout(900)]


@pytest.fixture
def ceph(tmp_path: Path) -> Iterator[Ceph]:
    if missing := missing_programs():
        pytest.skip(f"no real S3 store: {', '.join(missing)} not installed; see tests/ceph.py")
    with running_ceph(tmp_path / "ceph") as store:
        store.make_bucket("job")
        yield store


@pytest.fixture
def profile(ceph: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials by a profile in files, as boto3's own chain finds them; none in the environment."""
    (tmp_path / "credentials").write_text(
        f"[drill]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    (tmp_path / "config").write_text("[profile drill]\nregion = us-east-1\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "drill")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", ceph.endpoint)


@pytest.mark.usefixtures("profile")
def test_from_a_bucket_of_pictures_to_an_export_in_it(nano_weights: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 6)
    photos = open_store("s3://job/photos")
    for path in sorted((tmp_path / "in").iterdir()):
        photos.put(path.name, path.read_bytes())
    maskmill = Maskmill(tmp_path / "prefect", nano_weights)
    words = ("--export", "s3://job/out", "--json", "--workers", "2")
    dataset, inputs = "s3://job/data/set", "s3://job/photos/"
    first = maskmill.generate(dataset, inputs, *words)  # type: ignore[arg-type]
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert (report["annotated"], report["missing"], report["duplicated"], report["damaged"]) == (6, 0, 0, 0)
    assert report["generation"] == 1 and report["masks"] > 0
    exported = [found.name for found in open_store("s3://job/out").list()]
    assert "export.json" in exported and any(name.endswith(".tar") for name in exported)

    again = maskmill.generate(dataset, inputs, "--json")  # type: ignore[arg-type]
    assert again.returncode == 0 and json.loads(again.stdout)["new_images"] == 0
    check = subprocess.run(
        [sys.executable, "-c", ENTRY, "verify", dataset, "--deep", "--json"],
        capture_output=True,
        text=True,
        env=maskmill.environment,
        check=False,
    )
    assert check.returncode == 0 and json.loads(check.stdout)["annotated"] == 6

    told = "".join(done.stdout + done.stderr for done in (first, again, check))
    assert SECRET_KEY not in told and ACCESS_KEY not in told
    for found in open_store("s3://job").list():
        assert SECRET_KEY.encode() not in open_store("s3://job").read(found.name), found.name


@pytest.mark.usefixtures("profile")
def test_no_credentials_and_wrong_ones_are_told_without_showing_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "a-secret-that-is-wrong"
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    command = [sys.executable, "-c", ENTRY, "status", "s3://job/data"]
    none = subprocess.run(command, capture_output=True, text=True, check=False)
    assert none.returncode == 3 and "no usable credentials" in none.stderr
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
    refused = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "the store refused" in refused.stderr
    assert wrong not in refused.stdout + refused.stderr
