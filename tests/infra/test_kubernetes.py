"""infra/kubernetes as kubectl renders it: every object by its kind's schema, and what they must agree on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.infra.rendering import KUBERNETES, OVERLAYS, ROOT, at, kustomize, pods, rendered, schemas

VERSION = "1.32"
TEMPLATE = json.loads((KUBERNETES / "base" / "flow-run-template.json").read_text())


def secrets() -> dict[str, dict[str, str]]:
    """What make-secrets.sh makes: name -> its keys."""
    made = subprocess.run(
        ["sh", str(KUBERNETES / "make-secrets.sh")], capture_output=True, text=True, check=True
    )
    documents = list(yaml.safe_load_all(made.stdout))
    return {one["metadata"]["name"]: one["stringData"] for one in documents if one["kind"] == "Secret"}


def job_pod() -> dict[str, Any]:
    pod: dict[str, Any] = at(TEMPLATE, "job_configuration.job_manifest.spec.template.spec")
    return pod


def every_pod() -> list[tuple[str, dict[str, Any]]]:
    found = [pod for overlay in OVERLAYS for document in rendered(overlay) for pod in pods(document)]
    return [*found, ("flow run", job_pod())]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_what_its_kind_says(overlay: str) -> None:
    kinds = set()
    for document in rendered(overlay):
        kinds.add(document["kind"])
        foreign = schemas().get(document["kind"])
        if foreign is None:
            kubernetes_validate.validate(document, VERSION, strict=True)
        else:
            assert document["apiVersion"] == f"{foreign['group']}/{foreign['version']}"
            jsonschema.validate(document, foreign["schema"])
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "maskmill"
    assert kinds, "nothing was rendered"


def test_the_schemas_refuse_a_field_that_nobody_defined() -> None:
    (cluster,) = (one for one in rendered("base") if one["kind"] == "RayCluster")
    wrong = json.loads(json.dumps(cluster))
    wrong["spec"]["authOption"] = wrong["spec"].pop("authOptions")
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        jsonschema.validate(wrong, schemas()["RayCluster"]["schema"])
    wrong = json.loads(json.dumps(cluster))
    wrong["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(jsonschema.ValidationError, match="volumeMount"):
        jsonschema.validate(wrong, schemas()["RayCluster"]["schema"])


def test_the_flow_runs_job_is_one_with_rays_address_token_account_volumes_and_resources() -> None:
    manifest = json.loads(
        json.dumps(at(TEMPLATE, "job_configuration.job_manifest"))
        .replace('"{{ labels }}"', "{}")
        .replace('"{{ env }}"', "[]")
        .replace('"{{ command }}"', "[]")
        .replace("{{ name }}", "run")
        .replace("{{ image }}", "maskmill")
    )
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    pod = job_pod()
    given = secrets()["maskmill-runs"]
    assert {"MASKMILL_RAY_ADDRESS", "RAY_AUTH_TOKEN", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"} <= set(
        given
    )
    (cluster,) = (one for one in rendered("base") if one["kind"] == "RayCluster")
    assert given["MASKMILL_RAY_ADDRESS"] == f"ray://{cluster['metadata']['name']}-head-svc:10001"
    assert pod["serviceAccountName"] == "maskmill"
    assert {"secretRef": {"name": "maskmill-runs"}} in pod["containers"][0]["envFrom"]
    assert pod["containers"][0]["resources"]["limits"]["memory"]
    placeholders = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(TEMPLATE["job_configuration"])))
    assert placeholders == set(TEMPLATE["variables"]["properties"])


def test_secrets_are_made_random_and_all_that_is_named_is_made() -> None:
    first, second = secrets(), secrets()
    for name, keys in first.items():
        for key, value in keys.items():
            if any(word in key.lower() for word in ("auth_", "password", "token", "database")):
                assert key == "RAY_AUTH_MODE" or value != second[name][key], f"{name} {key} isn't random"
    text = json.dumps([document for overlay in OVERLAYS for document in rendered(overlay)])
    for key, name in re.findall(r'"secretKeyRef": \{"key": "([^"]+)", "name": "([^"]+)"', text):
        assert key in first[name]
    assert "auth_token" in first["maskmill-ray"]
    assert first["maskmill-runs"]["RAY_AUTH_TOKEN"] == first["maskmill-ray"]["auth_token"]
    assert first["maskmill-prefect"]["postgres-password"] in first["maskmill-prefect"]["database-url"]
    assert not any(one["kind"] == "Secret" for overlay in OVERLAYS for one in rendered(overlay))


def test_rays_token_comes_by_authoptions_and_rays_version_is_the_locked_one() -> None:
    locked = re.search(r"^ray==(\S+)", (ROOT / "infra" / "locks" / "cuda.lock").read_text(), re.M)
    assert locked is not None
    for overlay in ("base", "run"):
        for document in rendered(overlay):
            if document["kind"] in ("RayCluster", "RayJob"):
                spec = document["spec"].get("rayClusterSpec", document["spec"])
                assert spec["authOptions"] == {"mode": "token", "secretName": "maskmill-ray"}
                assert spec["rayVersion"] == locked[1]
                head = spec["headGroupSpec"]["template"]["spec"]["nodeSelector"]
                assert head == {"karpenter.sh/capacity-type": "on-demand"}
                for group in spec["workerGroupSpecs"]:
                    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
                    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
                    assert limits["nvidia.com/gpu"] == "1"


def test_no_pod_has_more_rights_than_it_needs_and_each_has_resources() -> None:
    found = every_pod()
    assert len(found) >= 8
    for place, pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True, place
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, place
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, place
            assert context["capabilities"] == {"drop": ["ALL"]}, place
            assert container["resources"]["limits"]["memory"], place
            for mount in container.get("volumeMounts", ()):
                claims = {"data"} if "postgres" in place else set()
                assert mount["name"] in claims | {volume["name"] for volume in pod["volumes"]}, place


def test_where_torch_and_ray_run_shared_memory_and_the_models_are_there() -> None:
    claims = {one["metadata"]["name"] for one in rendered("base") if one["kind"] == "PersistentVolumeClaim"}
    assert claims == {"models"}
    for place, pod in every_pod():
        if place.startswith(("Ray", "flow run")) and "submitter" not in place:
            mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory", place
            assert volumes[mounts["/models"]]["persistentVolumeClaim"]["claimName"] == "models", place


def test_the_images_name_is_said_in_one_place_and_takes_a_digest(tmp_path: Path) -> None:
    named = [path for path in KUBERNETES.rglob("*") if path.is_file() and "newName" in path.read_text()]
    assert named == [KUBERNETES / "image" / "kustomization.yaml"]
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    place = copy / "image" / "kustomization.yaml"
    digest = f"sha256:{'0' * 64}"
    place.write_text(
        place.read_text()
        .replace("registry.example.com/maskmill", "own.example.org/mm")
        .replace('newTag: "0.1.0-cpu"', f"digest: {digest}")
    )
    rendered("base")  # skips without kubectl
    text = kustomize(copy / "base") + kustomize(copy / "run")
    ours = set(re.findall(r"\bimage: (\S*/mm\S*|\S*maskmill\S*)", text))
    assert ours == {f"own.example.org/mm@{digest}", "own.example.org/mm:0.1.0-cuda"}
    assert f"value: own.example.org/mm@{digest}" in text, "flow runs take it too"


def test_the_policies_let_in_whom_they_name_and_selectors_meet_pods() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"] for one in rendered("base") if one["kind"] == "NetworkPolicy"
    }
    assert policies["inside-only"]["ingress"] == [{"from": [{"podSelector": {}}]}]
    (rule,) = policies["operator-to-head"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert policies["operator-to-head"]["podSelector"]["matchLabels"] == {"ray.io/node-type": "head"}
    (rule,) = policies["prometheus-to-metrics"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {8080, 9464}
    labels = [
        at(one, "spec.template.metadata.labels")
        for one in rendered("base")
        if one["kind"] in ("Deployment", "StatefulSet")
    ]
    for document in rendered("base"):
        if document["kind"] in ("Deployment", "StatefulSet"):
            own = at(document, "spec.template.metadata.labels")
            assert at(document, "spec.selector.matchLabels").items() <= own.items()
        if document["kind"] in ("Service", "PodDisruptionBudget"):
            wanted = document["spec"]["selector"]
            wanted = wanted.get("matchLabels", wanted)
            is_rays = all(name.startswith("ray.io/") for name in wanted)
            assert is_rays or any(wanted.items() <= own.items() for own in labels), document["metadata"]
