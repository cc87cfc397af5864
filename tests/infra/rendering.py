"""What `kubectl kustomize` makes of infra/kubernetes, and what the kinds of other projects must look like."""

from __future__ import annotations

import functools
import json
import lzma
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
SCHEMAS = Path(__file__).parent / "schemas"
OVERLAYS = ("base", "run", "monitoring")


@functools.cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    """The objects of an overlay; skips where kubectl isn't installed."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: apt-get install kubernetes-client")
    return tuple(yaml.safe_load_all(kustomize(KUBERNETES / overlay)))


def kustomize(folder: Path) -> str:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def schemas() -> dict[str, dict[str, Any]]:
    """By kind: its group, version and schema, closed: a field that isn't there is an error."""
    found = {}
    for path in sorted(SCHEMAS.glob("*.xz")):
        held = json.loads(lzma.decompress(path.read_bytes()))
        found[held["kind"]] = {**held, "schema": closed(held["schema"])}
    return found


def closed(schema: Any) -> Any:
    """As the API server reads it: a field nobody defined is refused, an int-or-string may be either."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(part) for name, part in schema.items()}
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace("^(?i)", "(?i)^")  # Go's order of them
    if isinstance(made.get("properties"), dict) and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[part]
    return document


def pods(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The pod specs in an object, each with where it is."""
    kind, name = document["kind"], document["metadata"]["name"]
    if kind in ("Deployment", "StatefulSet"):
        return [(f"{kind} {name}", document["spec"]["template"]["spec"])]
    if kind not in ("RayCluster", "RayJob"):
        return []
    spec = document["spec"].get("rayClusterSpec", document["spec"])
    groups = [("head", spec["headGroupSpec"]), *((g["groupName"], g) for g in spec["workerGroupSpecs"])]
    found = [(f"{kind} {name} {group}", made["template"]["spec"]) for group, made in groups]
    if kind == "RayJob":
        found.append((f"{kind} {name} submitter", document["spec"]["submitterPodTemplate"]["spec"]))
    return found
