"""The composition: by the schema of the specification, against the files it names, and its commands run here."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from deploy_parts import Client, need

from loadtest.stack import PROXY, SCORER_LINE, Process, free_port, until, user
from service.settings import Settings

DOCKER = Path(__file__).resolve().parents[2] / "docker"
PASSWORD = "a1B2c3"


def substituted(text: str) -> str:
    """With the variables of compose filled in: the required ones by our password, the others by their defaults."""
    text = re.sub(r"\$\{\w+:\?[^}]*\}|\$\{AUGUR_REDIS_PASSWORD\}", PASSWORD, text)
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def loaded(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(substituted((DOCKER / name).read_text()))
    assert "$" not in json.dumps(document["services"])
    return document


COMPOSE, GPU = loaded("compose.yaml"), loaded("compose.gpu.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCORERS = {name: service for name, service in SERVICES.items() if name.startswith("scorer-")}


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_it_is_what_the_specification_says(name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(DOCKER / name)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_scorer_has_settings_that_a_server_takes_and_a_port_of_its_own() -> None:
    settings = {
        name: Settings.from_environment({key: str(value) for key, value in service["environment"].items()})
        for name, service in SCORERS.items()
    }
    assert len({each.port for each in settings.values()}) == len(settings) == 3
    assert {each.store for each in settings.values()} == {f"redis://augur:{PASSWORD}@redis:6379/0"}
    for name, service in SCORERS.items():
        grace = float(service["stop_grace_period"].removesuffix("s"))
        assert grace > settings[name].linger_seconds + settings[name].drain_seconds


def test_proxy_and_prometheus_know_the_scorers_and_no_others() -> None:
    addresses = {f"{name}:{service['environment']['AUGUR_PORT']}" for name, service in SCORERS.items()}
    lines = list(SCORER_LINE.finditer(PROXY.read_text()))
    assert {line["address"] for line in lines} == addresses
    assert all(line["address"].startswith(f"{line['name']}:") for line in lines)
    assert len({line["id"] for line in lines}) == len(lines)
    (scrape,) = (
        job
        for job in yaml.safe_load((DOCKER / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
        if job["job_name"] == "augur"
    )
    assert set(scrape["static_configs"][0]["targets"]) == addresses
    assert set(SERVICES["proxy"]["depends_on"]) == set(SCORERS) == set(GPU["services"])


def test_each_part_waits_until_what_it_needs_is_healthy() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, (name, needed)
            # A scorer's is in its image.
            assert "healthcheck" in SERVICES[needed] or needed in SCORERS, needed
    assert "HEALTHCHECK" in (DOCKER.parent / "Dockerfile").read_text()


def test_nothing_is_open_to_other_machines_or_writes_to_its_image() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_the_files_it_mounts_are_there_and_volumes_are_declared() -> None:
    for document in (COMPOSE, GPU):
        for service in document["services"].values():
            for mount in service.get("volumes", []):
                source = mount.split(":")[0]
                assert (DOCKER / source).exists() if source.startswith(".") else source in document["volumes"], mount


def test_the_dashboard_is_provisioned_where_grafana_finds_it() -> None:
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    provider = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/augur.yaml").read_text())["providers"][0]
    dashboard = Path(mounts["./grafana/augur.json"])
    assert dashboard.parent == Path(provider["options"]["path"])
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == str(dashboard)
    assert json.loads((DOCKER / "grafana/augur.json").read_text())["uid"]
    source = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"


def test_redis_as_it_is_composed_serves_its_one_user_and_keeps_a_log(tmp_path: Path) -> None:
    need(("redis-server", "redis-cli"))
    command, port = SERVICES["redis"]["command"], free_port()
    assert command[command.index("--user") :] == user(PASSWORD)  # what the fleet on loopback has, too
    assert command[1] == "/etc/redis/redis.conf"
    here = [command[0], str(DOCKER / "redis/redis.conf"), *command[2:], "--port", str(port), "--dir", str(tmp_path)]
    redis = Process("redis", here, tmp_path, {"PATH": "/usr/bin:/bin:/usr/local/bin"})
    try:
        until(lambda: redis.listens(port), 10, "redis")
        check = f"redis-cli -p {port} " + SERVICES["redis"]["healthcheck"]["test"][1].removeprefix("redis-cli ")

        def healthy(password: str) -> bool:
            environment = {"REDISCLI_AUTH": password, "PATH": "/usr/bin:/bin:/usr/local/bin"}
            ran = subprocess.run(check, shell=True, env=environment, capture_output=True, check=False)
            return ran.returncode == 0

        assert healthy(PASSWORD)
        assert not healthy("another")
        ask = ["redis-cli", "-p", str(port), "--no-auth-warning", "--user", "augur", "--pass", PASSWORD]
        said = [
            subprocess.run([*ask, *shlex.split(words)], capture_output=True, text=True, check=False).stdout.strip()
            for words in ("SET augur:1:{7} x", "GET augur:1:{7}", "SET other x", "FLUSHALL")
        ]
        assert said[:2] == ["OK", "x"]
        assert all(each.startswith("NOPERM") for each in said[2:]), said
        assert list((tmp_path / "appendonlydir").iterdir())
    finally:
        redis.stop()


def test_haproxy_takes_its_configuration_and_answers_its_probe_in_our_form(tmp_path: Path) -> None:
    """With scorers that are not there: the check of the composition succeeds, a request gets an error of ours."""
    need(("haproxy",))
    port, probed, stats = free_port(), free_port(), tmp_path / "s"
    shipped = PROXY.read_text().replace("bind :8000", f"bind 127.0.0.1:{port}").replace(":8404", f"127.0.0.1:{probed}")
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(shipped.replace("/tmp/haproxy.sock", str(stats)))
    checked = subprocess.run(["haproxy", "-c", "-f", configuration], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    process = Process("haproxy", ["haproxy", "-W", "-db", "-f", str(configuration)], tmp_path, {"PATH": "/usr/sbin"})
    try:
        until(lambda: process.listens(port) and process.listens(probed), 10, "haproxy")
        client = Client(port)
        status, body, _ = client.ask("POST", "/v1/score", {"user_id": "1", "item_ids": [1]}, "1")
        client.close()
        assert (status, body["error"]["code"]) == (503, "unavailable")
        assert SERVICES["proxy"]["healthcheck"]["test"][-1].endswith(":8404/livez")
        for path in ("/livez", "/metrics"):
            answer = urlopen(f"http://127.0.0.1:{probed}{path}", timeout=5)
            assert answer.status == 200
            answer.close()
    finally:
        process.stop()
