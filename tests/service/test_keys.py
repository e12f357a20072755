from __future__ import annotations

import hmac
import json
import logging
import re
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from service_parts import SETTINGS, VALID, Service, TwinScorer, error_of, memory, post
from starlette.routing import Mount

from service import console, keys
from service.app import create_app
from service.keys import PROBES, Keys
from service.settings import ConfigError, Settings

USER, OTHER, ADMIN = "augur_user", "augur_other", "augur_admin"


def line(name: str, key: str) -> str:
    return f"{name}:{sha256(key.encode()).hexdigest()}"


OPEN = PROBES.union(console.assets())
KEYED = replace(SETTINGS, api_keys=f"{line('web', USER)}, {line('web.next', OTHER)}", admin_keys=line("ops", ADMIN))
ONLY_USERS = replace(KEYED, admin_keys="")
ONLY_ADMINS = replace(KEYED, api_keys="")
LOAD = "/v1/models/unknown/load"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def every_route(app: Any) -> set[tuple[str, str]]:
    """Methods and paths of all routes: the framework's, mounted files, and those the door serves itself."""
    found: set[tuple[str, str]] = set()

    def walk(routes: Any) -> None:
        for route in routes:
            inner = getattr(route, "original_router", None)
            if isinstance(route, Mount):
                found.add(("GET", f"{route.path}/swagger-ui.css"))
            elif inner is not None:
                walk(inner.routes)
            else:
                path = re.sub(r"{[^}]*}", "x", route.path)
                found.update((method, path) for method in route.methods)

    walk(app.routes)
    layer = app.build_middleware_stack()
    while not hasattr(layer, "_direct"):
        layer = layer.app
    return found | set(layer._direct)


def test_no_route_but_the_probes_answers_without_a_key(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        routes = every_route(service.app)
        assert {("POST", "/v1/score"), ("GET", "/metrics"), ("DELETE", "/v1/users/x/behaviors")} <= routes
        for path in ("/docs", "/openapi.json", "/"):
            assert ("GET", path) in routes
        # What changes models is posted: that is what the door asks an admin key for.
        assert {method for method, path in routes if path.startswith("/v1/models/")} <= {"GET", "HEAD", "POST"}
        for method, path in sorted(routes):
            for headers in (
                {},
                bearer("augur_wrong"),
                {"x-api-key": "augur_wrong"},
                {"authorization": f"Basic {USER}"},
            ):
                answer = await service.client.request(method, path, headers=headers)
                if path in OPEN:
                    assert answer.status_code == 200, path
                    continue
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"].startswith("Bearer ")
                if method != "HEAD":
                    if path.startswith("/v2"):
                        assert list(answer.json()) == ["error"]
                    else:
                        assert error_of(answer)["code"] == "unauthorized"
                    assert "augur_wrong" not in answer.text
        # What there is not tells nothing either.
        assert (await service.client.get("/nothing")).status_code == 401

    with_service(scenario, settings=KEYED)


@pytest.mark.parametrize("key", [USER, OTHER, ADMIN])
def test_each_key_opens_what_users_ask(with_service: Any, key: str) -> None:
    async def scenario(service: Service) -> None:
        for headers in (bearer(key), {"x-api-key": key}, {"authorization": f"bearer  {key} "}):
            assert (await post(service, "/v1/score", VALID, headers=headers)).status_code == 200
            assert (await service.client.get("/v1/models", headers=headers)).status_code == 200
        # A proxy's own credentials do not hide the key.
        both = {"authorization": "Basic cHJveHk6eA==", "x-api-key": key}
        assert (await post(service, "/v1/score", VALID, headers=both)).status_code == 200

    with_service(scenario, settings=KEYED)


@pytest.mark.parametrize(
    ("settings", "key", "status", "says"),
    [
        (KEYED, "", 401, "a known key"),
        (KEYED, USER, 403, "takes an admin key"),
        (KEYED, ADMIN, 404, ""),  # past the door; the model is not there
        (ONLY_USERS, "", 401, "a known key"),
        (ONLY_USERS, USER, 403, "the server has none (AUGUR_ADMIN_KEYS)"),
        (ONLY_ADMINS, "", 401, "a known key"),
        (ONLY_ADMINS, USER, 401, "a known key"),
        (ONLY_ADMINS, ADMIN, 404, ""),
        (SETTINGS, "", 403, "the server has none (AUGUR_ADMIN_KEYS)"),
        (SETTINGS, ADMIN, 403, "the server has none (AUGUR_ADMIN_KEYS)"),
    ],
)
def test_models_are_changed_with_an_admin_key_alone(
    with_service: Any, settings: Settings, key: str, status: int, says: str
) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.client.post(LOAD, headers=bearer(key) if key else {})
        assert answer.status_code == status
        assert says in error_of(answer)["message"]

    with_service(scenario, settings=settings)


def test_the_access_log_names_the_key(with_service: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(service: Service) -> None:
        for key in (OTHER, ADMIN, "augur_wrong"):
            await post(service, "/v1/score", VALID, headers=bearer(key))

    with caplog.at_level(logging.INFO):
        with_service(scenario, settings=replace(KEYED, access_log=1))
    records = [each for each in caplog.records if each.name == "augur.access"]
    assert [each.__dict__["fields"].get("key") for each in records] == ["web.next", "ops", None]
    assert records[0].getMessage().endswith("ms, key web.next")


def test_without_user_keys_the_rest_is_open(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        assert (await post(service, "/v1/score", VALID)).status_code == 200

    with_service(scenario, settings=ONLY_ADMINS)


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [(b"x-api-key", USER.encode())]}
    assert Keys(KEYED).check(scope) == "web"
    assert len(compared) == 3


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("AUGUR_API_KEYS", "augur_a_key_itself", "NAME:SHA256"),
        ("AUGUR_API_KEYS", "web:augur_a_key_itself", "NAME:SHA256"),
        ("AUGUR_ADMIN_KEYS", f"a b:{'0' * 64}", "NAME:SHA256"),
        ("AUGUR_API_KEYS", ",", "no key in it"),
        ("AUGUR_API_KEYS", f"a:{'0' * 64},a:{'1' * 64}", "'a' stands there twice"),
        ("AUGUR_API_KEYS", f"a:{'0' * 64},b:{'0' * 64}", "'b' stands there twice"),
    ],
)
def test_a_bad_list_of_keys_is_told_without_repeating_it(name: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Settings.from_environment({name: text})
    assert str(caught.value).startswith(f"{name}: ")
    assert "itself" not in str(caught.value)


def test_a_user_key_is_no_admin_key_too() -> None:
    with pytest.raises(ConfigError, match="AUGUR_ADMIN_KEYS: 'b' stands there twice"):
        Settings(api_keys=line("a", USER), admin_keys=line("b", USER))


def test_a_key_is_made_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert keys.main(["web-2"]) == 0
    key, stated = (said.split()[-1] for said in capsys.readouterr().out.splitlines())
    assert stated == line("web-2", key)
    assert len(key) > 40
    assert Settings(api_keys=stated).api_keys == stated
    assert keys.main(["a b"]) == 2
    assert "NAME:SHA256" in capsys.readouterr().err


def test_the_document_says_how_to_send_a_key(twin: TwinScorer) -> None:
    document = create_app(KEYED, scorer=twin, store=memory()).openapi()  # type: ignore[arg-type]
    assert document["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert document["paths"]["/livez"]["get"]["security"] == []
    assert "security" not in document["paths"]["/v1/score"]["post"]
    assert "security" not in json.dumps(create_app(SETTINGS, scorer=twin, store=memory()).openapi())  # type: ignore[arg-type]


def test_answers_have_security_headers(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        for path in ("/v1/models", "/docs", "/docs/assets/swagger-ui.css", "/nothing", "/metrics"):
            answer = await service.client.get(path)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert (answer.headers.get("cache-control") == "no-store") is ("assets" not in path)
            if "html" in answer.headers["content-type"]:
                assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]

    with_service(scenario)
