"""Round trips in an environment with the tool, without maskmill: `trips.py NAME FOLDER` edits one mask.

A trip takes an export into its tool by the tool's own importer, erases the upper half of the first mask of
picture 1 there, and has the tool's own exporter write it out again, under FOLDER/back. Prints a table's row.
"""

# mypy: ignore-errors
# The tools have no types, and are not installed where this is checked.

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

PICTURE = "sa_1.jpg"
WHO, PASSWORD = "ana@example.org", "a test's own password"
START_S = 1800
"""What Label Studio's server may take to start: its first start makes a database of a hundred migrations."""


def halved(mask):
    """Without its upper half."""
    changed = mask.copy()
    rows = np.flatnonzero(mask.any(axis=1))
    changed[: rows[0] + (rows[-1] - rows[0] + 1) // 2] = False
    return changed


def fiftyone(folder):
    """FiftyOne's importer and exporter. Its database comes in no wheel: mongomock stands in for it."""
    import mongoengine
    import mongomock
    import pymongo

    class Client(mongomock.MongoClient):
        _closed = False

        def server_info(self):
            return {"version": "7.0.0", "versionArray": [7, 0, 0, 0]}

    kept = []

    def connect(*args, appname=None, **options):
        kept[:] = kept or [Client(*args, **options)]
        return kept[0]

    whole = mongoengine.connect
    pymongo.MongoClient = connect
    mongoengine.connect = lambda db=None, **options: whole(db, mongo_client_class=connect, **options)
    os.environ |= {
        "FIFTYONE_DATABASE_URI": "mongodb://127.0.0.1:1",
        "FIFTYONE_DISABLE_SERVICES": "1",
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    }
    import fiftyone as fo

    kind = fo.types.FiftyOneDataset
    read = fo.Dataset.from_dir(str(folder / "fiftyone"), dataset_type=kind)
    wanted = json.loads((folder / "expected.json").read_text())
    masks = 0
    for sample in read:
        expected = wanted[Path(sample.filepath).stem.removeprefix("sa_")]
        for one in sample.masks.detections:
            assert (whole_mask(one, sample.metadata) == decoded(expected.pop(str(one.maskmill_id)))).all()
            masks += 1
        assert not expected, expected
        if Path(sample.filepath).name == PICTURE:
            first = sample.masks.detections[0]
            first.mask = halved(first.mask)
            sample.save()
    read.export(str(folder / "back/fiftyone"), dataset_type=kind)
    return "fiftyone", "`Dataset.from_dir`; one mask edited; `Dataset.export`", f"{masks} masks equal"


def decoded(rle):
    """bool[H, W] of COCO's run lengths."""
    from pycocotools import mask as coco_mask

    return coco_mask.decode(rle).astype(bool)


def whole_mask(detection, size):
    """A detection's mask in its picture, as FiftyOne's own `to_segmentation` lays it."""
    found = detection.to_segmentation(frame_size=(size.width, size.height), target=255)
    return found.mask == 255


def label_studio(folder):
    """Label Studio's server on loopback, by its API: import, an annotation of each task, export."""
    import requests

    with server(folder) as address:
        web = requests.Session()
        web.get(f"{address}/user/login/", timeout=60)
        login = {"email": WHO, "password": PASSWORD, "csrfmiddlewaretoken": web.cookies["csrftoken"]}
        web.post(f"{address}/user/login/", data=login, headers={"Referer": address}, timeout=60)

        def ask(way, path, **options):
            headers = {"X-CSRFToken": web.cookies["csrftoken"], "Referer": address}
            answer = web.request(way, address + path, headers=headers, timeout=300, **options)
            assert answer.ok, (path, answer.status_code, answer.text[:300])
            return answer.json()

        config = (folder / "label_studio/config.xml").read_text()
        project = ask("POST", "/api/projects/", json={"title": "masks", "label_config": config})["id"]
        tasks = json.loads((folder / "label_studio/tasks.json").read_text())
        ask("POST", f"/api/projects/{project}/import", json=tasks)
        for task in ask("GET", f"/api/projects/{project}/tasks/?page_size=100"):
            (prediction,) = ask("GET", f"/api/predictions/?task={task['id']}")
            result = prediction["result"]
            for place, region in enumerate(result):
                region["id"] = f"new{place}"  # as its editor does when it begins from a prediction
            if task["data"]["image"].endswith(PICTURE):
                erase(result[0])
            done = {"result": result, "lead_time": 12.5}
            ask("POST", f"/api/tasks/{task['id']}/annotations/", json=done)
        exported = ask("GET", f"/api/projects/{project}/export?exportType=JSON")
    (folder / "back/label_studio.json").write_text(json.dumps(exported))
    what = "its server's API: import, one mask edited, export"
    return "label-studio", what, f"{len(exported)} tasks"


def erase(region):
    """A brush region without the upper half of its mask."""
    from label_studio_sdk.converter import brush

    size = region["original_height"], region["original_width"]
    mask = brush.decode_rle(region["value"]["rle"]).reshape(*size, 4)[:, :, 3] > 0
    region["value"]["rle"] = brush.mask2rle(halved(mask).astype(np.uint8) * 255)


@contextlib.contextmanager
def server(folder):
    """Label Studio's own server with SQLite, on a port of its own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("label-studio")),
        *("start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)),
        *("--username", WHO, "--password", PASSWORD, "--log-level", "ERROR"),
    ]
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "label_studio_data"),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(folder / "label_studio"),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    with (folder / "label_studio.log").open("w") as log:
        running = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
    try:
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        while not answers(address):
            said = (folder / "label_studio.log").read_text()[-500:]
            assert running.poll() is None, f"Label Studio's server ended: {said}"
            waited = f"Label Studio's server was not up after {START_S // 60} minutes: {said}"
            assert time.monotonic() < until, waited
            time.sleep(1.0)
        yield address
    finally:
        running.terminate()
        running.wait(60)


def answers(address):
    """Whether the server is up."""
    import requests

    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{address}/health", timeout=30).ok
    return False


TRIPS = {"fiftyone": fiftyone, "label-studio": label_studio}


def main() -> None:
    """Lists the trips of the tools that are installed here, or makes one."""
    if sys.argv[1] == "--list":
        installed = {
            re.sub("_", "-", one.name.lower()) for one in importlib.metadata.distributions() if one.name
        }
        print("\n".join(name for name in TRIPS if name in installed))
        return
    name, folder = sys.argv[1], Path(sys.argv[2])
    (folder / "back").mkdir(exist_ok=True)
    chatter = io.StringIO()
    with contextlib.redirect_stdout(chatter):
        tool, what, found = TRIPS[name](folder)
    print(f"| {tool} | {importlib.metadata.version(tool)} | {what} | {found} |")


if __name__ == "__main__":
    main()
