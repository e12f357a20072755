"""Three scorers behind the shipped proxy on a cluster of three primaries: who serves whom, and what a change costs."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from deploy_parts import CLIENTS, ITEMS, Client, homes, lost, need, under_load

from loadtest.stack import TOOLS, Stack, stack

pytestmark = pytest.mark.usefixtures("unwatched_processes")
USERS = [str(number) for number in range(600)]
BROKEN_OFF = ("bad_gateway", "IncompleteRead", "RemoteDisconnected")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three scorers behind HAProxy on a cluster of three primaries; to be left with three that are ready."""
    need(TOOLS)
    # One lane, since they share this machine's cores; patience, since these can be busy with other tests.
    environment = {
        "AUGUR_LINGER_SECONDS": "1",
        "AUGUR_LANES": "1",
        "AUGUR_TIMEOUT_MS": "10000",
        "AUGUR_STORE_TIMEOUT_MS": "1000",
        "AUGUR_STORE_WRITE_TIMEOUT_MS": "5000",
    }
    with stack(tmp_path_factory.mktemp("fleet"), primaries=3, environment=environment) as running:
        yield running


def test_a_user_is_served_by_one_scorer_and_scorers_have_like_shares(fleet: Stack) -> None:
    first = homes(fleet.proxy.port, USERS)
    assert homes(fleet.proxy.port, USERS) == first
    shares = Counter(first.values())
    assert set(shares) == {each.name for each in fleet.scorers}
    assert all(140 < share < 260 for share in shares.values()), shares


def test_the_path_names_the_user_too_and_the_header_comes_first(fleet: Stack) -> None:
    home, client = homes(fleet.proxy.port, USERS[:20]), Client(fleet.proxy.port)
    for user in home:
        assert client.ask("GET", f"/v1/users/{user}/behaviors")[2] == home[user]
        assert client.ask("GET", "/v1/users/somebody/behaviors", user=user)[2] == home[user]
    client.close()


@pytest.mark.parametrize("name", [None, ""])
def test_requests_without_a_user_are_spread_over_all(fleet: Stack, name: str | None) -> None:
    client, body = Client(fleet.proxy.port), {"user_id": "7", "item_ids": ITEMS}
    shares = Counter(client.ask("POST", "/v1/score", body, name)[2] for _ in range(300))
    client.close()
    assert set(shares) == {each.name for each in fleet.scorers}
    assert min(shares.values()) > 60, shares


def test_what_changes_or_describes_one_scorer_is_not_for_the_proxy(fleet: Stack) -> None:
    client = Client(fleet.proxy.port)
    for method, path, status in (
        ("POST", "/v1/models/kuairand/load", 403),
        ("POST", "/v2/repository/models/kuairand/load", 403),
        ("GET", "/metrics", 404),
        ("GET", "/v1/models", 200),
    ):
        answer = client.ask(method, path)
        assert answer[0] == status, (path, answer)
        assert status == 200 or set(answer[1]["error"]) == {"code", "message"}
    client.close()


def test_under_load_most_requests_find_their_users_scorer(fleet: Stack) -> None:
    """The bound on a scorer's load (hash-balance-factor) sends the rest to the next one of the ring."""
    with under_load(fleet.proxy.port) as load:
        time.sleep(2)
    assert load.failures == []
    home = homes(fleet.proxy.port, load.served)
    there = sum(Counter(served)[home[user]] for user, served in load.served.items())
    assert there > 0.8 * load.scored, f"{there} of {load.scored}"


def test_a_scorer_more_takes_its_share_of_the_users_and_one_less_leaves_its_own_to_the_rest(fleet: Stack) -> None:
    before = homes(fleet.proxy.port, USERS)
    fourth, second = fleet.scorer(4), fleet.scorers[1]
    fourth.wait()
    with under_load(fleet.proxy.port) as adding:
        fleet.add(fourth)
    with_it = homes(fleet.proxy.port, USERS)
    with under_load(fleet.proxy.port) as removing:
        assert fleet.remove(second) == 0
    without_second = homes(fleet.proxy.port, USERS)
    assert adding.failures == removing.failures == []
    assert min(adding.scored, removing.scored) > 30
    assert lost(fleet.proxy.port, adding) == lost(fleet.proxy.port, removing) == {}

    moved = {user for user in USERS if with_it[user] != before[user]}
    assert {with_it[user] for user in moved} == {fourth.name}
    assert 0.15 < len(moved) / len(USERS) < 0.35
    moved = {user for user in USERS if without_second[user] != with_it[user]}
    assert moved == {user for user in USERS if with_it[user] == second.name}
    assert 0.15 < len(moved) / len(USERS) < 0.35


def test_a_scorer_that_is_killed_costs_at_most_what_it_was_answering(fleet: Stack) -> None:
    victim = fleet.scorers[0]
    before = homes(fleet.proxy.port, USERS)
    with under_load(fleet.proxy.port) as killing:
        victim.stop(signal.SIGKILL)
        time.sleep(1.5)  # through the checks that find it out, and after
    during = homes(fleet.proxy.port, USERS)
    victim.start()
    victim.wait()
    with under_load(fleet.proxy.port) as returning:
        fleet.recovered(victim)
    # What it was computing is asked of the next one, but where the answer had begun, or the connection was reset.
    assert len(killing.failures) <= CLIENTS, killing.failures
    assert all(any(each in failure for each in BROKEN_OFF) for failure in killing.failures), killing.failures
    assert returning.failures == []
    assert lost(fleet.proxy.port, killing) == lost(fleet.proxy.port, returning) == {}
    moved = {user for user in USERS if during[user] != before[user]}
    assert moved == {user for user in USERS if before[user] == victim.name}
    assert {during[user] for user in moved} == {each.name for each in fleet.scorers if each is not victim}
    assert homes(fleet.proxy.port, USERS) == before


def test_all_scorers_are_restarted_one_by_one_and_no_request_fails(fleet: Stack) -> None:
    before = homes(fleet.proxy.port, USERS)
    with under_load(fleet.proxy.port) as load:
        statuses = [fleet.restart(scorer) for scorer in fleet.scorers]
    assert statuses == [0, 0, 0]
    assert load.failures == []
    assert load.scored > 300
    assert {name for served in load.served.values() for name in served} == {each.name for each in fleet.scorers}
    assert lost(fleet.proxy.port, load) == {}
    assert homes(fleet.proxy.port, USERS) == before
