"""The manifests of deploy/kubernetes: valid by the schemas of Kubernetes, and right for starts and stops."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from jobtape.settings import Settings
from tools.clone import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.30", kubernetes_validate.latest_version())
"""The oldest version that the manifests are for, and the newest whose schemas are here."""
Manifest = dict[str, Any]


def manifests(*names: str) -> list[Manifest]:
    """Return the documents of the files, in order; without names those of all files."""
    files = [FOLDER / name for name in names] if names else sorted(FOLDER.glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


KUSTOMIZATION: Manifest = manifests("kustomization.yaml")[0]
APPLIED = manifests(*KUSTOMIZATION["resources"])
OF_KUBERNETES = [
    each for each in manifests() if "k8s.io/v1beta1" not in each["apiVersion"] and "keda" not in each["apiVersion"]
]
DEPLOYMENTS = {each["metadata"]["name"]: each for each in APPLIED if each["kind"] == "Deployment"}
SETTINGS = next(each["data"] for each in APPLIED if each["kind"] == "ConfigMap")
SECRETS = set(manifests("secret.example.yaml")[0]["stringData"]) | {"JOBTAPE_SECRET_KEYS"}


def label(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


def pod(deployment: Manifest) -> Manifest:
    found: Manifest = deployment["spec"]["template"]["spec"]
    return found


def container(deployment: Manifest) -> Manifest:
    (found,) = pod(deployment)["containers"]
    return dict(found)


def environment(deployment: Manifest) -> dict[str, Any]:
    own = {each["name"]: each.get("value") for each in container(deployment).get("env", [])}
    return {**SETTINGS, **own}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", OF_KUBERNETES, ids=label)
def test_manifest_is_valid(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_schemas_refuse_a_wrong_field() -> None:
    wrong = {**DEPLOYMENTS["jobtape-worker"], "spec": {**DEPLOYMENTS["jobtape-worker"]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_each_part_is_deployed() -> None:
    parts = {name: container(each)["args"] for name, each in DEPLOYMENTS.items()}
    assert parts == {"jobtape-api": ["api"], "jobtape-worker": ["worker"], "jobtape-projector": ["projector"]}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pod_outlives_the_grace_period(name: str) -> None:
    grace = float(SETTINGS["JOBTAPE_GRACE_PERIOD"])
    before = 5 if "lifecycle" in container(DEPLOYMENTS[name]) else 0
    assert pod(DEPLOYMENTS[name])["terminationGracePeriodSeconds"] >= grace + before + 10


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_variables_are_settings_and_secrets_are_references(name: str) -> None:
    known = {f"JOBTAPE_{field.upper()}" for field in Settings.model_fields} | {
        "RABBITMQ_URL",
        "DATABASE_URL",
        "PYTHONMALLOC",
    }
    variables = environment(DEPLOYMENTS[name])
    assert set(variables) <= known
    for each in container(DEPLOYMENTS[name])["env"]:
        if each["name"] in SECRETS:
            assert each["valueFrom"]["secretKeyRef"] == {"name": "jobtape", "key": each["name"]} | (
                {"optional": True} if each["name"] == "JOBTAPE_SECRET_KEYS" else {}
            )
    assert ("DATABASE_URL" in variables) == (name != "jobtape-worker")
    assert not SECRETS & set(SETTINGS)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_probes_reach_a_port_that_listens_for_the_kubelet(name: str) -> None:
    found, variables = container(DEPLOYMENTS[name]), environment(DEPLOYMENTS[name])
    ports = {each["name"]: each["containerPort"] for each in found["ports"]}
    expected = Settings.model_fields["port"].default if name == "jobtape-api" else int(variables["JOBTAPE_HEALTH_PORT"])
    assert variables["JOBTAPE_HOST"] == "0.0.0.0"
    for probe, path in (("startupProbe", "live"), ("livenessProbe", "live"), ("readinessProbe", "ready")):
        get = found[probe]["httpGet"]
        assert (get["path"], ports[get["port"]]) == (f"/health/{path}", expected)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pod_has_the_rights_of_no_root(name: str) -> None:
    assert pod(DEPLOYMENTS[name])["securityContext"]["runAsNonRoot"] is True
    assert pod(DEPLOYMENTS[name])["enableServiceLinks"] is False
    security = container(DEPLOYMENTS[name])["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert f"--uid {pod(DEPLOYMENTS[name])['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("manifest", [each for each in APPLIED if "spec" in each], ids=label)
def test_selectors_match_pods(manifest: Manifest) -> None:
    pods = [each["spec"]["template"]["metadata"]["labels"].items() for each in DEPLOYMENTS.values()]
    spec = manifest["spec"]
    wanted = spec["scaleTargetRef"]["name"] if "scaleTargetRef" in spec else None
    if wanted is not None:
        assert wanted in DEPLOYMENTS
        assert "replicas" not in DEPLOYMENTS[wanted]["spec"]  # each apply would undo what the autoscaler decided
        return
    selector = spec.get("podSelector") or spec["selector"]
    labels = selector.get("matchLabels", selector)
    assert any(labels.items() <= each for each in pods)


def test_keda_scales_the_workers_by_a_queue_that_exists() -> None:
    """KEDA's own schemas are not here, so only what the manifest refers to is checked."""
    access, scaled = manifests("keda.yaml")
    assert scaled["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["authenticationRef"]["name"] == access["metadata"]["name"]
    assert trigger["metadata"]["queueName"] == f"{SETTINGS['JOBTAPE_NAMESPACE']}.run.default"
    assert access["spec"]["secretTargetRef"] == [{"parameter": "host", "name": "jobtape", "key": "RABBITMQ_URL"}]
