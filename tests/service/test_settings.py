from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from service.settings import ConfigError, Settings, describe, variable


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environment({"PATH": "/bin", "PORT": "1"}) == Settings()


def test_each_kind_of_value_is_read() -> None:
    environment = {"AUGUR_PORT": "0", "AUGUR_MODEL": "/m", "AUGUR_LINGER_SECONDS": "0.5", "AUGUR_STORE": "redis://h/1"}
    read = Settings.from_environment(environment)
    assert (read.port, read.model, read.linger_seconds, read.store) == (0, Path("/m"), 0.5, "redis://h/1")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("AUGUR_PRT", "1", "no such setting"),
        ("AUGUR_", "1", "no such setting"),
        ("AUGUR_PORT", "http", "a whole number"),
        ("AUGUR_PORT", "80.5", "a whole number"),
        ("AUGUR_PORT", "", "not empty"),
        ("AUGUR_PORT", "65536", "0 to 65535"),
        ("AUGUR_HOST", "", "an address"),
        ("AUGUR_MODEL", " ", "not empty"),
        ("AUGUR_WINDOW", "0", "1 to 10000"),
        ("AUGUR_LINGER_SECONDS", "nan", "0 to 3600"),
        ("AUGUR_LINGER_SECONDS", "soon", "a number"),
        ("AUGUR_BATCH_CANDIDATES", "0", "at least 1"),
        ("AUGUR_QUEUE_CANDIDATES", "100", r"at least AUGUR_MAX_ITEMS \(2048\)"),
        ("AUGUR_TIMEOUT_MS", "20000", r"at most AUGUR_TIMEOUT_CAP_MS \(10000\)"),
        ("AUGUR_LOG_LEVEL", "loud", "one of debug, info"),
        ("AUGUR_SEED", "kuairand", "ADAPTER:PATH"),
        ("AUGUR_LOG_FORMAT", "xml", "one of text, json"),
        ("AUGUR_RECEIVE_SECONDS", "0", "0.1 to 3600"),
        ("AUGUR_MAX_CONNECTIONS", "0", "1 to 1000000"),
        ("AUGUR_ACCESS_LOG", "yes", "a whole number"),
    ],
)
def test_a_bad_setting_is_told_with_its_value_and_rule(name: str, value: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as caught:
        Settings.from_environment({name: value})
    assert f"{name}=" in str(caught.value)
    assert value in str(caught.value)


def test_the_help_lists_every_setting() -> None:
    text = describe()
    for each in dataclasses.fields(Settings):
        assert variable(each.name) in text
        assert each.metadata["meaning"] in text


def test_lanes_take_the_cores_unless_said() -> None:
    assert Settings(lanes=3, threads=2).compute_lanes == 3
    assert Settings(threads=1024).compute_lanes == 1
    assert Settings().compute_lanes == len(os.sched_getaffinity(0))
