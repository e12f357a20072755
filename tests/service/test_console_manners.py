"""The console in a browser: without a mouse, in a narrow window, and when a server is slow, away or asks for a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from console_parts import ASKED, BODY, ROWS, Console, Look
from playwright.sync_api import Route, expect
from process_parts import running
from redis_parts import RedisServer, until

from model.artifact import of_model, save_artifact
from model.config import ModelConfig
from model.data import open_data
from model.features import fit_schema
from model.zoo import make_network

KEY = "augur_browser"


def test_everything_can_be_done_from_the_keyboard(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED)
    console.settled()
    press, page = console.page.keyboard.press, console.page
    press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    press("Enter")
    assert page.evaluate("document.activeElement.id") == "ranking"
    for _ in range(3):
        press("Tab")
    item = page.evaluate("document.activeElement.textContent")
    assert item == console.order()[0]
    for _ in range(2):
        press("Tab")
    press("Enter")
    second = console.order()[1]
    expect(page.locator("#evolution-says")).to_contain_text(f"Candidate {second}")
    assert f"pick={second}" in page.url
    # One stop for all of the history, and one for all of the heat map; arrows walk within.
    page.focus("#strip .mark.at")
    for key, place in (("Home", 0), ("ArrowRight", 1), ("End", 42)):
        press(key)
        assert page.evaluate("document.activeElement.ariaLabel").startswith(f"Behaviour {place + 1} of 43")
    press("Tab")
    assert page.evaluate("document.activeElement.closest('#selected') !== null")
    page.focus(".heat td[tabindex='0']")
    press("ArrowRight")
    press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.row + document.activeElement.dataset.column") == "11"
    assert f"{second} gives item" in console.text("#attention-at")
    assert page.input_value("#evolution-step") == "1"
    with page.expect_response("**/v1/explain"):
        press("Enter")
    assert page.evaluate("document.activeElement.dataset.row") == "1"
    page.focus("#evolution-step")
    press("ArrowRight")
    assert console.text("#evolution-at").strip().startswith("3 of 43")
    assert str(page.get_attribute("#evolution-step", "aria-valuetext")).startswith("3 of 43")
    page.focus("button.curl >> nth=1")
    press("Enter")
    command = console.text("#curl-text")
    assert json.loads(command.partition("-d '")[2].rstrip("'")) == BODY
    press("Escape")
    assert page.locator("#curl").is_hidden()
    page.focus("#why .hint summary >> nth=0")
    press("Enter")
    assert "adds up to 100 %" in console.text("#why .hint[open]")
    press("Escape")
    assert page.locator(".hint[open]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_window_and_holds_still_when_asked_to(console_url: str, look: Look, scheme: str) -> None:
    narrow = {"width": 360, "height": 640}
    console = look(console_url, f"{ASKED}&model=sharp", viewport=narrow, color_scheme=scheme, reduced_motion="reduce")
    console.settled()
    console.page.click(f"{ROWS}:last-child .try")
    console.settled()
    assert console.page.evaluate("document.getAnimations().length") == 0
    assert console.page.evaluate("document.documentElement.scrollWidth") == 360
    assert console.crowded() == []
    assert console.audit() == []
    console.page.click("button.curl >> nth=1")
    assert console.page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_server_that_is_slow_or_away_is_told(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED, expected="ERR_INTERNET_DISCONNECTED")
    console.settled()

    def late(route: Route) -> None:
        console.page.wait_for_timeout(1500)
        route.continue_()

    console.page.route("**/v1/score", late)
    console.page.click("text=Ask")
    expect(console.page.locator("body")).to_have_class("slow")
    console.settled()
    expect(console.page.locator("body")).not_to_have_class("slow")
    console.page.unroute("**/v1/score")
    console.page.context.set_offline(True)
    console.page.click("text=Ask")
    expect(console.page.locator("#notice")).to_contain_text("The server does not answer")
    console.page.context.set_offline(False)
    console.page.click("text=Ask")
    console.settled()
    assert console.page.locator("#notice").is_hidden()


def test_rows_out_of_sight_wait_until_all_else_is_drawn(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED)
    console.settled()
    console.page.fill("#count", "200")
    console.page.click("#draw")
    console.page.locator(ROWS).nth(199).wait_for(state="attached")
    console.settled()
    # Settled, a screen reader has all of them: it is told of what is rendered.
    rendered = "rows => rows.map(row => row.firstElementChild.checkVisibility({ contentVisibilityAuto: true }))"
    assert console.page.locator(ROWS).evaluate_all(rendered) == [True] * 200
    tall = console.page.locator("#rows").evaluate("rows => rows.getBoundingClientRect().height")
    held: list[Route] = []
    console.page.route("**/v1/explain", lambda route: held.append(route))  # noqa: PLW0108  # it is marked
    with console.page.expect_request("**/v1/explain"):
        console.page.click(f"{ROWS}:first-child .try")
    expect(console.page.locator("#rows thead")).to_contain_text("as stored")
    found = console.page.locator(ROWS).evaluate_all(rendered)
    assert all(found[:20])
    assert not any(found[100:])
    assert console.page.locator("#rows").evaluate("rows => rows.getBoundingClientRect().height") == pytest.approx(
        tall, abs=1
    )
    for route in held:
        route.continue_()
    console.page.unroute("**/v1/explain")
    console.settled()
    assert console.page.locator(ROWS).evaluate_all(rendered) == [True] * 200


@pytest.fixture(scope="module")
def keyed(
    artifact_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, RedisServer]]:
    """A server that asks for a key, whose store is Redis; of its models one has no attention."""
    folder = tmp_path_factory.mktemp("keyed")
    schema = fit_schema(open_data(f"canonical:{data_folder}"), max_history=16)
    config = ModelConfig(model="base", embedding=6, head=(16, 8), initial_deviation=0.7)
    save_artifact(of_model("plain", make_network(schema, config), schema, {}, {}), folder / "plain")
    redis = RedisServer(folder / "redis").start()
    settings = {
        "store": redis.url,
        "models": f"tiny={artifact_folder},plain={folder / 'plain'}",
        "seed": f"canonical:{data_folder}",
        "api_keys": f"web:{sha256(KEY.encode()).hexdigest()}",
        "stale_seconds": "0",
        "store_timeout_ms": "2000",  # of a machine with much else to do; a store that is stopped refuses at once
    }
    with running(**settings) as process:
        assert process.url, process.end()
        yield process.url, redis
    redis.stop()


def test_a_key_is_asked_for_and_the_store_may_fail(keyed: tuple[str, RedisServer], look: Look) -> None:
    url, redis = keyed
    console = look(url, expected="401|422|503")
    page = console.page
    page.locator("#key").wait_for()
    page.fill("#key-value", "augur_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-says")).to_have_text("The server does not know this key.")
    page.fill("#key-value", KEY)
    page.click("#key .main")
    console.settled()
    assert len(console.order()) == 24
    assert page.evaluate("[localStorage.length, document.cookie, Object.values(sessionStorage).join()]") == [0, "", KEY]
    page.click("button.curl >> nth=1")
    assert "$AUGUR_KEY" in console.text("#curl-text")
    assert KEY not in console.text("#curl-text")
    page.keyboard.press("Escape")

    page.select_option("#model", "plain")
    expect(page.locator("#attention-says")).to_contain_text("a model with attention, which base has not")
    page.select_option("#model", "tiny")
    expect(page.locator("#evolution-says")).to_contain_text("before the first behaviour")
    console.settled()

    redis.stop()
    page.fill("#user", "2" if page.input_value("#user") != "2" else "3")
    page.click("text=Ask")
    expect(page.locator("#notice")).to_contain_text("those of a user without behaviours")
    console.settled()
    assert "The history cannot be read" in console.text("#behaviours-says")
    assert len(console.order()) == 24
    redis.start()
    until(lambda: bool(ask_again(console)), 10, "the history once the store is back")
    page.click("#forget-key")
    page.locator("#key").wait_for()


def ask_again(console: Console) -> bool:
    console.page.click("text=Ask")
    console.settled()
    return "Nothing is stored" in console.text("#behaviours-says")
