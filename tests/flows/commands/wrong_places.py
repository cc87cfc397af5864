"""The places that wrong and right words name: files and folders of every unfit sort, and a sound dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.workers.published import Published

_COCO = {
    "images": [{"id": 1, "file_name": "0.jpg", "width": 64, "height": 48}],
    "categories": [{"id": 1, "name": "thing"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[4, 4, 40, 4, 40, 30, 4, 30]]}
    ],
}


def make_places(folder: Path, published: Published) -> dict[str, str]:
    """Makes them below a folder; their paths by name."""
    places = {name: folder / name for name in ("empty", "text_folder", "pictures", "damaged", "mats")}
    for path in places.values():
        path.mkdir(parents=True)
    (places["text_folder"] / "note.md").write_text("no picture")
    shutil.copy(published.inputs / "0.jpg", places["pictures"])
    (places["mats"] / "0.mat").write_bytes(b"no matrix")
    (places["damaged"] / "generations" / "000001").mkdir(parents=True)
    (places["damaged"] / "plan").mkdir()
    for name in ("generations/000001/generation.json", "plan/000001.json"):
        (places["damaged"] / name).write_text("{")

    files = {
        "file": ("note.md", b"no picture, no JSON"),
        "binary": ("bytes.json", bytes(range(256))),
        "no_tar": ("short.tar", b"no tar"),
        "no_toml": ("no.toml", b"[masks\n"),
        "deep_toml": ("deep.toml", b"a = " + b"[" * 5000),
        "odd_toml": ("odd.toml", b"[masks]\npoints = 4\n"),
        "coco": ("coco.json", json.dumps(_COCO).encode()),
        "list_json": ("list.json", b"[]"),
        "empty_coco": ("empty.json", b'{"images": [], "annotations": [], "categories": []}'),
        "bare_coco": ("bare.json", b'{"images": 3, "annotations": {}}'),
    }
    for name, (file, content) in files.items():
        places[name] = folder / file
        places[name].write_bytes(content)

    return {name: str(path) for name, path in places.items()} | {
        "dataset": published.spec.root,
        "tmp": str(folder),
        "key": "000000001",
    }
