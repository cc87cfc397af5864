"""Models by hub id, from a hub on loopback; each look at it is a process of its own, as in a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskmill.pipeline.weights import hub, weights
from maskmill.pipeline.weights.errors import MissingWeights
from tests.pipeline.weights.hub_server import Hub, serving

LOOK = """
import json, sys
from maskmill.pipeline.weights import pretrained
from maskmill.pipeline.weights.errors import WeightsError
from maskmill.pipeline.weights import weights
for source in sys.argv[1:]:
    try:
        path = weights.locate(source, role="namer")
        told = {"path": str(path), "sha256": weights.sha256_of(path), "pinned": weights.pinned(source)}
    except WeightsError as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(told), flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with serving() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf"


def model(folder: Path, *, text: str = "{}", torch_file: bool = False) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text)
    (folder / ("pytorch_model.bin" if torch_file else "model.safetensors")).write_bytes(b"weights " * 100)
    (folder / "README.md").write_text("not read")
    (folder / "tf_model.h5").write_bytes(b"not read")
    return folder


def start(server: Hub, cache: Path, *sources: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LOOK, *sources],
        env={
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **env,
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def look(server: Hub, cache: Path, *sources: str, **env: str) -> list[dict[str, str]]:
    out, _ = start(server, cache, *sources, **env).communicate(timeout=120)
    return [json.loads(line) for line in out.splitlines()]


def test_a_model_is_fetched_once_a_machine_and_then_found_offline(
    server: Hub, cache: Path, tmp_path: Path
) -> None:
    folder = model(tmp_path / "one")
    commit = server.add("some/one", folder)
    before = server.served["model.safetensors"]
    several = [start(server, cache, "some/one") for _ in range(3)]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in several]
    assert server.served["model.safetensors"] - before == 1
    assert {one["pinned"] for one in told} == {f"some/one@{commit}"}
    assert {one["sha256"] for one in told} == {weights.sha256_of(folder)}
    assert sorted(path.name for path in Path(told[0]["path"]).iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    (again,) = look(server, cache, "some/one", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert again == told[0]


def test_a_pinned_id_stays_when_the_hub_moves_on(server: Hub, cache: Path, tmp_path: Path) -> None:
    first = server.add("some/moving", model(tmp_path / "a"))
    (old,) = look(server, cache, "some/moving")
    server.add("some/moving", model(tmp_path / "b", text='{"newer": 1}'))
    pinned, new = look(server, cache, f"some/moving@{first}", "some/moving")
    assert pinned["sha256"] == old["sha256"] != new["sha256"]


def test_a_model_without_safetensors_gives_its_torch_file(server: Hub, cache: Path, tmp_path: Path) -> None:
    server.add("some/old", model(tmp_path / "old", torch_file=True))
    whole, file = look(server, cache, "some/old", "some/old:pytorch_model.bin")
    assert (Path(whole["path"]) / "pytorch_model.bin").is_file()
    assert file["path"].endswith("pytorch_model.bin")


def test_what_the_hub_refuses_is_told_with_the_cure(server: Hub, cache: Path, tmp_path: Path) -> None:
    server.add("some/one-more", model(tmp_path / "m"))
    server.add("closed/model", model(tmp_path / "closed"))
    server.gated.add("closed/model")
    errors = look(server, cache, "no/body", "some/one-more@v9", "some/one-more:x.pth", "closed/model")
    for told, says in zip(
        errors,
        (
            "namer: no/body is neither a path here nor a model on the hub: check the name",
            "has no revision v9: name a branch",
            "has no file x.pth",
            "is gated: accept its terms at huggingface.co/closed/model, then log in",
        ),
        strict=True,
    ):
        assert told["error"].startswith("MissingWeights: ") and says in told["error"]
    (opened,) = look(server, cache, "closed/model", HF_TOKEN="hf_secret")
    assert "sha256" in opened and "Bearer hf_secret" in server.tokens


def test_offline_and_unreachable_are_told_apart(server: Hub, cache: Path, tmp_path: Path) -> None:
    server.add("some/absent", model(tmp_path / "absent"))
    (offline,) = look(server, cache, "some/absent", HF_HUB_OFFLINE="1")
    assert (
        "HF_HUB_OFFLINE forbids fetching it: unset it, or run `hf download some/absent`" in offline["error"]
    )
    (down,) = look(server, cache, "some/absent", HF_ENDPOINT="http://127.0.0.1:9")
    assert "the hub cannot be reached" in down["error"] and "check the network" in down["error"]


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("a/b", hub.HubId("a/b")),
        ("a/b@refs/pr/3", hub.HubId("a/b", "refs/pr/3")),
        ("a/b@v1:x/y.pth", hub.HubId("a/b", "v1", "x/y.pth")),
        ("a/b:y.pth", hub.HubId("a/b", None, "y.pth")),
        ("./a/b", None),
        ("/a/b", None),
        ("a/b/c", None),
        ("file.pth", None),
        ("s3://a/b", None),
    ],
)
def test_what_is_a_hub_id(source: str, parsed: hub.HubId | None) -> None:
    assert hub.parse(source) == parsed
    assert parsed is None or str(parsed) == source


def test_a_path_that_is_there_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "some" / "one")
    monkeypatch.chdir(tmp_path)
    assert weights.locate("some/one", role="namer") == Path("some/one")
    assert weights.pinned("some/one") == str(tmp_path / "some" / "one")
    with pytest.raises(MissingWeights, match=r"segmenter: weights/sam\.pth does not exist: check the path"):
        weights.locate("weights/sam.pth", role="segmenter")
