"""Put-if-absent is proved at a dataset's first write: a store that ignores the condition is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from maskmill.storage.errors import UnfitStore
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.storage.stores.promise import PROMISE, ensure_writable
from tests.careless_proxy import careless_proxy
from tests.storage.conftest import MOTO_ENVIRONMENT, new_bucket


@pytest.fixture
def careless_root(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a real S3 API behind a proxy that drops the condition."""
    with careless_proxy(moto_endpoint) as endpoint:
        yield new_bucket({**MOTO_ENVIRONMENT, "AWS_ENDPOINT_URL_S3": endpoint}, monkeypatch)


def test_a_store_that_ignores_the_condition_is_refused(careless_root: str, tmp_path: Path) -> None:
    store = open_store(f"{careless_root}/set")
    assert store.put_if_absent("x", b"1") and store.put_if_absent("x", b"2"), "it is careless indeed"
    store.delete("x")
    (tmp_path / "a.jpg").write_bytes(b"picture")
    with pytest.raises(UnfitStore, match=r"If-None-Match.*Use a store that keeps it"):
        make_plan(store, [str(tmp_path)], shard_size=4)
    assert list(store.list()) == [], "nothing is left of the try"
    assert load_plans(store).parts == ()


def test_it_is_proved_once_a_dataset(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_writable(store)
    assert [info.name for info in store.list()] == [PROMISE]
    tried: list[str] = []
    put_if_absent = type(store).put_if_absent

    def counting(self: ObjectStore, name: str, data: bytes) -> bool:
        tried.append(name)
        return put_if_absent(self, name, data)

    monkeypatch.setattr(type(store), "put_if_absent", counting)
    ensure_writable(store)
    assert len(tried) == 1, "one small write, as before"
