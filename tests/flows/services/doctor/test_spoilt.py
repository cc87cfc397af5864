"""The doctor in spoilt surroundings: each line says what is wrong and what to do; Ray has its own tests."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maskmill.flows.config import load_config
from maskmill.flows.services.doctor import held, machine, neighbours, places
from maskmill.flows.services.doctor.findings import Finding
from maskmill.flows.services.prefect.server import start_server, stop_server, wait_ready
from maskmill.pipeline.settings.published import PUBLISHED
from maskmill.pipeline.weights.weights import NANO_WEIGHTS
from tests.ports import free_port

ENTRY = "from maskmill.flows.cli import main; main()"


def doctor(*words: str, cwd: Path, **environment: str) -> tuple[int, dict[str, Finding]]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT", "RAY_", "MASKMILL", "HF_", "PYTHON"))
        and "proxy" not in name.lower()
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", ENTRY, "doctor", "--json", "--no-speeds", *words],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 4096)),
    )
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["sound"] == (done.returncode == 0)
    return done.returncode, {row["name"]: Finding(**row) for row in told["findings"]}


def test_what_is_spoilt_at_once_is_told_line_by_line(tmp_path: Path) -> None:
    """For real, in one process: eleven ailments, each its line, and what is sound stays so."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "turtle.py").write_text("")
    (tmp_path / "random.py").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text(
        "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n"
    )
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    cut = tmp_path / "sam_vit_b_01ec64.pth"
    cut.write_bytes(b"PK\x03\x04 cut short")
    port = free_port()
    code, found = doctor(
        "/dev/null/dataset",
        "--set",
        "segmenter.model=vit_b",
        "--set",
        f"segmenter.weights={cut}",
        "--ray-address",
        f"127.0.0.1:{port}",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "mine"),
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        http_proxy="http://127.0.0.1:9",
        AWS_ENDPOINT_URL="https://store.inside:9000",
        TMPDIR=str(tmp_path / "absent"),
        HOME="/dev/null",
        PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
    )
    assert code == 3
    for name, state, says, cure in (
        ("module names", "wrong", f"PYTHONPATH has {tmp_path}/mine/turtle.py", "unset PYTHONPATH"),
        ("proxies", "look", "the store (store.inside) will be asked through it", "add its host to no_proxy"),
        ("TMPDIR", "look", f"{tmp_path}/absent can't be used", "unset TMPDIR"),
        ("HOME", "look", "/dev/null can't be written", "set HOME to a folder of yours"),
        ("open files", "look", "512 at once (may be raised to 4096)", "ulimit -n 4096"),
        ("gpu", "wrong", "Driver/library version mismatch", "load the driver again (reboot)"),
        ("weights", "wrong", "sam_vit_b_01ec64.pth", "download it again"),
        ("prefect", "wrong", "no server of Prefect's answers at http://127.0.0.1", "correct PREFECT_API_URL"),
        ("ray", "wrong", f"nothing answers at 127.0.0.1:{port}", "check host and port"),
        ("store", "wrong", "/dev/null/dataset", "check the address and its rights"),
    ):
        one = found[name]
        assert one.state == state and says in one.says and cure in one.cure, one
    for name in ("python", "cores", "memory", "torch"):
        assert found[name].state == "fine", found[name]


def test_a_sound_machine_is_called_so(tmp_path: Path) -> None:
    code, found = doctor(str(tmp_path / "dataset"), cwd=tmp_path, HOME=str(tmp_path))
    assert code == 0
    assert found["store"].says.endswith("keeps all 12 promises that a dataset needs")
    assert found["weights"].says.startswith(str(NANO_WEIGHTS)) and found["weights"].says.endswith("it loads")
    assert {one.state for one in found.values()} <= {"fine", "look"}
    assert not (tmp_path / "dataset").exists(), "nothing is left behind"


def test_weights_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nano_weights: Path) -> None:
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def told(*sets: str, recipe: str | None = None) -> Finding:
        (one, *_) = held.models(load_config(recipe, None, sets))
        return one

    absent = told(recipe="sa1b")
    assert absent.state == "wrong" and "`maskmill fetch vit_h` brings it" in absent.cure
    other = told("segmenter.model=vit_b", f"segmenter.weights={nano_weights}")
    assert other.state == "wrong" and "looks like" in other.cure + other.says

    named = tmp_path / "mobile_sam.pt"
    shutil.copy(nano_weights, named)
    trained = told(f"segmenter.weights={named}")
    assert trained.state == "look" and "another" in trained.says and "maskmill fetch" in trained.cure
    sha256 = trained.says.partition("sha256 ")[2][:12]
    assert sha256 != PUBLISHED[-1].sha256[:12]

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    hub = told("segmenter.model=sam", "segmenter.weights=some/model")
    assert hub.state == "look" and "hf download some/model" in hub.cure
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "unset HF_HUB_OFFLINE" in told("segmenter.model=sam", "segmenter.weights=some/model").cure


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real server with a secret."""
    server = start_server({**os.environ, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))})
    wait_ready(server)
    yield server
    stop_server(server)


@pytest.mark.timeout(400)
def test_prefects_server_is_asked_with_the_secret_in_force(
    prefect: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MASKMILL_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", prefect.url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", prefect.secret)
    right = neighbours.prefect_server()
    assert right.state == "fine" and "the secret is right" in right.says

    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "somebody:else")
    refused = neighbours.prefect_server()
    assert refused.state == "wrong" and "refuses the secret that is set" in refused.says
    monkeypatch.delenv("PREFECT_API_AUTH_STRING")
    none = neighbours.prefect_server()
    assert none.state == "wrong" and "none is set" in none.says and "PREFECT_API_AUTH_STRING" in none.cure

    monkeypatch.setenv("PREFECT_API_URL", prefect.url.removesuffix("/api"))
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", prefect.secret)
    elsewhere = neighbours.prefect_server()
    assert elsewhere.state == "wrong" and "it ends in /api" in elsewhere.cure


def test_a_containers_limits_count(tmp_path: Path) -> None:
    gb = 10**9
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{4 * gb}\n")
    (tmp_path / "memory.current").write_text(f"{gb}\n")
    cores = machine.cores(tmp_path)
    if len(os.sched_getaffinity(0)) > 1:
        assert cores.state == "look" and cores.says.startswith("1.5 usable") and "--num-cpus=1" in cores.cure
    short = machine.memory(10 * gb, tmp_path)
    assert (
        short.state == "wrong" and short.says == "3.0 GB free, by the container limit; a worker needs 10.0 GB"
    )
    assert "room for 3" in machine.memory(gb, tmp_path).says
    for name in ("cpu.max", "memory.max"):
        (tmp_path / name).write_text("max 100000\n" if name == "cpu.max" else "max\n")
    assert machine.cores(tmp_path).state == "fine"
    assert "container" not in machine.memory(gb, tmp_path).says


def test_little_room_is_told_before_a_disk_is_full(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert machine.disk("disk", tmp_path / "not" / "yet", free // 2).state == "fine"
    assert machine.disk("disk", tmp_path, free * 2).state == "look"
    assert machine.disk("disk", tmp_path, free * 20).state == "wrong"
    assert "--shm-size=1g" in machine.shared_memory(tmp_path, free * 2).cure
    assert machine.shared_memory(tmp_path / "absent").state == "look"


REPORT = {"torch": "2.11", "built_for": "12.8", "cuda_error": None, "gpus": [], "device": "cpu"}


@pytest.mark.parametrize(
    ("report", "driver", "hidden", "state", "says", "cure"),
    [
        ({}, None, None, "fine", "none: models compute on the CPU", ""),
        ({}, "580.1", "", "look", "CUDA_VISIBLE_DEVICES='' hides all", "unset CUDA_VISIBLE_DEVICES"),
        (
            {"built_for": "cpu"},
            "580.1",
            None,
            "wrong",
            "for CPUs alone",
            "install torch and torchvision for CUDA",
        ),
        ({"cuda_error": "too old"}, "470.1", None, "wrong", "470.1, but too old", "a driver for CUDA 12.8"),
        (
            {"gpus": [{"name": "H100", "bytes": 80 * 10**9, "capability": "90"}]},
            "580.1",
            None,
            "fine",
            "1: H100, 80.0 GB, sm_90; driver 580.1",
            "",
        ),
    ],
)
def test_gpu_driver_and_torch_are_held_together(
    report: dict[str, Any],
    driver: str | None,
    hidden: str | None,
    state: str,
    says: str,
    cure: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    one = machine._gpu({**REPORT, **report}, driver)
    assert one.state == state and says in one.says and cure in one.cure


def test_names_in_the_current_folder_are_told_but_our_own_are_not(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("")
    (tmp_path / "photos.py").write_text("")
    one = places.hidden_modules({}, tmp_path)
    assert one.state == "look" and f"{tmp_path}/torch" in one.says and "photos" not in one.says
    checkout = Path(__file__).parents[4]
    assert places.hidden_modules({"PYTHONPATH": str(checkout)}, tmp_path / "torch").state == "fine"


def test_a_long_place_for_sockets_that_a_person_chose_is_wrong(tmp_path: Path) -> None:
    one = places.temporary({"RAY_TMPDIR": "/scratch/" + "x" * 60})
    assert one.state == "wrong" and "at most 35 characters" in one.cure


def test_nodes_that_differ_are_named() -> None:
    from maskmill.workers.pool.versions import NodeVersions

    own = neighbours._own_versions()
    same = neighbours._nodes_agree([NodeVersions("10.0.0.1", own)], "1 nodes")
    assert same.state == "fine"
    older = NodeVersions("10.0.0.2", {**own, "torch": "2.0", "maskmill": ""})
    mixed = neighbours._nodes_agree([NodeVersions("10.0.0.1", own), older], "2 nodes")
    assert mixed.state == "wrong"
    assert "maskmill missing on 10.0.0.2" in mixed.says and "torch 2.0 on 10.0.0.2" in mixed.says
    silent = neighbours._nodes_agree([dataclasses.replace(older, error="it did not answer")], "1 nodes")
    assert silent.state == "wrong" and "10.0.0.2: it did not answer" in silent.says
