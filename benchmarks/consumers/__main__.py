"""Do the tools that people use open what we export, with equal masks, labels and splits?

    make consumers        (python -m benchmarks.consumers --python build/consumers/bin/python ...)

A small dataset is exported in every form; what must be found in it is written down beside it as JSON; each
check (checks.py) is then run by the tools' own interpreter, which has the tools and not maskmill. Prints a
Markdown table. What isn't installed there is said to be so, and isn't a failure.

`--trip PYTHON` names an interpreter with an editor of its own: one mask is edited in it (trips.py), its
export is taken back here, and must be one review of one changed mask, all else byte for byte as before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from maskmill.storage.dataset.generations import load_generation
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.export import export
from maskmill.workers.exports.formats import ExportChoices
from maskmill.workers.exports.publish.push import stage
from maskmill.workers.exports.publish.settings import PublishSettings
from maskmill.workers.reading.samples import read_annotated
from maskmill.workers.tools.take_back import SAME, SAVED, take_back
from tests.workers.published import Published, publish_dataset

SPLIT = "60/20/20"
EXPORTS: dict[str, dict[str, Any]] = {
    "coco": {},
    "coco_polygons": {"format": "coco", "polygons": True},
    "lvis": {},
    "yolo": {"split": SPLIT},
    "label_studio": {},
    "panoptic": {},
    "sa1b": {},
    "fiftyone": {},
}
BACK = {"label-studio": ("label_studio", "label_studio.json"), "fiftyone": ("fiftyone", "fiftyone")}
"""Tools that edits come back from: the format, and what the tool wrote under `back/`."""
WAITS = {
    "label-studio": ": waiting for its server; the first start makes a database, a minute of a core's work"
}


def main() -> None:
    """Exports, checks, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="the interpreter that has the tools")
    parser.add_argument("--trip", action="append", default=[], help="an interpreter that has an editor")
    asked = parser.parse_args()
    python = str(Path(asked.python).absolute())
    with tempfile.TemporaryDirectory() as folder:
        data = write_exports(Path(folder))
        checks = Path(__file__).with_name("checks.py")
        names = subprocess.run([python, str(checks), "--list"], capture_output=True, text=True, check=True)
        print(f"{datetime.date.today()}, Python {sys.version.split()[0]}\n")
        print("| tool | version | what it read | found |\n|---|---|---|---|")
        failed = False
        for name in names.stdout.split():
            say(name)
            command = [python, "-W", "ignore", str(checks), name, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
            failed |= done.returncode != 0
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            print(
                done.stdout.strip().splitlines()[-1]
                if done.returncode == 0
                else f"| {name} | | | FAILED: {last} |"
            )
        for interpreter in asked.trip:
            failed |= not make_trips(str(Path(interpreter).absolute()), Path(folder), data)
    sys.exit(1 if failed else 0)


def say(what: str) -> None:
    """What is waited for, on standard error."""
    print(f"{datetime.datetime.now():%H:%M:%S} {what}", file=sys.stderr, flush=True)


def make_trips(python: str, folder: Path, data: Published) -> bool:
    """Edits a mask in each editor of an interpreter, and takes it back; whether all went well."""
    trips = str(Path(__file__).with_name("trips.py"))
    listed = subprocess.run([python, trips, "--list"], capture_output=True, text=True, check=True)
    went_well = True
    for name in listed.stdout.split():
        say(f"{name}{WAITS.get(name, '')}")
        command = [python, "-W", "ignore", trips, name, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode:
            words = (done.stderr.strip().splitlines() or ["no word"])[-1]
            print(f"| {name} | | | FAILED: {words} |")
        else:
            row = done.stdout.strip().splitlines()[-1].rstrip(" |")
            print(f"{row}; back: {one_edit(name, folder, data)} |")
        went_well &= not done.returncode
    return went_well


def one_edit(name: str, folder: Path, data: Published) -> str:
    """Takes an editor's edits back into a copy of the dataset, and says what came of them.

    Raises:
        AssertionError: anything but one review of one changed mask, or a file that changed.
    """
    format, written = BACK[name]
    root = folder / f"dataset of {format}"
    shutil.copytree(data.store.root, root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    store = open_store(str(root))
    generation = load_generation(store, data.generation.number)
    path, now = folder / "back" / written, "2025-01-01T00:00:00+00:00"
    taken = take_back(store, [path], format=format, generation=generation, who="Ana", created_utc=now)

    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    new = [str(path.relative_to(root)) for path in after if path not in before]
    assert {path: after[path] for path in before} == before, "a file changed"
    assert new == ["review/saves/000000001/000001.json"], new
    assert taken.masks["changed"] == 1 and sum(taken.masks.values()) == taken.masks["kept"] + 1, taken
    assert taken.pictures[SAVED] == 1 and taken.pictures[SAME] == sum(taken.pictures.values()) - 1, taken
    return "1 mask changed, 1 save, all other files byte for byte"


def write_exports(folder: Path) -> Published:
    """Every export, and `expected.json`: the masks of each image by its id."""
    data = publish_dataset(folder / "work")
    for name, choices in EXPORTS.items():
        export(data.store, data.generation, str(folder / name), **{"format": name, **choices})
    taken = ExportChoices(format="hf", split=SPLIT)
    words = PublishSettings(license="cc-by-4.0")
    stage(data.store, data.generation, "me/shapes", folder / "hf", taken, words)
    (folder / "expected.json").write_text(json.dumps(expected(data)))
    return data


def expected(data: Published) -> dict[str, Any]:
    """Run lengths by image and mask."""
    return {
        str(sample.record["image"]["image_id"]): {
            str(row["id"]): row["segmentation"] for row in sample.record["annotations"]
        }
        for sample in read_annotated(data.store, data.generation)
    }


if __name__ == "__main__":
    main()
