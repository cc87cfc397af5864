"""A pushed dataset, as `datasets.load_dataset` gets it from a hub on loopback; its commits are whole.

The push and the reading are processes of their own: the hub's address is read when its client is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskmill.workers.exports.chosen.splits import parse, split_of
from maskmill.workers.reading.samples import read_annotated
from tests.workers.exports.publish.dataset_hub import DatasetHub, serving
from tests.workers.published import NUM_ANNOTATED, Published, publish_dataset

READ = """
import json, sys, datasets
loaded = datasets.load_dataset(sys.argv[1], cache_dir=sys.argv[2])
told = lambda row: [row["key"], list(row["image"].size), [mask["counts"] for mask in row["masks"]]]
print(json.dumps({split: [told(row) for row in loaded[split]] for split in loaded}))
"""
SPLIT = "40/30/30"


@pytest.fixture(scope="module")
def hub() -> Iterator[DatasetHub]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


def environment(hub: DatasetHub, home: Path, token: str | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    told = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return {**kept, **told, **({"HF_TOKEN": token} if token else {})}


def push(hub: DatasetHub, home: Path, *words: str, token: str | None = "hf_may_write") -> Any:
    return subprocess.run(
        [sys.executable, "-m", "maskmill", "push", *words, "--json"],
        env=environment(hub, home, token),
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def read(hub: DatasetHub, name: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, name, str(folder / "cache")],
        env=environment(hub, folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_is_pushed_is_loaded_with_its_masks_and_splits(
    hub: DatasetHub, data: Published, tmp_path: Path
) -> None:
    done = push(
        hub,
        tmp_path,
        data.store.root,
        "hf://me/shapes",
        *("--split", SPLIT),
        *("--set", "publish.license=cc-by-4.0", "--set", 'publish.consent="asked <b>all</b> | of them"'),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["images"], told["repo"], told["url"]) == (
        NUM_ANNOTATED,
        "me/shapes",
        f"{hub.url}/datasets/me/shapes",
    )
    assert len(hub.commits["me/shapes"]) == 2, "one commit after the empty one"

    loaded = read(hub, "me/shapes", tmp_path)
    names, shares = {"train": "train", "val": "validation", "test": "test"}, parse(SPLIT)
    expected: dict[str, list[Any]] = {}
    for sample in read_annotated(data.store, data.generation):
        info = sample.record["image"]
        masks = [row["segmentation"]["counts"] for row in sample.record["annotations"]]
        split = names[split_of(sample.key, shares)]
        expected.setdefault(split, []).append([sample.key, [info["width"], info["height"]], masks])
    assert loaded == expected

    files = hub.files("me/shapes")
    _, head, text = files["README.md"].decode().split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["license"] == "cc-by-4.0"
    assert {one["split"] for one in metadata["configs"][0]["data_files"]} == set(expected)
    assert f"| images | {NUM_ANNOTATED} |" in text and "asked &lt;b>all&lt;/b> &#124; of them" in text
    assert "# shapes\n\nImages with masks of what is in them, as Parquet" in text
    assert "| segmenter | `fake` |" in text and "| taken: split | `40/30/30` |" in text
    for path in ("pictures/samples.png", "pictures/predicted_iou.png"):
        assert path in text and files[path].startswith(b"\x89PNG")
    facts = json.loads(files["croissant.json"])
    assert {one["name"] for one in facts["recordSet"]} == set(expected)
    assert facts["license"] == "cc-by-4.0"


def test_a_smaller_push_leaves_no_old_data_and_sends_nothing_twice(
    hub: DatasetHub, data: Published, tmp_path: Path
) -> None:
    words = (data.store.root, "hf://me/again", "--set", "export.max_images=2")
    assert push(hub, tmp_path, *words).returncode == 0
    many, sent = set(hub.files("me/again")), hub.uploads
    assert sum(name.startswith("data/") for name in many) == 5
    assert push(hub, tmp_path, *words).returncode == 0
    assert hub.uploads == sent, "the hub has them"
    fewer = push(hub, tmp_path, *words, "--limit", "2")
    assert json.loads(fewer.stdout)["num_removed"] == 4
    assert [name for name in hub.files("me/again") if name.startswith("data/")] == [
        "data/train-00000.parquet"
    ]
    assert "no licence" in fewer.stderr


def test_a_push_that_fails_leaves_readers_what_they_had(
    hub: DatasetHub, data: Published, tmp_path: Path
) -> None:
    hub.fail_uploads = 1
    failed = push(hub, tmp_path, data.store.root, "hf://me/late", "--limit", "3")
    assert (failed.returncode, "Traceback" in failed.stderr) == (3, False), failed.stderr
    assert hub.files("me/late") == {}
    assert push(hub, tmp_path, data.store.root, "hf://me/late", "--limit", "3").returncode == 0
    assert "README.md" in hub.files("me/late")


@pytest.mark.parametrize(
    ("words", "token", "code", "message"),
    [
        (("hf://me",), "hf_may_write", 2, "use hf://owner/name"),
        (("s3://bucket/x",), "hf_may_write", 2, "use hf://owner/name"),
        (("hf://me/x",), None, 3, "HF_TOKEN"),
        (("hf://me/x",), "hf_other", 3, "HF_TOKEN"),
        (("hf://me/x", "--where", "key = 'none'"), "hf_may_write", 2, "nothing to publish"),
    ],
)
def test_what_cannot_be_pushed_is_said(
    hub: DatasetHub,
    data: Published,
    tmp_path: Path,
    words: tuple[str, ...],
    token: str | None,
    code: int,
    message: str,
) -> None:
    failed = push(hub, tmp_path, data.store.root, *words, token=token)
    assert failed.returncode == code, failed.stderr
    assert message in failed.stderr and "Traceback" not in failed.stderr
    assert "me/x" not in hub.commits
