"""`verify`'s exit code says whatever is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from maskmill.flows.cli import app
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.workers.published import publish_dataset


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    return publish_dataset(tmp_path).spec.root


def spoilt(store: ObjectStore, pattern: str) -> str:
    name = next(info.name for info in store.list() if re.fullmatch(pattern, info.name))
    store.put(name, store.read(name)[:-9])
    return name


@pytest.mark.parametrize(
    "pattern",
    [
        r"plan/.*\.parquet",
        r"plan/000001\.json",
        r"generations/.*/generation\.json",
        r"generations/.*\.parquet",
    ],
)
def test_verify_exits_1_with_the_object_and_the_cure(dataset: str, pattern: str) -> None:
    assert run("verify", dataset).exit_code == 0
    name = spoilt(open_store(dataset), pattern)
    done = run("verify", dataset)
    told = done.output.replace("\n", "")
    assert done.exit_code == 1, done.output
    assert name in told and "put it back" in told and "Not sound" in told
