"""Secrets in what people give: cut in every sentence, log, stored reject; other words stay."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from maskmill.storage.dataset.records import Reject
from maskmill.storage.errors import DamagedObject, InputError, StorageError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.secret_words import blank_secrets
from maskmill.storage.stores.base import ObjectStore

SECRET = "pl4nted/S3cret+9"
PLANTED = [
    "https://me:pl4ntedS3cret9@host/a.jpg",
    "https://pl4ntedS3cret9@host/a.jpg",
    "https://me:pl4nted:S3cret@9@other/a.jpg",
    "https://b.s3.amazonaws.com/a.jpg?X-Amz-Algorithm=A&X-Amz-Credential=pl4nted%2F9&X-Amz-Signature=pl4nted9",
    "https://b.s3.amazonaws.com/a.jpg?AWSAccessKeyId=pl4nted&Signature=pl4nted%3D&Expires=1",
    "https://acc.blob.core.windows.net/c/a.jpg?sv=2020&sig=pl4nted%3D",
    "https://storage.googleapis.com/b/a.jpg?X-Goog-Signature=pl4nted",
    f"aws_secret_access_key = {SECRET}",
    f'{{"password": "{SECRET}"}}',
    f"--api-key={SECRET}",
    f"AWS_SESSION_TOKEN={SECRET}",
    "Authorization: Bearer pl4nted.pl4nted.pl4nted",
    "s3://AKIAABCDEFGHIJKLMNOP:pl4nted@bucket/x",
]


@pytest.mark.parametrize("text", PLANTED)
def test_what_looks_like_a_secret_is_cut(text: str) -> None:
    for kind in (StorageError, InputError, DamagedObject):
        error = kind(f"{text}: does not exist")
        assert "pl4nted" not in str(error) and "AKIA" not in str(error)
        assert str(error).endswith(": does not exist")
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "pl4nted" not in Reject("000000001", "unreadable", text).detail


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/pre[fix]/a b.jpg",
        "output_token: 1 -> 2",
        "monkey: 3, turnkey=4",
        "user@host:/data/a.jpg",
        "a.jpg?key of it",
        "masks/5f0c9a1e77b2d310/data/000000.3f.tar",
        "postgresql+asyncpg://host/db",
        "12:30 @ noon",
    ],
)
def test_other_words_stay(text: str) -> None:
    assert blank_secrets(text) == text


def test_nothing_of_a_manifest_with_secrets_is_stored(local_store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(b"picture")
    manifest = tmp_path / "list.txt"
    manifest.write_text("\n".join(["good.jpg", *(line for line in PLANTED if "\n" not in line)]))
    plan = make_plan(local_store, [str(manifest)], shard_size=4, num_threads=1)
    assert plan.num_rejects == len(PLANTED)
    for info in local_store.list():
        data = local_store.read(info.name)
        assert b"pl4nted" not in data and b"AKIAABC" not in data, info.name
