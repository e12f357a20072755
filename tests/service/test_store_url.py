from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import ConfigError, Settings
from service.stores import open_store
from service.stores.url import Kind, StoreUrl, parse, redact


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", StoreUrl(Kind.SERVER, False, (("h", 6379),))),
        ("redis://h:1/3", StoreUrl(Kind.SERVER, False, (("h", 1),), database=3)),
        ("redis://[::1]:7/0", StoreUrl(Kind.SERVER, False, (("::1", 7),))),
        ("redis://[fe80::1]", StoreUrl(Kind.SERVER, False, (("fe80::1", 6379),))),
        (
            "rediss://me:a%2Fb%40c@h:1/0?client_name=augur&ssl_check_hostname=No",
            StoreUrl(
                Kind.SERVER,
                True,
                (("h", 1),),
                options={
                    "username": "me",
                    "password": "a/b@c",
                    "client_name": "augur",
                    "ssl_check_hostname": False,
                },
            ),
        ),
        (
            "redis+cluster://:p@a:1,b:2,c",
            StoreUrl(Kind.CLUSTER, False, (("a", 1), ("b", 2), ("c", 6379)), options={"password": "p"}),
        ),
        (
            "rediss+sentinel://u:p@s1,s2:5/it/2?sentinel_password=q",
            StoreUrl(
                Kind.SENTINEL,
                True,
                (("s1", 26379), ("s2", 5)),
                "it",
                2,
                {"username": "u", "password": "p"},
                {"password": "q"},
            ),
        ),
    ],
)
def test_what_a_url_says(url: str, expected: StoreUrl) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "memory://, redis://"),
        ("memory", "memory://, redis://"),
        ("memory://x", "memory://, redis://"),
        ("mysql://h", "memory://, redis://"),
        ("redis:/x", "memory://, redis://"),
        ("redis+other://h", "memory://, redis://"),
        ("redis://", "host:port expected"),
        ("redis://h:port", "host:port expected"),
        ("redis://:s3cret", "host:port expected"),
        ("me:s3cret@h", "memory://, redis://"),
        ("me:s3cret@h://", "memory://, redis://"),
        ("redis://me:s3c?ret@h:1", "host:port expected"),
        ("redis://h:0", "a port is 1 to 65535"),
        ("redis://h:70000", "a port is 1 to 65535"),
        ("redis://a,b", "one host"),
        ("redis://h/x", "a database is a number"),
        ("redis+cluster://a:1/1", "database 0 alone"),
        ("redis+sentinel://a", "the name of the service"),
        ("redis+sentinel://a/it/x", "a database is a number"),
        ("redis://h?socket_timeout=1", "no such option there; those of this kind of URL are username"),
        ("redis://h?ssl_ca_certs=s3cret", "no such option there"),
        ("redis://h?sentinel_password=s3cret", "no such option there"),
        ("rediss://h?ssl_check_hostname=s3cret", "ssl_check_hostname is true or false"),
        ("rediss://h?ssl_cert_reqs=s3cret", "ssl_cert_reqs is none, optional or required"),
        ("rediss://h?ssl_ca_certs=/no/such/file", "certificates: "),
        ("rediss+sentinel://:s3cret@h/it?ssl_certfile=/no/such/file", "certificates: "),
    ],
)
def test_a_url_that_cannot_be_used_is_told_with_the_rule_and_without_secrets(url: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=f"AUGUR_STORE=.*{rule}") as caught:
        open_store(Settings(store=url))
    assert "s3c" not in str(caught.value)
    assert "ret@" not in str(caught.value)


def test_a_file_that_is_no_certificate_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("?")
    with pytest.raises(ConfigError, match="certificates: "):
        open_store(Settings(store=f"rediss://h?ssl_ca_certs={tmp_path / 'ca.pem'}"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("rediss://me:se@cret@host:1/0?password=x", "rediss://host:1/0"),
        ("redis+cluster://u:p@a:1,b:2?client_name=x", "redis+cluster://a:1,b:2"),
        ("redis+sentinel://a:1/it/0", "redis+sentinel://a:1/it/0"),
        ("redis://:secret", "redis://..."),
        ("redis://h:port/0", "redis://..."),
        ("memory", "memory"),
        ("u:secret@h", "..."),
    ],
)
def test_what_people_see_of_a_url(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_a_url_does_not_show_its_secrets() -> None:
    shown = repr(parse("rediss+sentinel://u:hidden@h/it?sentinel_password=secret&ssl_password=other"))
    assert not {"hidden", "secret", "other"} & set(shown.replace("'", " ").split())
    assert "hidden" not in shown
