"""Do the tools that people use open what we export, with equal masks, labels and splits?

    make consumers        (python -m benchmarks.consumers --python build/consumers/bin/python)

A small dataset is exported in every form; what must be found in it is written down beside it as JSON; each
check (checks.py) is then run by the tools' own interpreter, which has the tools and not maskmill. Prints a
Markdown table. What isn't installed there is said to be so, and isn't a failure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from maskmill.workers.exports.export import export
from maskmill.workers.exports.formats import ExportChoices
from maskmill.workers.exports.publish.push import stage
from maskmill.workers.exports.publish.settings import PublishSettings
from maskmill.workers.reading.samples import read_annotated
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
}


def main() -> None:
    """Exports, checks, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="the interpreter that has the tools")
    python = str(Path(parser.parse_args().python).absolute())
    with tempfile.TemporaryDirectory() as folder:
        write_exports(Path(folder))
        checks = Path(__file__).with_name("checks.py")
        names = subprocess.run([python, str(checks), "--list"], capture_output=True, text=True, check=True)
        print(f"{datetime.date.today()}, Python {sys.version.split()[0]}\n")
        print("| tool | version | what it read | found |\n|---|---|---|---|")
        failed = False
        for name in names.stdout.split():
            command = [python, "-W", "ignore", str(checks), name, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
            failed |= done.returncode != 0
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            print(
                done.stdout.strip().splitlines()[-1]
                if done.returncode == 0
                else f"| {name} | | | FAILED: {last} |"
            )
    sys.exit(1 if failed else 0)


def write_exports(folder: Path) -> None:
    """Every export, and `expected.json`: the masks of each image by its id."""
    data = publish_dataset(folder / "work")
    for name, choices in EXPORTS.items():
        export(data.store, data.generation, str(folder / name), **{"format": name, **choices})
    taken = ExportChoices(format="hf", split=SPLIT)
    words = PublishSettings(license="cc-by-4.0")
    stage(data.store, data.generation, "me/shapes", folder / "hf", taken, words)
    (folder / "expected.json").write_text(json.dumps(expected(data)))


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
