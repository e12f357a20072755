"""The Kubernetes manifests: built by the real kustomize, held to Kubernetes' own schemas and to what the server is."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from service_parts import Service, metric_names

from service.settings import ConfigError, Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
# The first one in which a hook may sleep, and the last one of which the schemas are known.
VERSIONS = ("1.30", "1.37")
STORE = "redis+cluster://augur:secret@redis-0:6379,redis-1:6379"

Manifests = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def kubectl() -> str:
    found = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None and os.environ.get("CI"):
        pytest.fail("kubectl is missing")
    return found or pytest.skip("needs kubectl")


@pytest.fixture(scope="module")
def built(overlay: str, kubectl: str) -> Manifests:
    """What `kubectl apply -k` would send, by kind."""
    done = subprocess.run([kubectl, "kustomize", FOLDER / overlay], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    assert len({each["kind"] for each in documents}) == len(documents)
    return {each["kind"]: each for each in documents}


def pod(built: Manifests) -> dict[str, Any]:
    found: dict[str, Any] = built["Deployment"]["spec"]["template"]["spec"]
    return found


def container(built: Manifests) -> dict[str, Any]:
    (only,) = pod(built)["containers"]
    found: dict[str, Any] = only
    return found


def environment(built: Manifests) -> dict[str, str]:
    """What the process is started with, where the secrets are there."""
    secrets = {"AUGUR_STORE": STORE, "AUGUR_API_KEYS": f"web:{'0' * 64}", "AUGUR_ADMIN_KEYS": f"ops:{'1' * 64}"}
    stated = container(built)["env"]
    assert {each["name"] for each in stated if "valueFrom" in each} == set(secrets)
    plain = {each["name"]: each["value"] for each in stated if "value" in each}
    return {**built["ConfigMap"]["data"], **plain, **secrets}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_would_take_them(built: Manifests, version: str) -> None:
    assert len(built) == 7
    for each in built.values():
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("spec", "terminationGracePeriod"), 30, "terminationGracePeriod"),
        (("spec", "template", "spec", "containers", 0, "livenessProbe", "periodSeconds"), "ten", "ten"),
    ],
)
def test_the_schemas_refuse_what_is_wrong(built: Manifests, path: tuple[Any, ...], value: object, message: str) -> None:
    broken = copy.deepcopy(built["Deployment"])
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError, match=message):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_the_server_takes_its_settings(built: Manifests, overlay: str) -> None:
    settings = Settings.from_environment(environment(built))
    assert settings.store == STORE
    assert settings.log_format == "json"
    reference = container(built)["envFrom"][0]["configMapRef"]["name"]
    assert reference == built["ConfigMap"]["metadata"]["name"] != "augur-settings"
    if overlay == "cpu":
        # A lane computes on so many threads; each has a core that was asked for.
        assert settings.lanes * settings.threads == int(container(built)["resources"]["requests"]["cpu"])


def test_services_do_not_become_settings(built: Manifests) -> None:
    """Kubernetes would make variables of the name of every Service, and the server refuses unknown ones."""
    name = built["Service"]["metadata"]["name"].upper()
    with pytest.raises(ConfigError, match="no such setting"):
        Settings.from_environment({**environment(built), f"{name}_SERVICE_HOST": "10.0.0.1"})
    assert pod(built)["enableServiceLinks"] is False


def test_there_is_time_to_drain(built: Manifests) -> None:
    settings = Settings.from_environment(environment(built))
    pause = container(built)["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Two seconds are for the log, the rest for the process to end.
    assert pod(built)["terminationGracePeriodSeconds"] >= pause + settings.linger_seconds + settings.drain_seconds + 5
    assert settings.drain_seconds * 1000 >= settings.timeout_cap_ms
    # By then a proxy that checks readiness itself has seen two failures.
    ready = container(built)["readinessProbe"]
    assert settings.linger_seconds >= ready["periodSeconds"] * ready["failureThreshold"]
    strategy = built["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == 0


def test_probes_ask_what_is_answered(built: Manifests, with_service: Any) -> None:
    (port,) = container(built)["ports"]
    assert port["containerPort"] == Settings.from_environment(environment(built)).port
    names = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}

    async def scenario(service: Service) -> None:
        for name, path in names.items():
            probe = container(built)[name]
            assert probe["httpGet"] == {"path": path, "port": port["name"]}
            assert probe["timeoutSeconds"] >= 2
            assert (await service.client.get(path)).status_code == 200
        where = built["Deployment"]["spec"]["template"]["metadata"]["annotations"]
        assert where["prometheus.io/port"] == str(port["containerPort"])
        assert (await service.client.get(where["prometheus.io/path"])).status_code == 200

    with_service(scenario)


def test_the_autoscaler_asks_for_metrics_that_exist(built: Manifests, with_service: Any) -> None:
    spec = built["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"]["name"] == built["Deployment"]["metadata"]["name"]
    assert "replicas" not in built["Deployment"]["spec"]
    targets = {each["pods"]["metric"]["name"]: each["pods"]["target"] for each in spec["metrics"] if "pods" in each}
    assert targets["augur_queue_candidates"]["averageValue"] == str(Settings().batch_candidates)
    assert len(spec["metrics"]) == 2
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    adapted = re.search(r'__name__=~"(.+?)"', rule["seriesQuery"])
    assert adapted is not None
    assert all(re.fullmatch(adapted[1], name) for name in targets)

    async def scenario(service: Service) -> None:
        assert set(targets) <= await metric_names(service)

    with_service(scenario)


def test_selectors_find_the_pods(built: Manifests) -> None:
    labels = built["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        built["Deployment"]["spec"]["selector"]["matchLabels"],
        built["Service"]["spec"]["selector"],
        built["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        built["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in pod(built)["topologySpreadConstraints"]),
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)


def test_the_ingress_hashes_users_and_shows_no_metrics(built: Manifests, with_service: Any) -> None:
    ingress = built["Ingress"]
    notes = {name.partition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert notes["balance-algorithm"] == "hdr(X-User-ID)"
    assert "hash-type consistent" in notes["config-backend"].splitlines()
    (rule,) = ingress["spec"]["rules"]
    (port,) = built["Service"]["spec"]["ports"]
    backend = {"service": {"name": built["Service"]["metadata"]["name"], "port": {"name": port["name"]}}}
    assert all(each["backend"] == backend for each in rule["http"]["paths"])
    prefixes = tuple(each["path"] for each in rule["http"]["paths"])

    async def scenario(service: Service) -> None:
        routes = (await service.client.get("/openapi.json")).json()["paths"]
        shown = {route for route in routes if route.startswith(prefixes)}
        assert {"/v1/score", "/v1/behaviors"} < shown
        assert "/metrics" in routes.keys() - shown

    with_service(scenario)


def test_the_network_lets_nothing_else_through(built: Manifests) -> None:
    spec = built["NetworkPolicy"]["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    (rule,) = spec["ingress"]
    assert rule["from"]
    assert rule["ports"] == [{"port": container(built)["ports"][0]["name"]}]
    assert {port["port"] for rule in spec["egress"] for port in rule["ports"]} == {53, 6379}


def test_pods_are_restricted(built: Manifests) -> None:
    """Pod Security Standards, "restricted", and a root that is read-only."""
    security = pod(built)["securityContext"]
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in (container(built), *pod(built).get("initContainers", [])):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert each["image"] == container(built)["image"]
    assert pod(built)["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod(built).keys()


def test_what_is_written_is_bounded_and_has_a_place(built: Manifests, overlay: str) -> None:
    volumes = {each["name"]: each for each in pod(built).get("volumes", [])}
    mounts = {each["mountPath"]: each["name"] for each in container(built).get("volumeMounts", [])}
    assert set(mounts) == (set() if overlay == "cpu" else {"/cache", "/tmp"})
    assert all(volumes[name]["emptyDir"]["sizeLimit"] for name in mounts.values())
    if overlay == "gpu":
        assert Path(environment(built)["TRITON_CACHE_DIR"]).is_relative_to("/cache")
        assert container(built)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    resources = container(built)["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "memory" in resources["limits"]


def test_kernels_of_the_image_are_there_at_the_start(built: Manifests, overlay: str, tmp_path: Path) -> None:
    if overlay == "cpu":
        assert "initContainers" not in pod(built)
        return
    (first,) = pod(built)["initContainers"]
    assert "env" not in first
    command = [part.replace("/cache", str(tmp_path / "cache")) for part in first["command"]]
    (tmp_path / "image" / "key").mkdir(parents=True)
    (tmp_path / "image" / "key" / "kernel.cubin").write_bytes(b"compiled")
    path = {"PATH": os.environ["PATH"]}
    subprocess.run(command, check=True, env=path)
    assert list((tmp_path / "cache" / "triton").iterdir()) == []
    for _ in range(2):  # Also when the pod starts again with its cache.
        subprocess.run(command, check=True, env=path | {"TRITON_CACHE_DIR": str(tmp_path / "image")})
    assert (tmp_path / "cache" / "triton" / "key" / "kernel.cubin").read_bytes() == b"compiled"


def test_the_image_is_of_this_version(built: Manifests) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.fullmatch(rf".+/augur:{re.escape(version)}(-cuda)?", container(built)["image"])
