"""The console in a browser, before a server with the bundled model and users: every flow, and no complaint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from console_parts import Console, browser, chromium
from playwright.sync_api import Browser, BrowserContext, Route, expect
from process_parts import running
from redis_parts import RedisServer, lacking, until

from model.artifact import load_artifact, of_model, save_artifact
from model.config import ModelConfig
from model.data import open_data
from model.features import fit_schema
from model.zoo import make_network
from model.zoo.dien import Dien
from service.settings import BUNDLED_MODEL

USER = "712"
ITEMS = "5239 6831 2555 1527 7352 4119 4790 20 309 569 6910 1326"
ASKED = f"#user={USER}&items={ITEMS.replace(' ', ',')}&context.tab=1&context.hour=9"
BODY = {"user_id": USER, "item_ids": [int(item) for item in ITEMS.split()], "context": {"tab": 1, "hour": 9}}
KEY = "augur_browser"
ROWS = "#rows tbody tr"
# What an auditor of accessibility would complain of. Targets: WCAG 2.2, 2.5.8; for cells of the heat map there are the
# buttons of the ranking.
AUDIT = """() => {
  const all = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility());
  const told = [];
  const tell = (what, elements) => told.push(...elements.map((one) => `${what}: ${one.outerHTML.slice(0, 120)}`));
  const levels = all("h1, h2, h3, h4").map((one) => Number(one.tagName[1]));
  if (!document.title || !document.documentElement.lang) told.push("no title or language");
  for (const landmark of ["h1", "main", "body > header", "nav", "body > footer"])
    if (all(landmark).length !== 1) told.push(`${landmark}: not one`);
  levels.forEach((level, at) => level - (levels[at - 1] ?? 0) > 1 && told.push(`h${level} after h${levels[at - 1]}`));
  const used = all("button, input, select, textarea, summary, a[href], [role], section, form, nav");
  const name = (one) => one.ariaLabel || one.textContent.trim() || one.labels?.length || one.ariaLabelledByElements;
  tell("without a name", used.filter((one) => !name(one)));
  tell("without a label", all("input, select, textarea").filter((one) => !one.labels.length && !one.ariaLabel));
  tell("without alt", all("img").filter((one) => !one.hasAttribute("alt")));
  tell("first in order", all("[tabindex]").filter((one) => one.tabIndex > 0));
  tell("an id twice", all("[id]").filter((one) => document.querySelectorAll(`#${one.id}`).length > 1));
  const known = (ids) => (ids ?? "").split(" ").every((id) => !id || document.getElementById(id));
  tell("refers to nothing", all("[aria-labelledby], label[for]")
    .filter((one) => !known(one.getAttribute("aria-labelledby")) || !known(one.htmlFor)));
  tell("too small", all("button, input, select, summary").filter((one) => {
    const { width, height } = one.getBoundingClientRect();
    return Math.min(width, height) < 24;
  }));
  return told;
}"""
# Text that runs out of its place, over what is beside it.
CROWDED = """() => [...document.querySelectorAll("h1, h2, h3, p, li, th, td, dt, dd, label, button, summary")]
  .filter((one) => one.checkVisibility() && getComputedStyle(one).fontSize !== "0px" && one.clientWidth
    && one.scrollWidth > one.clientWidth + 1)
  .map((one) => `${one.textContent}: ${one.scrollWidth} in ${one.clientWidth}`)"""
Look = Callable[..., Console]


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    binary = chromium() or ""
    if not binary:
        lacking("no chromium on PATH")
    with browser(binary) as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bundled model with its users, and beside it another one with as good a face and other weights."""
    bundled = load_artifact(BUNDLED_MODEL)
    model = bundled.model()
    assert isinstance(model, Dien)
    with torch.no_grad():
        for part, factor in ((model.attention, 30), (model.evolution, 3)):
            for parameter in part.parameters():
                parameter.mul_(factor)
    folder = tmp_path_factory.mktemp("models") / "sharp"
    save_artifact(of_model("sharp", model, bundled.schema, {}, {}), folder)
    models = f"kuairand={BUNDLED_MODEL},sharp={folder}"
    with running(models=models, seed="kuairand:data/kuairand_pure", threads="1") as process:
        assert process.url, process.end()
        yield process.url


@pytest.fixture
def look(opened: Browser) -> Iterator[Look]:
    """Opens a window; at the end none has had anything to complain of but what was expected."""
    windows: list[tuple[BrowserContext, Console, str]] = []

    def start(url: str, fragment: str = "", expected: str = "^$", **how: Any) -> Console:
        context = opened.new_context(**how)
        console = Console(context.new_page(), url)
        windows.append((context, console, expected))
        console.open(fragment)
        return console

    yield start
    for context, console, expected in windows:
        context.close()
        assert [said for said in console.complaints if not re.search(expected, said)] == []


def score(url: str, **more: Any) -> dict[str, float]:
    """Percentages by item, as the page writes them."""
    answer = httpx.post(f"{url}/v1/score", json=BODY | more).json()
    return dict(zip(map(str, BODY["item_ids"]), answer["scores"], strict=True))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def stored(url: str, user: str = USER) -> list[Any]:
    events: list[Any] = httpx.get(f"{url}/v1/users/{user}/behaviors").json()["events"]
    return events


def order(console: Console) -> list[str]:
    return console.texts(f"{ROWS} th")


def test_history_ranking_and_reasons_are_those_of_the_api(server: str, look: Look) -> None:
    console = look(server, ASKED)
    console.settled()
    scores = score(server)
    best_first = sorted(scores, key=lambda item: -scores[item])
    assert order(console) == best_first
    assert console.texts(f"{ROWS} .score .figure") == [percent(scores[item]) for item in best_first]
    assert "author_id · tag" in console.text("#rows thead")
    assert re.match(r"\d+ · \d+", console.texts(f"{ROWS} .fields")[0])
    assert console.page.locator("#strip .mark").count() == len(stored(server)) == 43
    assert console.texts("#legend li") == ["shown\n14", "click\n3", "long_view\n26"]
    # Actions differ by shape, and not by colour alone.
    shapes = console.page.eval_on_selector_all("#legend svg", "all => all.map(one => one.innerHTML)")
    assert len(set(shapes)) == 3

    explained = httpx.post(f"{server}/v1/explain", json=BODY | {"item_ids": [int(item) for item in best_first]}).json()
    cells = console.page.eval_on_selector_all(".heat tbody td", "all => all.map(one => one.textContent)")
    assert cells == [percent(weight) for row in explained["candidates"] for weight in row["attention"]]

    asked = BODY | {"item_ids": [int(best_first[0])], "evolution": True}
    (one,) = httpx.post(f"{server}/v1/explain", json=asked).json()["candidates"]
    steps = one["evolution"]["probabilities"]
    assert f"{percent(steps[0])} before the first behaviour, {percent(steps[-1])} after" in console.text(
        "#evolution-says"
    )
    assert percent(steps[-1]) == percent(scores[best_first[0]])
    console.page.click(".numbers summary")
    told = console.page.eval_on_selector_all(".numbers tbody td:nth-child(7)", "all => all.map(one => one.textContent)")
    assert told == [f"{100 * step:.2f} %" for step in steps[1:]]
    assert "ms in the server (queue" in console.text("#speed")


def test_a_newcomer_finds_something_to_look_at(server: str, look: Look) -> None:
    console = look(server)
    console.settled()
    assert len(order(console)) == 24
    before = console.page.input_value("#user")
    offered = httpx.get(f"{server}/v1/users").json()["users"][:8]
    counts = {user: len(stored(server, user)) for user in offered}
    assert counts[before] == max(counts.values()) > 50
    console.page.click("#another")
    console.settled()
    assert console.page.input_value("#user") != before
    assert console.text("#behaviours-says").startswith(f"User {console.page.input_value('#user')}:")
    console.page.fill("#count", "200")
    console.page.click("#draw")
    expect(console.page.locator(ROWS)).to_have_count(200)
    console.settled()
    assert console.text("#attention-says").startswith("20 of the 200 candidates.")
    last = order(console)[-1]
    console.page.click(f"{ROWS}:last-child .item")
    expect(console.page.locator(".heat tbody tr")).to_have_count(21)
    expect(console.page.locator("#evolution-says")).to_contain_text(f"Candidate {last}")
    assert console.page.evaluate(AUDIT) == []


def test_what_if_moves_the_ranking_and_not_the_store(server: str, look: Look) -> None:
    console = look(server, f"{ASKED}&model=sharp")
    console.settled()
    past, plain = stored(server), score(server, model="sharp")
    history, actions = [one["item_id"] for one in past], [one["action"] for one in past]
    last = order(console)[-1]
    console.page.click(f"{ROWS}:last-child .try")
    console.settled()
    tried = score(server, model="sharp", history=[*history, int(last)], history_actions=[*actions, "click"])
    best_first = sorted(tried, key=lambda item: -tried[item])
    assert order(console) == best_first
    assert console.texts(f"{ROWS} .score .figure") == [percent(tried[item]) for item in best_first]
    assert console.texts(f"{ROWS} .was") == [percent(plain[item]) for item in best_first]
    was = sorted(plain, key=lambda item: -plain[item])
    moved = [was.index(item) - place for place, item in enumerate(best_first)]
    signs = [f"▲ {by}" if by > 0 else f"▼ {-by}" if by < 0 else "=" for by in moved]
    assert console.texts(f"{ROWS} .change") == signs
    assert any(moved)
    assert "44 behaviours, where 43 are stored" in console.text("#behaviours-says")

    # Who pressed a button finds it under the finger, wherever the row went.
    assert console.page.evaluate("document.activeElement.ariaLabel") == f"What if: click with {last}"
    console.page.click("#selected [name=earlier]")
    console.settled()
    assert console.page.evaluate("document.activeElement.name") == "earlier"
    console.page.click("#selected [name=later]")
    console.settled()
    assert "44 of 44" in str(console.page.evaluate("document.activeElement.ariaLabel"))

    mark = console.page.locator("#strip .mark")
    mark.nth(43).focus()
    console.page.keyboard.press("Alt+ArrowLeft")
    console.settled()
    assert "history" in console.page.url
    expect(mark.nth(42)).to_have_class(re.compile(" at"))
    assert last in str(mark.nth(42).get_attribute("aria-label"))
    console.page.keyboard.press("Delete")
    console.settled()
    assert mark.count() == 43
    console.page.select_option("#selected select", "shown")
    console.settled()
    assert "shown\n15" in console.texts("#legend li")

    # A link shows another person the same.
    other = look(server, f"#{console.page.url.partition('#')[2]}")
    other.settled()
    assert other.texts(ROWS) == console.texts(ROWS)
    assert other.texts("#strip") == console.texts("#strip")

    console.page.click("#without")
    console.settled()
    assert console.text("#attention-says") == "Without behaviours there is nothing to look at."
    console.page.click("#back")
    console.settled()
    assert mark.count() == 43
    assert stored(server) == past


def test_a_recorded_behaviour_is_in_the_store_and_what_was_before_stays_beside(server: str, look: Look) -> None:
    console = look(server, ASKED)
    console.settled()
    plain, past = score(server), stored(server)
    console.page.select_option("#add-action", "long_view")
    console.page.fill("#add-item", "5239")
    console.page.click("#record")
    expect(console.page.locator("#rows thead")).to_contain_text("before")
    console.settled()
    assert [(one["item_id"], one["action"]) for one in stored(server)] == [
        *((one["item_id"], one["action"]) for one in past),
        (5239, "long_view"),
    ]
    now = score(server)
    best_first = sorted(now, key=lambda item: -now[item])
    assert console.texts(f"{ROWS} .score .figure") == [percent(now[item]) for item in best_first]
    assert console.texts(f"{ROWS} .was") == [percent(plain[item]) for item in best_first]
    # As it was, for the other tests.
    httpx.delete(f"{server}/v1/users/{USER}/behaviors")
    events = [one | {"user_id": USER, "event_id": str(place)} for place, one in enumerate(past)]
    httpx.post(f"{server}/v1/behaviors", json={"events": events})


def test_two_models_stand_side_by_side(server: str, look: Look) -> None:
    console = look(server, ASKED)
    console.settled()
    console.page.select_option("#versus", "sharp")
    expect(console.page.locator("#rows thead")).to_contain_text("sharp")
    console.settled()
    one, other = score(server, model="kuairand"), score(server, model="sharp")
    best_first = sorted(one, key=lambda item: -one[item])
    assert console.texts(f"{ROWS} .was") == [percent(other[item]) for item in best_first]
    assert "versus=sharp" in console.page.url


def test_candidates_are_taken_from_any_text_and_bad_input_is_told(server: str, look: Look) -> None:
    console = look(server, ASKED, expected="422")
    console.settled()
    console.page.fill("#items", '[{"id": 5239}, 5239,\n6831;99999999]')
    console.page.click("text=Ask")
    expect(console.page.locator(ROWS)).to_have_count(3)
    console.settled()
    assert "1 candidate is unknown to the model" in console.text("#ranking-says")
    assert "not in the catalogue" not in console.text("#rows")
    console.page.fill("#items", "99999999999999999999")
    console.page.click("text=Ask")
    expect(console.page.locator("#notice")).to_contain_text("item_ids")
    console.page.fill("#items", "")
    console.page.click("text=Ask")
    expect(console.page.locator("#ranking-says")).to_contain_text("No candidates yet")
    assert console.page.locator(ROWS).count() == 0
    console.settled()
    assert console.page.locator("#notice").is_hidden()


def test_a_whole_request_can_be_pasted(server: str, look: Look) -> None:
    asked = BODY | {"model": "sharp", "history": [5239, 6831, 2555], "history_actions": ["click", "shown", "click"]}
    console = look(server)
    console.settled()
    console.page.fill("#items", f"02:14:07 WARN strange score: curl {server}/v1/score -d '{json.dumps(asked)}'")
    console.page.click("text=Ask")
    expect(console.page.locator("#behaviours-says")).to_contain_text("3 behaviours, where 43 are stored")
    console.settled()
    answer = httpx.post(f"{server}/v1/score", json=asked).json()["scores"]
    scores = {str(item): value for item, value in zip(asked["item_ids"], answer, strict=True)}
    assert order(console) == sorted(scores, key=lambda item: -scores[item])
    assert console.texts(f"{ROWS} .score .figure") == [percent(scores[item]) for item in order(console)]
    fields = {name: console.page.input_value(f"#{name}") for name in ("user", "items", "context-tab", "context-hour")}
    assert fields == {"user": USER, "items": ITEMS, "context-tab": "1", "context-hour": "9"}
    assert console.page.input_value("#model") == "sharp"
    # What it copies is what was pasted, so that it goes round.
    console.page.click("button.curl >> nth=1")
    command = console.text("#curl-text")
    assert json.loads(command.partition("-d '")[2].rstrip("'")) == asked
    other = look(server)
    other.settled()
    other.page.fill("#items", command)
    other.page.click("text=Ask")
    expect(other.page.locator("#behaviours-says")).to_contain_text("3 behaviours, where 43 are stored")
    other.settled()
    assert other.texts(ROWS) == console.texts(ROWS)
    # Without a history it is the stored one that counts.
    other.page.fill("#items", json.dumps(BODY))
    other.page.click("text=Ask")
    expect(other.page.locator("#behaviours-says")).to_contain_text(f"User {USER}: 43 behaviours")


def test_a_request_that_is_none_is_read_as_far_as_it_goes(server: str, look: Look) -> None:
    console = look(server, ASKED)
    module = console.page.get_attribute("script[type=module]", "src")
    assert module
    load = "async ([path, text]) => (await import(path)).fromRequest(text)"

    def read(text: str) -> Any:
        return console.page.evaluate(load, [module.replace("main.js", "view.js"), text])

    assert read("5239 6831") is read("{") is read("} {") is read('{"items": [1]}') is read('{"item_ids": 7}') is None
    odd = {"item_ids": [5, "six", 5, 1.5, None], "history": "none", "context": {"tab": "x", "hour": 9}, "user_id": 7}
    plain = {"user": "7", "items": ["5"], "context": {"hour": "9"}, "model": "", "history": None, "pick": None}
    assert read(json.dumps(odd)) == plain
    assert read('{"item_ids": [9223372036854775807]}')["items"] == ["9223372036854775807"]
    history = read('{"item_ids": [1], "history": [2, "x"], "history_actions": ["click"]}')["history"]
    assert history == [{"item": "2", "action": "click", "at": None}]


def test_everything_can_be_done_from_the_keyboard(server: str, look: Look) -> None:
    console = look(server, ASKED)
    console.settled()
    press, page = console.page.keyboard.press, console.page
    press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    press("Enter")
    assert page.evaluate("document.activeElement.id") == "ranking"
    for _ in range(3):
        press("Tab")
    item = page.evaluate("document.activeElement.textContent")
    assert item == order(console)[0]
    for _ in range(2):
        press("Tab")
    press("Enter")
    second = order(console)[1]
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
def test_it_fits_a_narrow_window_and_holds_still_when_asked_to(server: str, look: Look, scheme: str) -> None:
    narrow = {"width": 360, "height": 640}
    console = look(server, f"{ASKED}&model=sharp", viewport=narrow, color_scheme=scheme, reduced_motion="reduce")
    console.settled()
    console.page.click(f"{ROWS}:last-child .try")
    console.settled()
    assert console.page.evaluate("document.getAnimations().length") == 0
    assert console.page.evaluate("document.documentElement.scrollWidth") == 360
    assert console.page.evaluate(CROWDED) == []
    assert console.page.evaluate(AUDIT) == []
    console.page.click("button.curl >> nth=1")
    assert console.page.evaluate("document.documentElement.scrollWidth") == 360


def test_live_figures_are_read_while_somebody_looks(server: str, look: Look) -> None:
    console = look(server, ASKED)
    expect(console.page.locator("#live-rate")).not_to_have_text("–")
    with console.page.expect_response("**/metrics"):
        pass
    hide = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); "
    hide += "document.dispatchEvent(new Event('visibilitychange')); }"
    # Turned away from while a reading is under way: the answer is late, and leads to no other.
    waiting: list[Route] = []
    console.page.route("**/metrics", lambda route: waiting.append(route))  # noqa: PLW0108  # it is marked
    with console.page.expect_request("**/metrics"):
        pass
    console.page.evaluate(hide, True)
    for route in waiting:
        route.continue_()
    console.page.unroute("**/metrics")
    read: list[str] = []
    console.page.on("request", lambda request: read.append(request.url))
    console.page.wait_for_timeout(2300)
    assert read == []
    with console.page.expect_request("**/metrics"):
        console.page.evaluate(hide, False)

    # The figures are the differences between two readings.
    module = console.page.get_attribute("script[type=module]", "src")
    assert module
    readings = [httpx.get(f"{server}/metrics").text]
    for _ in range(5):
        score(server)
    readings.append(httpx.get(f"{server}/metrics").text)
    load = "async ([path, before, after]) => { const live = await import(path); "
    load += "return live.figures(live.parse(before), live.parse(after), 2); }"
    figures = console.page.evaluate(load, [module.replace("main.js", "live.js"), *readings])
    assert figures["rate"] >= 2.5
    assert 0 < figures["p50"] <= figures["p99"]
    assert figures["batch"] >= 1
    assert figures["degraded"] == 0


def test_ids_beyond_the_numbers_of_a_browser_stay_what_they_are(server: str, look: Look) -> None:
    console = look(server, ASKED)
    module = console.page.get_attribute("script[type=module]", "src")
    assert module
    load = "async ([path, text]) => { const api = await import(path); return api.write(api.read(text)); }"
    text = '{"item_id":9223372036854775807,"item_ids":[],"score":0.5,"at":1652000000000}'
    assert console.page.evaluate(load, [module.replace("main.js", "api.js"), text]) == text
    big = (
        "const body = {item_ids: ['9007199254740993'], context: {tab: '-9007199254740993'}}; return api.write(body); }"
    )
    load = f"async (path) => {{ const api = await import(path); {big}"
    written = console.page.evaluate(load, module.replace("main.js", "api.js"))
    assert written == '{"item_ids":[9007199254740993],"context":{"tab":-9007199254740993}}'


def test_a_server_that_is_slow_or_away_is_told(server: str, look: Look) -> None:
    console = look(server, ASKED, expected="ERR_INTERNET_DISCONNECTED")
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


def test_rows_out_of_sight_wait_until_all_else_is_drawn(server: str, look: Look) -> None:
    console = look(server, ASKED)
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
    assert len(order(console)) == 24
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
    assert len(order(console)) == 24
    redis.start()
    until(lambda: bool(ask_again(console)), 10, "the history once the store is back")
    page.click("#forget-key")
    page.locator("#key").wait_for()


def ask_again(console: Console) -> bool:
    console.page.click("text=Ask")
    console.settled()
    return "Nothing is stored" in console.text("#behaviours-says")
