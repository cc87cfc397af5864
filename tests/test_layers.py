"""The layer rules of docs/concepts.md, held by walking every import of the five rooms, lazy ones included.

pipeline knows arrays, storage knows bytes, workers know both, flows know only names and numbers; maskmill's
own files, the library, stand above workers and know neither Ray nor Prefect nor flows.
"""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NETWORK = frozenset(
    {
        "socket",
        "ssl",
        "http",
        "urllib",
        "ftplib",
        "smtplib",
        "poplib",
        "imaplib",
        "telnetlib",
        "xmlrpc",
        "socketserver",
        "asyncio",
        "webbrowser",
    }
)
ARRAYS = frozenset(
    {
        "torch",
        "torchvision",
        "numpy",
        "PIL",
        "cv2",
        "skimage",
        "scipy",
        "numba",
        "llvmlite",
        "transformers",
        "segment_anything",
        "triton",
        "safetensors",
        "pycocotools",
    }
)
CLUSTER = frozenset({"ray", "prefect"})


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a layer may import beside itself and the standard library.

    `packages` are whole top-level packages; `modules` are single modules of ours; `refused` is taken from the
    standard library.
    """

    packages: frozenset[str]
    modules: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()


RULES = {
    "pipeline": Rule(packages=ARRAYS | {"huggingface_hub", "timm", "sam2"}, refused=NETWORK),
    "storage": Rule(
        packages=frozenset(
            {"boto3", "botocore", "duckdb", "pyarrow", "webdataset", "urllib3", "_typeshed"}
            | {"huggingface_hub", "httpx"}  # datasets are pushed there
        )
    ),
    "workers": Rule(
        packages=ARRAYS
        | {"ray", "pyarrow", "webdataset", "maskmill.pipeline", "maskmill.storage"}
        | {"fastapi", "jinja2", "uvicorn"}
    ),
    "maskmill": Rule(
        packages=ARRAYS
        | {
            "pyarrow",
            "pandas",
            "supervision",
            "webdataset",
            "maskmill.pipeline",
            "maskmill.storage",
            "maskmill.workers",
        },
    ),
    "flows": Rule(
        packages=frozenset(
            {
                "prefect",
                "ray",
                "grpc",
                "typer",
                "click",
                "rich",
                "pydantic",
                "prometheus_client",
                "uvicorn",
                "maskmill.storage",
                "maskmill.workers",
            }
        ),
        modules=frozenset({"maskmill.pipeline.settings", "maskmill.pipeline.checks"}),
    ),
}


def imported(source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file, wherever it stands; "?" for a computed one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
            name = node.args[0] if node.args else None
            yield node.lineno, str(name.value) if isinstance(name, ast.Constant) else "?"


def violations(layer: str, source: str) -> list[str]:
    """What `source`, a file of `layer`, imports against the rules."""
    return [f"line {line}: {name}" for line, name in imported(source) if not _allowed(layer, name)]


def _called(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


def _allowed(layer: str, name: str) -> bool:
    rule = RULES[layer]
    top = name.partition(".")[0]
    if top == "maskmill":
        top = ".".join(name.split(".")[:2])
        if layer == "maskmill" and top.partition(".")[2] not in RULES:
            return True  # a file or name of the library itself
    if top == f"maskmill.{layer}" or top in rule.packages:
        return True
    if any(name == module or name.startswith(f"{module}.") for module in rule.modules):
        return True
    return top in sys.stdlib_module_names and top not in rule.refused


def files_of(layer: str) -> list[Path]:
    """The code of a room; the library's but for `python -m maskmill`, which is the command line."""
    if layer == "maskmill":
        return sorted(path for path in (ROOT / layer).glob("*.py") if path.name != "__main__.py")
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", sorted(RULES))
def test_every_import_keeps_to_its_layer(layer: str) -> None:
    files = files_of(layer)
    assert len(files) > 1, f"{layer}/ has no code: is the tree where this test looks?"
    found = {
        str(path.relative_to(ROOT)): bad
        for path in files
        if (bad := violations(layer, path.read_text("utf-8")))
    }
    assert found == {}


def test_one_file_of_the_pipeline_goes_to_the_hub() -> None:
    files = (ROOT / "pipeline").rglob("*.py")
    found = {path.name for path in files if "huggingface_hub" in path.read_text("utf-8")}
    assert found == {"hub.py"}


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("pipeline", "import maskmill.storage.shards.shards"),
        ("pipeline", "import pipeline.rle"),
        ("pipeline", "def f():\n    from ray import get"),
        ("pipeline", "import urllib.request"),
        ("pipeline", "import requests"),
        ("storage", "from maskmill.pipeline.rle import Rle"),
        ("storage", "def f():\n    import torch"),
        ("storage", "from PIL import Image"),
        ("workers", "import maskmill.flows.cli"),
        ("workers", "from prefect import task"),
        ("maskmill", "import ray"),
        ("maskmill", "def f():\n    from prefect import flow"),
        ("maskmill", "from maskmill.flows.config import load_config"),
        ("maskmill", "from maskmill import flows"),
        ("workers", "from maskmill.masks import Masks"),
        ("workers", "from maskmill import annotate"),
        ("flows", "from maskmill import annotate"),
        ("flows", "def f():\n    import torch"),
        ("flows", "import numpy as np"),
        ("flows", "from maskmill.pipeline.masks.automask import AutomaticMasks"),
        ("flows", "import importlib\nimportlib.import_module('torch')"),
        ("flows", "import importlib\nimportlib.import_module(name)"),
        ("flows", "if TYPE_CHECKING:\n    import torch"),
    ],
)
def test_a_forbidden_import_is_found_wherever_it_hides(layer: str, source: str) -> None:
    assert len(violations(layer, source)) == 1


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("pipeline", "import torch\nfrom maskmill.pipeline.rle import Rle\nimport math"),
        ("storage", "import boto3\nfrom maskmill.storage import errors"),
        (
            "workers",
            "import ray\nfrom maskmill.pipeline import rle\nfrom maskmill.storage import stores",
        ),
        (
            "maskmill",
            "import torch\nfrom maskmill.workers import run\nfrom maskmill.masks import Masks",
        ),
        (
            "flows",
            "import ray\nfrom maskmill.pipeline import settings\nfrom maskmill.workers import run",
        ),
    ],
)
def test_what_a_layer_may_import_passes(layer: str, source: str) -> None:
    assert violations(layer, source) == []
