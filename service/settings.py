"""Every setting of the server: one table of `AUGUR_*` environment variables and the one reader of it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import Any

PREFIX = "AUGUR_"
BUNDLED_MODEL = Path(__file__).resolve().parents[1] / "model" / "artifacts" / "kuairand"
PRECISIONS = ("exact", "fast")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
KEY_PAIR = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9a-f]{64})\Z")


class ConfigError(ValueError):
    """A setting that cannot be used: the message has the variable, its value and the rule."""


def rule(meaning: str, *, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """What `--help` says of a field of `Settings`, and the range of a number (both ends allowed)."""
    return {"meaning": meaning, "low": low, "high": high}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server is told at its start; a field `x_y` is the variable `AUGUR_X_Y`."""

    host: str = field(default="127.0.0.1", metadata=rule("address to listen on"))
    port: int = field(default=8000, metadata=rule("port to listen on; 0 takes a free one", low=0, high=65535))
    model: Path = field(default=BUNDLED_MODEL, metadata=rule("folder of the model artifact"))
    models: str = field(
        default="", metadata=rule("several models instead, as NAME=FOLDER,NAME=FOLDER; the first is the default")
    )
    routes: str = field(
        default="",
        metadata=rule("who answers whom, as NAME=WEIGHT,NAME=WEIGHT, sticky by user; NAME=shadow[:PERCENT] unseen"),
    )
    model_root: str = field(
        default="",
        metadata=rule("folder below which models may be loaded while serving; empty: the folders around those above"),
    )
    reload_max_shift: float = field(
        default=0.1,
        metadata=rule("a new version whose probabilities differ by more on average is refused", low=0, high=1),
    )
    precision: str = field(
        default="exact", metadata=rule("of the kernels: exact, or fast (errors of a score up to about 1e-3)")
    )
    store: str = field(
        default="memory://",
        metadata=rule(
            "behaviour store: memory://, redis://HOST:PORT/DB, redis+cluster://HOST:PORT,HOST:PORT or "
            "redis+sentinel://SENTINEL:PORT,SENTINEL:PORT/SERVICE/DB; rediss for TLS"
        ),
    )
    seed: str = field(
        default="",
        metadata=rule("ADAPTER:PATH of a data set whose histories are loaded at start, for users the store lacks"),
    )
    window: int = field(default=100, metadata=rule("most recent behaviours kept for a user", low=1, high=10_000))
    ttl_seconds: int = field(
        default=2_592_000,
        metadata=rule("a user without a new behaviour for so long is forgotten; 0: never", low=0, high=10**10),
    )
    max_items: int = field(default=2048, metadata=rule("candidates in one request, at most", low=1, high=1_000_000))
    max_requests: int = field(default=64, metadata=rule("requests in one batch over HTTP, at most", low=1, high=10_000))
    max_explained: int = field(
        default=100, metadata=rule("candidates explained at a time, at most", low=1, high=10_000)
    )
    max_history: int = field(
        default=2000, metadata=rule("behaviours in the history of one request, at most", low=0, high=1_000_000)
    )
    max_body_bytes: int = field(
        default=1_048_576, metadata=rule("size of a request's body, at most", low=1024, high=2**30)
    )
    batch_candidates: int = field(
        default=2048, metadata=rule("candidates computed in one batch; a larger request is cut", low=1)
    )
    inline_candidates: int = field(
        default=16,
        metadata=rule("so few that arrive at once are computed on the event loop, if no lane is busy", low=0),
    )
    queue_candidates: int = field(
        default=16_384, metadata=rule("candidates that may wait; beyond it requests get 429", low=1)
    )
    max_wait_us: int = field(
        default=0, metadata=rule("microseconds a batch that is not full waits for company", low=0, high=1_000_000)
    )
    timeout_ms: int = field(default=1000, metadata=rule("deadline of a request that states none", low=1))
    timeout_cap_ms: int = field(default=10_000, metadata=rule("longest deadline a request can ask for", low=1))
    lanes: int = field(
        default=0, metadata=rule("batches computed at a time; 0: one for each core and AUGUR_THREADS", low=0, high=1024)
    )
    threads: int = field(default=1, metadata=rule("threads that compute one batch", low=1, high=1024))
    store_timeout_ms: int = field(
        default=25, metadata=rule("a read from the store that takes longer is given up", low=1, high=60_000)
    )
    store_write_timeout_ms: int = field(
        default=250, metadata=rule("a write to the store that takes longer is given up", low=1, high=60_000)
    )
    store_connections: int = field(default=16, metadata=rule("connections to the store, at most", low=1, high=10_000))
    store_replicas: int = field(
        default=0,
        metadata=rule("replicas of Redis that must have a write before it is acknowledged", low=0, high=100),
    )
    breaker_failures: int = field(
        default=5,
        metadata=rule("failures in a row, within 10 s, after which the store is left alone", low=1, high=1000),
    )
    breaker_seconds: float = field(
        default=1.0, metadata=rule("then one request at a time tries it again after so long", low=0.01, high=3600)
    )
    stale_users: int = field(
        default=10_000,
        metadata=rule("users whose last read history is kept for when the store fails; 0: none", low=0, high=10**8),
    )
    stale_seconds: float = field(
        default=60.0, metadata=rule("such a history serves at most so long", low=0, high=86_400)
    )
    linger_seconds: float = field(
        default=1.0,
        metadata=rule("after SIGTERM: readiness fails, requests are still taken for so long", low=0, high=3600),
    )
    drain_seconds: float = field(
        default=10.0, metadata=rule("then requests in flight get so long to finish", low=0, high=3600)
    )
    receive_seconds: float = field(
        default=10.0,
        metadata=rule(
            "a request that is not whole by then, or an answer not taken, ends its connection", low=0.1, high=3600
        ),
    )
    max_connections: int = field(
        default=4096, metadata=rule("open connections, at most; idle ones give way", low=1, high=1_000_000)
    )
    stuck_seconds: float = field(
        default=30.0,
        metadata=rule("a batch computed for longer fails the liveness probe; 0: never", low=0, high=86_400),
    )
    api_keys: str = field(
        default="",
        metadata=rule("keys as NAME:SHA256,NAME:SHA256 (python -m service.keys makes one); unset: open to all"),
    )
    admin_keys: str = field(default="", metadata=rule("keys that may change the models too, in the same form"))
    console: int = field(default=1, metadata=rule("0: no page at /, which then leads to /docs", low=0, high=1))
    log_level: str = field(default="info", metadata=rule("one of " + ", ".join(LOG_LEVELS)))
    log_format: str = field(default="text", metadata=rule("one of " + ", ".join(LOG_FORMATS)))
    access_log: int = field(default=0, metadata=rule("1: a line for each request", low=0, high=1))
    slow_ms: float = field(
        default=0.0, metadata=rule("a request that takes longer gets a line that says where; 0: none", low=0, high=1e9)
    )
    traces: int = field(default=0, metadata=rule("1: OpenTelemetry spans; OTEL_* says where to", low=0, high=1))

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            _check_range(each, getattr(self, each.name))
        if not self.host.strip():
            raise ConfigError("AUGUR_HOST='': an address, as 127.0.0.1, or 0.0.0.0 for all of this machine's")
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(f"AUGUR_LOG_LEVEL={self.log_level!r}: one of {', '.join(LOG_LEVELS)}")
        if self.log_format not in LOG_FORMATS:
            raise ConfigError(f"AUGUR_LOG_FORMAT={self.log_format!r}: one of {', '.join(LOG_FORMATS)}")
        _check_keys(self.api_keys, self.admin_keys)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"AUGUR_PRECISION={self.precision!r}: one of {', '.join(PRECISIONS)}")
        if self.max_items > self.queue_candidates:
            raise ConfigError(
                f"AUGUR_QUEUE_CANDIDATES={self.queue_candidates}: at least AUGUR_MAX_ITEMS ({self.max_items}), "
                "or a request of the largest size could never be taken"
            )
        if self.timeout_ms > self.timeout_cap_ms:
            raise ConfigError(
                f"AUGUR_TIMEOUT_MS={self.timeout_ms}: at most AUGUR_TIMEOUT_CAP_MS ({self.timeout_cap_ms})"
            )
        if self.models and not all(name and str(path) != "." for name, path in self.model_paths):
            raise ConfigError(f"AUGUR_MODELS={self.models!r}: NAME=FOLDER,NAME=FOLDER")
        if self.seed and ":" not in self.seed:
            raise ConfigError(f"AUGUR_SEED={self.seed!r}: ADAPTER:PATH, as in kuairand:data/kuairand_pure")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """The settings that the `AUGUR_*` variables of an environment ask for.

        Raises:
            ConfigError: a variable that does not exist, or whose value breaks its rule.
        """
        fields = {variable(each.name): each for each in dataclasses.fields(cls)}
        stated = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
        for name, text in stated.items():
            if name not in fields:
                raise ConfigError(f"{name}={text!r}: no such setting; python -m service --help lists them")
        values = {fields[name].name: _parse(name, fields[name], text) for name, text in stated.items()}
        return cls(**values)

    @property
    def model_paths(self) -> list[tuple[str, Path]]:
        """Names and folders of the models; the name "" is the artifact's own."""
        if not self.models:
            return [("", self.model)]
        pairs = [part.strip().partition("=") for part in self.models.split(",")]
        return [(name, Path(path)) for name, _, path in pairs]

    @property
    def compute_lanes(self) -> int:
        """`lanes`, or so many that all lanes' threads have a core each of those that this process may use."""
        if self.lanes:
            return self.lanes
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // self.threads)


def key_pairs(text: str) -> list[tuple[str, str]]:
    """Names and hashes of keys; a ValueError says the rule, and never the text, which might be a key itself."""
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = KEY_PAIR.match(part)
        if match is None:
            raise ValueError("NAME:SHA256, the name of letters, digits, . _ - and the hash of 64 hexadecimal digits")
        pairs.append((match[1], match[2]))
    return pairs


def _check_keys(users: str, admins: str) -> None:
    seen: set[str] = set()
    for name, text in (("AUGUR_API_KEYS", users), ("AUGUR_ADMIN_KEYS", admins)):
        try:
            pairs = key_pairs(text)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
        if text.strip() and not pairs:
            # What looks protected must not be open.
            raise ConfigError(f"{name}: no key in it; leave it unset for none")
        for key_name, digest in pairs:
            if key_name in seen or digest in seen:
                raise ConfigError(f"{name}: {key_name!r} stands there twice: each name and each key once")
            seen |= {key_name, digest}


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def describe() -> str:
    """The table of all settings, for `--help`."""
    lines = []
    for each in dataclasses.fields(Settings):
        default = "the bundled one" if each.default == BUNDLED_MODEL else str(each.default) or "none"
        lines.append(f"  {variable(each.name):<30}{each.metadata['meaning']} ({default})")
    return "\n".join(lines)


def _parse(name: str, setting: Field[Any], text: str) -> Any:
    kind = {"int": int, "float": float, "str": str, "Path": Path}[str(setting.type)]
    if not text.strip() and kind is not str:
        raise ConfigError(f"{name}={text!r}: not empty; leave it unset for {setting.default}")
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r}: {'a whole number' if kind is int else 'a number'}") from None


def _check_range(setting: Field[Any], value: Any) -> None:
    low, high = setting.metadata["low"], setting.metadata["high"]
    # Written so that NaN, which compares false with everything, does not pass.
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        rule = f"at least {low}" if high is None else f"{low} to {high}"
        raise ConfigError(f"{variable(setting.name)}={value}: {rule}")
