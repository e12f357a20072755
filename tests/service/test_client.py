"""The client against a server process with the bundled model and users, and a peer between the two that fails."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import faulty_peer
import httpx
import numpy as np
import pytest
import trustme
from faulty_peer import Peer, cut, cut_after, cut_within, drip, faulty, refuse
from hypothesis import given, settings
from hypothesis import strategies as st
from process_parts import running

from service import client as augur
from service import keys

KEY, HASH = keys.make()
USER, ITEMS = "712", [5239, 6831, 2555, 1527]
FULL = json.dumps({"error": {"code": "queue_full", "message": "full"}}).encode()
AWAY = json.dumps({"error": {"code": "store_unavailable", "message": "away"}}).encode()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(seed="kuairand:data/kuairand_pure", threads="1", api_keys=f"tests:{HASH}") as process:
        assert process.url, process.end()
        yield process.url


@pytest.fixture(scope="module")
def peer(url: str) -> Iterator[Peer]:
    with faulty(url) as started:
        yield started


@pytest.fixture(scope="module")
def asking(url: str) -> Iterator[augur.AugurClient]:
    with augur.AugurClient(url, api_key=KEY, timeout=20) as client:
        yield client


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)


class Waiting:
    """The client for asyncio with the methods of the other one, so that one test holds both."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = augur.AsyncAugurClient(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


Opened = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
def open_client(request: pytest.FixtureRequest, peer: Peer) -> Opened:
    """A client of either kind, of the peer unless told otherwise; the peer's faults are over."""
    peer.fail()
    kind = augur.AugurClient if request.param == "blocking" else Waiting
    return functools.partial(_open, kind, peer)


def _open(kind: Any, peer: Peer, **options: Any) -> Any:
    return kind(**({"url": peer.url, "api_key": KEY, "timeout": 20.0} | options))


def test_every_method_answers(open_client: Opened) -> None:
    with open_client() as client:
        assert client.ready()
        (model,) = client.models().models
        assert (model.name, model.architecture, model.context_fields) == ("kuairand", "dien", ("tab", "hour"))
        scores = client.score(USER, ITEMS, context={"tab": 1})
        assert (len(scores.scores), scores.version, scores.degraded) == (4, model.version, None)
        ranked = client.score(USER, np.array(ITEMS), context={"tab": 1}, top_k=2, model="kuairand")
        best = sorted(zip(scores.scores, ITEMS, strict=True), reverse=True)[:2]
        assert ([(each.score, each.item_id) for each in ranked.ranking], ranked.scores) == (best, ())
        own = client.score(USER, ITEMS, history=(ITEMS[0],), history_actions=["click"])
        assert (own.history_length, own.scores != scores.scores) == (1, True)

        explained = client.explain(USER, ITEMS, context={"tab": 1})
        assert tuple(each.score for each in explained.candidates) == pytest.approx(scores.scores, abs=1e-6)
        assert len(explained.candidates[0].attention) == len(explained.history) == scores.history_length
        assert explained.candidates[0].evolution is None
        (evolved,) = client.explain(USER, ITEMS[:1], evolution=True, context={"tab": 1}).candidates
        assert evolved.evolution is not None
        assert evolved.evolution.probabilities[-1] == pytest.approx(scores.scores[0], abs=1e-6)

        asked = [augur.ScoreRequest(USER, ITEMS, {"tab": 1}), augur.ScoreRequest(USER, ITEMS, {"tub": 1})]
        good, bad = client.score_batch([*asked, augur.ScoreRequest(USER, [1], model="error")])[:2]
        assert good == scores
        assert isinstance(bad, augur.InvalidInputError)
        assert (bad.status, bad.field, bad.code) == (422, "context", "invalid_input")

        user = "of every method"
        events = [augur.Event(user, item, 1000 + place, "click") for place, item in enumerate(ITEMS)]
        assert client.append(events) == augur.Appended(accepted=4, duplicates=0, outside_window=0)
        assert client.append(events).duplicates == 4
        kept = client.behaviors(user, limit=2)
        assert kept == augur.Behaviors(user, (augur.StoredEvent(2555, 1002, "click"), *kept.events[1:]))
        assert len(client.behaviors(user).events) == 4
        assert [client.forget(user), client.forget(user)] == [True, False]


@settings(max_examples=20, deadline=None)
@given(
    user=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128).filter(lambda user: user != USER)
)
def test_any_text_is_a_user(asking: augur.AugurClient, user: str) -> None:
    asking.forget(user)
    asking.append([augur.Event(user, 1527, 1)])
    assert asking.behaviors(user) == augur.Behaviors(user, (augur.StoredEvent(1527, 1, None),))
    assert asking.score(user, [1527]).history_length == 1
    assert asking.forget(user)


def test_errors_say_what_the_server_said(open_client: Opened) -> None:
    with open_client() as client, pytest.raises(augur.InvalidInputError) as raised:
        client.score(USER, [])
    error = raised.value
    assert (error.status, error.field, error.may_have_acted) == (422, "item_ids", False)
    assert error.request_id
    with open_client() as client, pytest.raises(augur.NotFoundError, match="nobody"):
        client.score(USER, ITEMS, model="nobody")
    with open_client(api_key="augur_wrong") as client:
        with pytest.raises(augur.UnauthorizedError) as refused:
            client.models()
        assert "augur_wrong" not in str(refused.value) + repr(client)
        assert client.ready()


def test_what_cannot_be_sent_is_refused_with_its_place(open_client: Opened, peer: Peer) -> None:
    with open_client() as client:
        with pytest.raises(augur.InvalidInputError, match=r"^item_ids\[1\]='2': a whole number$") as raised:
            client.score(USER, [1, "2"])
        assert raised.value.field == "item_ids[1]"
        with pytest.raises(augur.InvalidInputError, match=r"^history\[0\]=1.5: a whole number$"):
            client.explain(USER, ITEMS, history=[1.5])
        with pytest.raises(augur.InvalidInputError, match=r"^user_id=712: text$"):
            client.score(712, ITEMS)
        with pytest.raises(augur.InvalidInputError, match=r"^events\[1\].timestamp_ms=1.5: a whole number$"):
            client.append([augur.Event(USER, np.int64(1), 1), augur.Event(USER, 1, cast(int, 1.5))])
        with pytest.raises(augur.InvalidInputError, match="not JSON serializable"):
            client.score(USER, ITEMS, model={1})
        with pytest.raises(augur.InvalidInputError, match=r"^user_id='.ud800': text that UTF-8 can carry$"):
            client.behaviors("\ud800")
        with pytest.raises(augur.InvalidInputError, match=r"^limit='all': a whole number$"):
            client.behaviors(USER, limit="all")
        assert not peer.seen
        # Other rules are the server's.
        with pytest.raises(augur.InvalidInputError, match="surrogate"):
            client.score("\ud800", ITEMS)


def test_connections_are_kept_and_requests_say_whose_they_are(open_client: Opened, peer: Peer) -> None:
    before = peer.connections
    with open_client(compress=True) as client:
        many = client.score(USER, ITEMS * 100)
        client.append([augur.Event("a user ü", 1, 1, event_id="1")])
        client.forget("a user ü")
        client.score_batch([augur.ScoreRequest(USER, ITEMS)])
        assert many.scores[:4] == pytest.approx(client.score(USER, ITEMS).scores, abs=1e-6)
    assert peer.connections == before + 1
    users = [each.headers.get("x-user-id") for each in peer.seen]
    assert users == [USER, "a%20user%20%C3%BC", "a%20user%20%C3%BC", None, USER]
    assert [each.headers.get("content-encoding") for each in peer.seen] == ["gzip", *[None] * 4]


def test_a_broken_connection_is_tried_again_with_the_time_that_is_left(open_client: Opened, peer: Peer) -> None:
    with open_client() as client:
        whole = client.score(USER, ITEMS)
        peer.fail(cut, cut_within)
        assert client.score(USER, ITEMS) == whole
        told = [json.loads(each.body)["timeout_ms"] for each in peer.seen]
        assert len(told) == 3
        assert 20_000 >= told[0] >= told[1] >= told[2] > 0
        peer.fail(cut_after, cut)
        assert client.explain(USER, ITEMS).version == whole.version
        peer.fail(cut, cut, cut)
        with pytest.raises(augur.UnreachableError, match=r"^http://127.*: the connection broke") as raised:
            client.behaviors(USER)
        assert (raised.value.status, raised.value.code) == (None, "unreachable")
        assert len(peer.seen) == 3


def test_who_is_told_to_come_back_later_does(open_client: Opened, peer: Peer) -> None:
    with open_client() as client:
        peer.fail(refuse(429, FULL, retry_after="1"), refuse(503, AWAY))
        assert client.score(USER, ITEMS).scores
        first, second, _ = peer.seen
        assert second.at - first.at >= 1
        # Nobody waits for what comes after the deadline.
        peer.fail(refuse(429, FULL, retry_after="21"))
        with pytest.raises(augur.QueueFullError, match=r"^full$") as raised:
            client.score(USER, ITEMS)
        assert (raised.value.retry_after, raised.value.code, len(peer.seen)) == (21.0, "queue_full", 1)
        peer.fail(refuse(503, AWAY))
        assert not client.ready()
        assert len(peer.seen) == 1


@pytest.mark.parametrize("ids", [True, False])
def test_events_are_sent_again_only_where_that_is_the_callers_word(open_client: Opened, peer: Peer, ids: bool) -> None:
    user = f"sent again {ids}"
    events = [augur.Event(user, item, 1000, event_id=f"e{item}" if ids else None) for item in ITEMS]
    with open_client() as client:
        client.forget(user)
        peer.fail(refuse(429, FULL), cut_after)
        if ids:
            assert client.append(events).duplicates == 4
        else:
            with pytest.raises(augur.UnreachableError) as raised:
                client.append(events)
            assert raised.value.may_have_acted
        assert len(peer.seen) == (3 if ids else 2)
        assert len(client.behaviors(user).events) == 4
        peer.fail(refuse(503, AWAY))
        if ids:
            assert client.append(events).duplicates == 4
        else:
            with pytest.raises(augur.UnavailableError, match="away"):
                client.append(events)


def test_an_answer_that_never_ends_ends_at_the_deadline(open_client: Opened, peer: Peer) -> None:
    with open_client() as client:
        assert client.ready()
        peer.fail(drip, drip)
        with pytest.raises(augur.DeadlineExceededError, match=r"^no answer in time$") as raised:
            client.score(USER, ITEMS, timeout=0.5)
        error = raised.value
        assert (error.status, error.code, error.may_have_acted) == (None, "deadline_exceeded", True)
        assert not client.ready(timeout=0.5)
        # What it gave up is in nobody's way.
        assert client.models().models


def test_strangers_between_are_told_from_the_server(open_client: Opened, peer: Peer) -> None:
    with open_client(retries=0) as client:
        peer.fail(
            refuse(503, b"<h1>no server</h1>"), refuse(502, b""), refuse(200, b"<h1>hello</h1>"), refuse(302, b"")
        )
        with pytest.raises(augur.UnavailableError, match=r"^status 503, and not in Augur's words: <h1>no server</h1>$"):
            client.score(USER, ITEMS)
        for says in ("status 502", "the answer is no Scores", "status 302"):
            with pytest.raises(augur.AnswerError, match=says):
                client.score(USER, ITEMS)


def test_nobody_listens(open_client: Opened) -> None:
    with open_client(url="http://127.0.0.1:1") as client:
        assert not client.ready()
        events = [augur.Event(USER, 1, 1)]
        with pytest.raises(augur.UnreachableError, match=r"^http://127.0.0.1:1: no connection \(") as raised:
            client.append(events)
        assert not raised.value.may_have_acted
    with open_client(url="http://no.such.host.invalid", retries=0) as client, pytest.raises(augur.UnreachableError):
        client.models()


def test_by_name_and_under_a_path_and_encrypted(open_client: Opened, url: str) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with faulty(url) as peer:
        peer.socket = context.wrap_socket(peer.socket, server_side=True)
        address = peer.url.replace("http://127.0.0.1", "https://localhost")
        with open_client(url=address, ssl_context=trusting) as client:
            assert client.score(USER, ITEMS).scores
        with open_client(url=f"{address}/under/") as client, pytest.raises(augur.UnreachableError, match="certificate"):
            client.models()
        with open_client(url=f"{address}/under/", ssl_context=trusting) as client:
            with pytest.raises(augur.NotFoundError, match="no such route"):
                client.models()
            assert peer.seen[-1].path == "/under/v1/models"


def test_one_client_serves_many_at_once(peer: Peer) -> None:
    async def gather() -> list[augur.Scores]:
        async with augur.AsyncAugurClient(peer.url, api_key=KEY, timeout=20, connections=2) as client:
            return await asyncio.gather(*(client.score(USER, [item]) for item in ITEMS * 5))

    peer.fail()
    before = peer.connections
    found = asyncio.run(gather())
    assert peer.connections <= before + 2
    with (
        augur.AugurClient(peer.url, api_key=KEY, timeout=20, connections=2) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        assert list(threads.map(lambda item: client.score(USER, [item]), ITEMS * 5)) == found
    assert peer.connections <= before + 2 + 8


def test_the_peer_is_honest(peer: Peer, url: str) -> None:
    """What it forwards is what the server says."""
    peer.fail(faulty_peer.forward)
    body = {"user_id": USER, "item_ids": ITEMS}
    through, straight = (
        httpx.post(f"{each}/v1/score", json=body, headers={"x-api-key": KEY}) for each in (peer.url, url)
    )
    assert through.json() == straight.json()
