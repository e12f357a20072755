"""What a store's URL says: which kind of Redis, where it is, and how to speak to it.

    redis://[user:password@]host[:port][/DB][?options]
    redis+cluster://[user:password@]host:port[,host:port ...][?options]
    redis+sentinel://[user:password@]sentinel[:port][,sentinel:port ...]/SERVICE[/DB][?options]

`rediss` in the place of `redis` is the same over TLS. A user and a password are percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, unquote

from service.settings import ConfigError

Address = tuple[str, int]

RULE = (
    "memory://, redis://HOST:PORT/DB, redis+cluster://HOST:PORT,HOST:PORT or "
    "redis+sentinel://SENTINEL:PORT,SENTINEL:PORT/SERVICE/DB; rediss for TLS"
)
SCHEME = re.compile(r"(rediss?)(?:\+(cluster|sentinel))?\Z")
HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
HOSTS = re.compile(rf"{HOST}(?:,{HOST})*\Z")
PATH = re.compile(r"[A-Za-z0-9._/-]*\Z")
CLIENT_OPTIONS = ("username", "password", "client_name")
TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
YES_OR_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Kind(Enum):
    """What answers at the addresses of a URL."""

    SERVER = "server"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A store's URL, taken apart."""

    kind: Kind
    tls: bool
    addresses: tuple[Address, ...]
    service: str = ""  # the name under which sentinels know the primary
    database: int = 0
    # For redis-py's connections, by its names; secrets among them, so not for people.
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def of_sentinels(self) -> StoreUrl:
        """How to speak to the sentinels themselves: with their own user and password, and the same certificates."""
        tls = {name: value for name, value in self.options.items() if name.startswith("ssl_")}
        return replace(self, database=0, options=tls | dict(self.sentinel_options))


def parse(url: str) -> StoreUrl:
    """A URL of one of the forms above.

    Raises:
        ConfigError: it is none; the message has the rule and no secret.
    """

    def refuse(rule: str) -> ConfigError:
        return ConfigError(f"AUGUR_STORE={redact(url)!r}: {rule}")

    scheme, separator, rest = url.partition("://")
    form = SCHEME.match(scheme)
    if not form or not separator:
        raise refuse(RULE)
    kind, tls = Kind(form[2] or "server"), form[1] == "rediss"
    head, _, query = rest.partition("?")
    user, _, location = head.rpartition("@")
    hosts, _, path = location.partition("/")
    if not HOSTS.match(hosts):
        raise refuse(f"host:port expected after ://, a / or @ in a password percent-encoded; {RULE}")
    if kind is Kind.SERVER and "," in hosts:
        raise refuse("one host; several are those of redis+cluster:// or redis+sentinel://")
    addresses = tuple(_address(host, 26379 if kind is Kind.SENTINEL else 6379) for host in hosts.split(","))
    if any(not 1 <= port <= 65535 for _, port in addresses):
        raise refuse("a port is 1 to 65535")
    service, database = _service_and_database(kind, path, refuse)
    options = _user(user) | _options(query, kind, tls, refuse)
    asked = {
        name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options
    }
    return StoreUrl(kind, tls, addresses, service, database, options, asked)


def redact(url: str) -> str:
    """A store's URL without user, password and options, for people to read; dots where they may be misplaced."""
    scheme, separator, rest = url.partition("://")
    hosts, slash, path = rest.rpartition("@")[2].partition("?")[0].partition("/")
    if not re.fullmatch("[a-z+]{0,20}", scheme):
        return "..."
    shown = HOSTS.match(hosts) and PATH.match(path)
    return f"{scheme}{separator}{hosts}{slash}{path}" if shown or not rest else f"{scheme}{separator}..."


def _address(host: str, default_port: int) -> Address:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host.strip("[]"), default_port
    return name.strip("[]"), int(port)


def _service_and_database(kind: Kind, path: str, refuse: Any) -> tuple[str, int]:
    service, database = "", path
    if kind is Kind.SENTINEL:
        service, _, database = path.partition("/")
        if not service:
            raise refuse("the name of the service that the sentinels watch is missing: .../SERVICE/DB")
    if not re.fullmatch("[0-9]{0,4}", database):
        raise refuse("a database is a number, as in .../0")
    if kind is Kind.CLUSTER and int(database or 0):
        raise refuse("a cluster has database 0 alone")
    return unquote(service), int(database or 0)


def _user(user: str) -> dict[str, Any]:
    name, _, password = user.partition(":")
    stated = {"username": unquote(name), "password": unquote(password)}
    return {option: value for option, value in stated.items() if value}


def _options(query: str, kind: Kind, tls: bool, refuse: Any) -> dict[str, Any]:
    known = CLIENT_OPTIONS + (TLS_OPTIONS if tls else ()) + (SENTINEL_OPTIONS if kind is Kind.SENTINEL else ())
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise refuse(f"no such option there; those of this kind of URL are {', '.join(known)}")
        options[name] = value
    if options.get("ssl_cert_reqs", "required") not in {"none", "optional", "required"}:
        raise refuse("ssl_cert_reqs is none, optional or required")
    if "ssl_check_hostname" in options:
        if options["ssl_check_hostname"].lower() not in YES_OR_NO:
            raise refuse("ssl_check_hostname is true or false")
        options["ssl_check_hostname"] = YES_OR_NO[options["ssl_check_hostname"].lower()]
    return options
