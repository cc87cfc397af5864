"""The files of infra/: they parse, objects have what their kinds need, secrets are placeholders, and every
maskmill command in them and in the docs is one that the command line's own parser takes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from maskmill.flows.cli import app

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
NEEDED = {
    "Deployment": (
        "spec.selector.matchLabels",
        "spec.template.metadata.labels",
        "spec.template.spec.containers",
    ),
    "StatefulSet": ("spec.serviceName", "spec.selector.matchLabels", "spec.template.spec.containers"),
    "Service": ("spec.selector", "spec.ports"),
    "RayCluster": ("spec.rayVersion", "spec.headGroupSpec.template.spec.containers", "spec.workerGroupSpecs"),
    "RayJob": (
        "spec.entrypoint",
        "spec.rayClusterSpec.headGroupSpec",
        "spec.rayClusterSpec.workerGroupSpecs",
    ),
    "Role": ("rules",),
    "RoleBinding": ("subjects", "roleRef.name"),
    "NetworkPolicy": ("spec.policyTypes",),
    "Secret": ("stringData",),
    "Namespace": (),
    "ServiceAccount": (),
}


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((INFRA / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[part]
    return document


@pytest.mark.parametrize(
    ("name", "document"), [pytest.param(*found, id=found[1]["kind"]) for found in documents()]
)
def test_kubernetes_objects_have_what_their_kinds_need(name: str, document: dict[str, Any]) -> None:
    assert document["apiVersion"] and document["metadata"]["name"], name
    for path in NEEDED[document["kind"]]:
        assert at(document, path), f"{name}: {document['kind']} lacks {path}"
    if document["kind"] in ("Deployment", "StatefulSet"):
        labels = at(document, "spec.template.metadata.labels")
        assert at(document, "spec.selector.matchLabels").items() <= labels.items()
    if document["kind"] != "Namespace":
        assert document["metadata"]["namespace"] == "maskmill"


def test_names_that_objects_use_are_there() -> None:
    found = [document for _, document in documents()]
    secret = next(d for d in found if d["kind"] == "Secret")
    accounts = {d["metadata"]["name"] for d in found if d["kind"] == "ServiceAccount"}
    text = json.dumps(found)
    for key in re.findall(r'"secretKeyRef": \{"name": "maskmill", "key": "([^"]+)"', text):
        assert key in secret["stringData"]
    assert set(re.findall(r'"serviceAccountName": "([^"]+)"', text)) <= accounts


def test_rays_nodes_are_the_drivers_version_and_spot_holds_no_head() -> None:
    locked = re.search(r"^ray==(.*)$", (ROOT / "requirements.lock").read_text(), re.M)
    assert locked is not None
    for _, document in documents():
        if document["kind"] in ("RayCluster", "RayJob"):
            spec = document["spec"].get("rayClusterSpec", document["spec"])
            assert spec["rayVersion"] == locked[1]
            head = spec["headGroupSpec"]["template"]["spec"]["nodeSelector"]
            assert head == {"karpenter.sh/capacity-type": "on-demand"}
            for group in spec["workerGroupSpecs"]:
                assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
                limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
                assert limits["nvidia.com/gpu"] == "1"


def test_compose_knows_its_services_volumes_and_variables() -> None:
    content = yaml.safe_load((INFRA / "compose.yaml").read_text())
    for service in content["services"].values():
        assert service.get("image")
        assert set(service.get("depends_on", ())) <= content["services"].keys()
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "published on the loopback address alone"
    named = set(re.findall(r"\$\{(\w+)", (INFRA / "compose.yaml").read_text()))
    given = {line.partition("=")[0] for line in (INFRA / ".env.example").read_text().splitlines()[1:] if line}
    assert named <= given


def test_the_dockerfile_copies_what_is_there_and_runs_as_nobody_special() -> None:
    text = (INFRA / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    assert re.search(r"^USER maskmill$", text, re.M)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages <= set(re.findall(r"^COPY (\w+) \w+$", text, re.M))


def test_the_policy_has_least_rights() -> None:
    policy = json.loads((INFRA / "aws" / "policy.json").read_text())
    allowed = [statement for statement in policy["Statement"] if statement["Effect"] == "Allow"]
    assert all("*" not in action for statement in allowed for action in statement["Action"])
    assert all(statement["Resource"] != "*" for statement in allowed)
    explained = (INFRA / "aws" / "README.md").read_text()
    for statement in allowed:
        for action in statement["Action"]:
            assert action in explained


def test_secrets_are_placeholders() -> None:
    for path in INFRA.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|[0-9a-f]{64}", text), path


def commands() -> Iterator[tuple[str, str]]:
    """Every maskmill command in code: of infra/'s files, and of the docs' code blocks and backticks."""
    for path in [*sorted(INFRA.rglob("*")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]:
        if not path.is_file() or path.suffix in (".jpg", ".png"):
            continue
        text = path.read_text().replace("\\\n#", "\\\n").replace("\\\n", " ")
        text = re.sub(r"entrypoint: >-\n((?:    .*\n)+)", lambda m: f"#   {' '.join(m[1].split())}\n", text)
        if path.suffix == ".md":
            blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
            lines = re.findall(r"^(?:\$ )?(maskmill [^\n]*)", "\n".join(blocks), re.M)
            prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
            lines += re.findall(r"`(maskmill [^`]+)`", prose)
        else:
            lines = re.findall(r"^#   +(?:docker \S+ -f \S+ exec worker )?(maskmill [^\n]*)", text, re.M)
            lines += re.findall(r"`(maskmill [^`\n]+)`", text)
        yield from ((str(path.relative_to(ROOT)), " ".join(line.split(" # ")[0].split())) for line in lines)


@pytest.mark.parametrize(("place", "line"), [pytest.param(*found, id=found[1][:60]) for found in commands()])
def test_every_command_that_is_named_is_one(place: str, line: str) -> None:
    """Whole commands go through the parser; one that is only mentioned, or shortened, must be there."""
    words = ["1" if word == "N" else word for word in shlex.split(re.sub(r"[\[\]]", "", line))[1:]]
    words = words[
        : next((i for i, word in enumerate(words) if word in ("|", "&&", ">", "&", ";")), len(words))
    ]
    shortened = any(word in ("...", "…") for word in words)
    group: Any = typer.main.get_command(app)
    command, context, name = group, group.context_class(group, info_name="maskmill"), "maskmill"
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name, *words = words
        assert name in command.commands, f"{place}: {line}: there is no command {name!r}"
        command = command.commands[name]
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    if getattr(command, "context_settings", {}).get("ignore_unknown_options"):
        return  # `maskmill prefect`: the words are Prefect's own
    assert options <= known | {"--help"}, f"{place}: {line}: unknown {options - known}"
    if shortened or len(words) < 2:
        return
    try:
        command.make_context(name, list(words), parent=context)
    except Exception as error:  # noqa: BLE001 - typer brings a click of its own
        kinds = {kind.__name__ for kind in type(error).__mro__}
        absent = "BadParameter" in kinds and "does not exist" in str(error)
        part = "MissingParameter" in kinds and place.endswith(".md")  # prose may name a part of a command
        assert "Exit" in kinds or absent or part, f"{place}: {line}: {error}"


def test_the_compose_files_worker_joins_ray_as_the_stranger_to_its_nodes_that_it_is() -> None:
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    worker = compose["services"]["worker"]
    assert "ray" not in worker["command"]
    assert worker["environment"]["MASKMILL_RAY_ADDRESS"] == "ray://ray:10001"
