"""Secrets in what people give: cut in every sentence, log, stored reject; other words stay."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest

from maskmill.storage.dataset.records import Reject
from maskmill.storage.errors import DamagedObject, InputError, StorageError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.secret_words import blank_secrets
from maskmill.storage.stores.base import ObjectStore

SECRET = "pl4nted/S3cret+9"
SHAPES = [
    "hf_pl4ntedpl4ntedpl4ntedpl4nted",
    "github_pat_11ABCDEFG0_pl4ntedpl4ntedpl4nted",
    "gho_pl4ntedpl4ntedpl4ntedpl4nted",
    "glpat-pl4ntedpl4ntedpl4nted",
    "xoxb-1234567890-pl4ntedpl4nted",
    "npm_pl4ntedpl4ntedpl4ntedpl4nted",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxpl4nted.pl4ntedpl4nted",
    "https://hooks.slack.com/services/T000/B000/pl4nted",
]
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
    "s3://AKIAABCDEFGHIJKLMNOP:pl4nted/with/sl4shes+pl4nted@bucket/x",
    "HTTPS_PROXY=bob:pl4nted@proxy.corp:8080",
    "//bob:pl4nted@nas/photos/1.jpg",
    "http://bob:pl4nted%40ss@[::1]:3128",
    "s3://bucket/a.jpg?AWS_SECRET_ACCESS_KEY=pl4nted/K7+x&versionId=3",
    "https://h/a.jpg?x-amz-security-token=pl4nted%2F%3D",
    "https://h/?url=https%3A%2F%2Fb.s3%2Fk%3FX-Amz-Signature%3Dpl4nted%26X-Amz-Date%3D1",
    "https://h/a.jpg?q-sign-algorithm=sha1&q-signature=pl4nted",
    "https://h/a.jpg?hdnea=exp=1~acl=*~hmac=pl4nted",
    "https://h/a?jwt=pl4nted",
    'password = "correct pl4nted battery"',
    '{"client_secret": "a, b; pl4nted"}',
    '"{\\"api_key\\": \\"pl4nted\\"}"',
    "passwd: 'x pl4nted'",
    "HF_TOKEN=pl4nted",
    "refresh_token=pl4nted",
    "MYSQL_PWD=pl4nted",
    "credential=pl4nted",
    "maskmill --token pl4nted",
    "mysql --password pl4nted",
    "Set-Cookie: sid=pl4nted; HttpOnly",
    "Proxy-Authorization: Basic cGw0bnRlZA",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=pl4nted==;EndpointSuffix=core",
    *(f"the key {shape} of somebody" for shape in SHAPES),
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
        "http://127.0.0.1:4200/api/a@2x.png",
        "hf://owner/name@main",
        "/data/roll 1/cam:left@2x.png",
        "photos/cam:left@2x.png",
        "s3://bucket/a:b/c@2x.png",
        "mail bob@example.org",
        "max_tokens=5, a code of conduct, the basic recipe, bearer of news",
        "/data/passwords/1.jpg: no such file",
        "copy the head's ~/.ray/auth_token here, or set RAY_AUTH_TOKEN to what is in it",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "Cookie clicker/1.jpg",
        "author=me, category=7, key 0001",
        "https://h/a.jpg?width=3&height=5",
    ],
)
def test_other_words_stay(text: str) -> None:
    assert blank_secrets(text) == text


def test_the_sentence_around_a_secret_stays() -> None:
    told = "2 are not in it (https://h/a?x-amz-signature=pl4nted, AWS_SECRET_ACCESS_KEY=pl4nted). Give others"
    assert blank_secrets(told) == told.replace("pl4nted", "***")


def test_a_private_key_is_cut_whole() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\npl4nted\npl4nted\n-----END RSA PRIVATE KEY-----: not a picture"
    cut = blank_secrets(block)
    assert "pl4nted" not in cut and cut.endswith("-----: not a picture")


@pytest.mark.parametrize(
    "piece", ["a-", "a.", "secret", "x:", "//a:", "password=", "&sig", "eyJaaaaaaaa.", '"a\\"']
)
def test_long_texts_take_no_time(piece: str) -> None:
    began_s = time.process_time()
    blank_secrets(piece * 20_000)
    assert time.process_time() - began_s < 5


def test_nothing_of_a_manifest_with_secrets_is_stored(local_store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(b"picture")
    manifest = tmp_path / "list.txt"
    manifest.write_text("\n".join(["good.jpg", *(line for line in PLANTED if "\n" not in line)]))
    plan = make_plan(local_store, [str(manifest)], shard_size=4, num_threads=1)
    assert plan.num_rejects == len({blank_secrets(line) for line in PLANTED})
    for info in local_store.list():
        data = local_store.read(info.name)
        assert b"pl4nted" not in data and b"AKIAABC" not in data, info.name
