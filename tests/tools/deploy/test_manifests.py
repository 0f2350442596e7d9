"""The manifests: valid for Kubernetes, made of the chart, and true of the server that they run."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry
from typer.main import get_command

from penstock_server.app import LAST_RESORT_S
from penstock_server.capacity.estimate import Room, ServerCapacity
from penstock_server.capacity.gauges import CapacityCollector
from penstock_server.settings import ServerSettings
from penstock_tools.cli.app import app
from tests.tools.deploy import render
from tests.tools.deploy.crds import SCHEMAS

DEPLOY = render.DEPLOY
FILES = sorted([*DEPLOY.glob("*.yaml"), *(DEPLOY / "kubernetes").glob("*.yaml"), *(DEPLOY / "kserve").glob("*.yaml")])
VERSIONS = ("1.28", "1.37")
EVERYTHING: dict[str, Any] = {
    "ports": {"rest": 8000},
    "repositoryClaim": "models",
    "serviceMonitor": True,
    "autoscaling": {"hpa": True},
    "networkPolicy": {
        "clients": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}],
        "monitoring": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
    },
    "env": [{"name": "PENSTOCK_PYTHON_ALLOW", "value": "1"}],
    "envFrom": [{"secretRef": {"name": "mlflow"}}],
    "imagePullSecrets": [{"name": "registry"}],
    "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}],
    "volumeMounts": [{"name": "tls", "mountPath": "/etc/tls", "readOnly": True}],
    "podAnnotations": {"sidecar.istio.io/inject": "true"},
    "nodeSelector": {"pool": "models"},
    "tolerations": [{"key": "models", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
}


def documents(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


def check(document: dict[str, Any], version: str) -> None:
    if (schema := SCHEMAS.get(document["kind"])) is not None:
        jsonschema.validate(document, schema)
    else:
        kubernetes_validate.validate(document, version, strict=True)


def rendered(values: dict[str, Any]) -> dict[str, str]:
    try:
        return render.rendered(values)
    except render.NoHelmError as error:
        pytest.skip(str(error))


def committed(name: str) -> list[dict[str, Any]]:
    return documents((DEPLOY / name).read_text())


def kinds(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in found}


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_committed_manifests_are_valid(file: Path, version: str) -> None:
    found = documents(file.read_text())
    assert found
    for document in found:
        check(document, version)


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"autoscaling": {"keda": True}, "registry": ""}])
def test_what_the_chart_makes_is_valid(values: dict[str, Any]) -> None:
    for text in rendered(values).values():
        for document in documents(text):
            check(document, VERSIONS[-1])


def test_committed_manifests_are_what_the_chart_makes() -> None:
    try:
        fresh = render.plain()
    except render.NoHelmError as error:
        pytest.skip(str(error))
    for name, text in fresh.items():
        assert documents(text) == committed(f"kubernetes/{name}"), "run python -m tests.tools.deploy.render"


def test_two_autoscalers_are_refused() -> None:
    with pytest.raises(ValueError, match="KEDA makes a HorizontalPodAutoscaler"):
        rendered({"autoscaling": {"hpa": True, "keda": True}})


def test_a_misspelt_field_is_found() -> None:
    (scaled,) = committed("kubernetes/autoscaling-keda.yaml")
    scaled["spec"]["minReplicas"] = 2
    with pytest.raises(jsonschema.ValidationError):
        check(scaled, VERSIONS[-1])
    deployment = kinds(committed("kubernetes/penstock.yaml"))["Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment, VERSIONS[-1])


def containers() -> list[dict[str, Any]]:
    deployment = kinds(committed("kubernetes/penstock.yaml"))["Deployment"]
    runtime = kinds(committed("kserve/runtime.yaml"))["ClusterServingRuntime"]
    return [deployment["spec"]["template"]["spec"]["containers"][0], runtime["spec"]["containers"][0]]


@pytest.mark.parametrize("container", containers(), ids=["kubernetes", "kserve"])
def test_containers_run_as_nobody_on_a_root_that_they_cannot_write(container: dict[str, Any]) -> None:
    allowed = container["securityContext"]
    assert (allowed["readOnlyRootFilesystem"], allowed["allowPrivilegeEscalation"]) == (True, False)
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    # What the image's settings and the server write to.
    written = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    image = (DEPLOY.parents[1] / "Dockerfile").read_text()
    assert set(re.findall(r"_DIR=(\S+)", image)) < written
    assert {"/tmp", "/dev/shm"} < written
    assert "USER 10001:10001" in image
    pod = kinds(committed("kubernetes/penstock.yaml"))["Deployment"]["spec"]["template"]["spec"]["securityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"]) == (True, 10001)


@pytest.mark.parametrize("container", containers(), ids=["kubernetes", "kserve"])
def test_probes_ask_the_port_that_answers_them(container: dict[str, Any]) -> None:
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    http = int(next(each for each in container["args"] if each.startswith("--http-port=")).partition("=")[2])
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        asked = container[probe]["httpGet"]
        assert (asked["path"], ports.get(asked["port"], asked["port"])) == (path, http)


@pytest.mark.parametrize("container", containers(), ids=["kubernetes", "kserve"])
def test_the_server_has_these_options(container: dict[str, Any]) -> None:
    command = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {each.partition("=")[0] for each in container["args"]} <= known


def test_the_job_of_each_night_calls_a_command_that_there_is() -> None:
    (job,) = committed("batch-cronjob.yaml")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    called = shlex.split(container["args"][0].partition("exec penstock ")[2])
    command = get_command(app).commands[called[0]]  # type: ignore[attr-defined]
    assert command.make_context("batch", called[1:]).params["key"] == ("id",)
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/scratch", "/tmp"}


def test_settings_are_the_server_s_and_calls_have_time_to_end() -> None:
    found = kinds(committed("kubernetes/penstock.yaml"))
    settings = msgspec.convert(tomllib.loads(found["ConfigMap"]["data"]["penstock.toml"]), ServerSettings, strict=False)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    waits_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= waits_s + settings.grace_s + 10
    assert settings.grpc.connection_age_s == 300


def test_services_and_policies_name_ports_that_there_are() -> None:
    found = committed("kubernetes/penstock.yaml")
    ports = {each["name"] for each in containers()[0]["ports"]}
    services = [each["spec"] for each in found if each["kind"] == "Service"]
    assert {port["targetPort"] for service in services for port in service["ports"]} == ports
    assert [service.get("clusterIP") for service in services] == [None, "None"]
    policy = kinds(found)["NetworkPolicy"]["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports
    monitor = kinds(committed("kubernetes/service-monitor.yaml"))["ServiceMonitor"]["spec"]
    assert {each["port"] for each in monitor["endpoints"]} <= ports
    labels = kinds(found)["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [service["selector"] for service in services]
    selectors += [
        kinds(found)[kind]["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_autoscalers_go_by_a_metric_that_the_server_has() -> None:
    registry = CollectorRegistry()
    registry.register(CapacityCollector(lambda: ServerCapacity(0.5, 1.0, {"m": Room(1.0, 0.5)})))
    named = {family.name for family in registry.collect()}
    hpa = kinds(committed("kubernetes/autoscaling-hpa.yaml"))["HorizontalPodAutoscaler"]["spec"]
    (keda,) = kinds(committed("kubernetes/autoscaling-keda.yaml"))["ScaledObject"]["spec"]["triggers"]
    served = kinds(committed("kserve/inference-service.yaml"))["InferenceService"]["spec"]["predictor"]
    queries = [keda["metadata"]["query"], served["autoScaling"]["metrics"][0]["external"]["metric"]["query"]]
    asked = {hpa["metrics"][0]["pods"]["metric"]["name"], *(re.findall(r"penstock_\w+", each)[0] for each in queries)}
    assert asked == {"penstock_capacity_ratio"} <= named
    assert hpa["scaleTargetRef"]["name"] == "penstock"


def test_the_chart_is_of_this_version() -> None:
    root = DEPLOY.parents[1]
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((render.CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert all(container["image"] == f"penstock:{version}" for container in containers())


def test_the_unit_file_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if (systemd := shutil.which("systemd-analyze")) is None:
        pytest.skip("there is no systemd-analyze")
    unit = tmp_path / "penstock.service"
    # Whatever it starts must be there.
    unit.write_text((DEPLOY / "penstock.service").read_text().replace("/opt/penstock/bin/penstock", sys.executable))
    done = subprocess.run([systemd, "verify", unit], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "penstock" in line]) == (0, [])
    stops_s = int(re.findall(r"TimeoutStopSec=(\d+)", unit.read_text())[0])
    assert stops_s >= ServerSettings().grace_s + LAST_RESORT_S
