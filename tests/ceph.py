"""A real S3 store for tests: Ceph's monitor, one object daemon and its gateway, on loopback, in a folder.

Debian and Ubuntu have it: `apt-get install --no-install-recommends ceph-mon ceph-osd radosgw ceph-common`.
Unlike stand-ins for S3 it decides concurrent conditional PUTs properly. Everything lives in memory and ends
with the process that started it. `python -m tests.ceph BUCKET COMMAND...` runs a command beside one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_port

PROGRAMS = ("monmaptool", "ceph-mon", "ceph", "ceph-osd", "radosgw", "radosgw-admin")
ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"

_CONFIG = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
ms bind msgr1 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
auth supported = none
ms mon client mode = crc
ms mon service mode = crc
ms mon cluster mode = crc
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
mon allow pool size one = true
mon initial members = a
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
paxos propose interval = 0.02
paxos min wait = 0.01
mon max pg per osd = 2000
osd objectstore = memstore
memstore device bytes = 4294967296
rgw rados pool pg num min = 1
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw dns name = localhost
rgw enable usage log = false
rgw enable ops log = false
rgw enable lc threads = false
rgw thread pool size = 64
"""


@dataclass(frozen=True)
class Ceph:
    """A running store.

    Attributes:
        endpoint: its http address.
        environment: what boto3 needs to reach it.
    """

    endpoint: str
    environment: dict[str, str]

    def make_bucket(self, name: str) -> None:
        """A new, empty bucket."""
        import boto3

        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        client: Any = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)
        client.create_bucket(Bucket=name)


def missing_programs() -> list[str]:
    """What is not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def running_ceph(folder: Path) -> Iterator[Ceph]:
    """Starts a store in an empty folder (about two seconds) and ends it.

    Raises:
        RuntimeError: a daemon ended or the gateway didn't answer in time; names the logs.
    """
    port, mon_port = free_port(), free_port()
    for name in ("mon", "osd", "run", "log"):
        (folder / name).mkdir(parents=True)
    fsid = str(uuid.uuid4())
    config = folder / "ceph.conf"
    config.write_text(_CONFIG.format(fsid=fsid, folder=folder, port=port, mon_port=mon_port))
    env = {**os.environ, "CEPH_CONF": str(config)}
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (folder / "log" / f"{command[0]}.out").open("wb") as log:
            daemons.append(
                subprocess.Popen([*command, "-f", "-c", str(config)], stdout=log, stderr=log, env=env)
            )

    try:
        monmap = str(folder / "monmap")
        _run(
            env,
            "monmaptool",
            "--create",
            "--clobber",
            "--fsid",
            fsid,
            "--addv",
            "a",
            f"[v2:127.0.0.1:{mon_port}]",
            monmap,
        )
        _run(env, "ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        start("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        _run(env, "ceph", "osd", "new", osd)
        _run(env, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", "-i", "0")
        start("radosgw", "-n", "client.rgw")
        endpoint = f"http://127.0.0.1:{port}"
        _await_answer(endpoint, daemons, folder)
        user = (
            "--uid=test",
            "--display-name=test",
            f"--access-key={ACCESS_KEY}",
            f"--secret-key={SECRET_KEY}",
        )
        _run(env, "radosgw-admin", "user", "create", *user)
        yield Ceph(
            endpoint,
            {
                "AWS_ENDPOINT_URL_S3": endpoint,
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        )
    finally:
        for daemon in reversed(daemons):
            daemon.kill()
            daemon.wait()


def _run(env: dict[str, str], *command: str) -> None:
    done = subprocess.run(command, env=env, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr.decode()[-500:]}"
        )


def _await_answer(endpoint: str, daemons: list[subprocess.Popen[bytes]], folder: Path) -> None:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and all(daemon.poll() is None for daemon in daemons):
        try:
            with urllib.request.urlopen(endpoint, timeout=5):
                return
        except urllib.error.HTTPError as exc:
            exc.close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the store at {endpoint} did not start; see {folder}/log")


def main() -> None:
    """Starts a store with a bucket, runs the command with the variables that reach it, ends the store."""
    bucket, *command = sys.argv[1:]
    if missing := missing_programs():
        sys.exit(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder, running_ceph(Path(folder)) as ceph:
        ceph.make_bucket(bucket)
        done = subprocess.run(command, env={**os.environ, **ceph.environment}, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
