"""The console in a browser, before a server with the bundled model and users: every flow, and no complaint."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
from console_parts import ASKED, BODY, ITEMS, ROWS, USER, Look
from playwright.sync_api import Route, expect


def score(url: str, **more: Any) -> dict[str, float]:
    """Percentages by item, as the page writes them."""
    answer = httpx.post(f"{url}/v1/score", json=BODY | more).json()
    return dict(zip(map(str, BODY["item_ids"]), answer["scores"], strict=True))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def stored(url: str, user: str = USER) -> list[Any]:
    events: list[Any] = httpx.get(f"{url}/v1/users/{user}/behaviors").json()["events"]
    return events


def test_history_ranking_and_reasons_are_those_of_the_api(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED)
    console.settled()
    scores = score(console_url)
    best_first = sorted(scores, key=lambda item: -scores[item])
    assert console.order() == best_first
    assert console.texts(f"{ROWS} .score .figure") == [percent(scores[item]) for item in best_first]
    assert "author_id · tag" in console.text("#rows thead")
    assert re.match(r"\d+ · \d+", console.texts(f"{ROWS} .fields")[0])
    assert console.page.locator("#strip .mark").count() == len(stored(console_url)) == 43
    assert console.texts("#legend li") == ["shown\n14", "click\n3", "long_view\n26"]
    # Actions differ by shape, and not by colour alone.
    shapes = console.page.eval_on_selector_all("#legend svg", "all => all.map(one => one.innerHTML)")
    assert len(set(shapes)) == 3

    explained = httpx.post(
        f"{console_url}/v1/explain", json=BODY | {"item_ids": [int(item) for item in best_first]}
    ).json()
    cells = console.page.eval_on_selector_all(".heat tbody td", "all => all.map(one => one.textContent)")
    assert cells == [percent(weight) for row in explained["candidates"] for weight in row["attention"]]

    asked = BODY | {"item_ids": [int(best_first[0])], "evolution": True}
    (one,) = httpx.post(f"{console_url}/v1/explain", json=asked).json()["candidates"]
    steps = one["evolution"]["probabilities"]
    assert f"{percent(steps[0])} before the first behaviour, {percent(steps[-1])} after" in console.text(
        "#evolution-says"
    )
    assert percent(steps[-1]) == percent(scores[best_first[0]])
    console.page.click(".numbers summary")
    told = console.page.eval_on_selector_all(".numbers tbody td:nth-child(7)", "all => all.map(one => one.textContent)")
    assert told == [f"{100 * step:.2f} %" for step in steps[1:]]
    assert "ms in the server (queue" in console.text("#speed")


def test_a_newcomer_finds_something_to_look_at(console_url: str, look: Look) -> None:
    console = look(console_url)
    console.settled()
    assert len(console.order()) == 24
    before = console.page.input_value("#user")
    offered = httpx.get(f"{console_url}/v1/users").json()["users"][:8]
    counts = {user: len(stored(console_url, user)) for user in offered}
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
    last = console.order()[-1]
    console.page.click(f"{ROWS}:last-child .item")
    expect(console.page.locator(".heat tbody tr")).to_have_count(21)
    expect(console.page.locator("#evolution-says")).to_contain_text(f"Candidate {last}")
    assert console.audit() == []


def test_what_if_moves_the_ranking_and_not_the_store(console_url: str, look: Look) -> None:
    console = look(console_url, f"{ASKED}&model=sharp")
    console.settled()
    past, plain = stored(console_url), score(console_url, model="sharp")
    history, actions = [one["item_id"] for one in past], [one["action"] for one in past]
    last = console.order()[-1]
    console.page.click(f"{ROWS}:last-child .try")
    console.settled()
    tried = score(console_url, model="sharp", history=[*history, int(last)], history_actions=[*actions, "click"])
    best_first = sorted(tried, key=lambda item: -tried[item])
    assert console.order() == best_first
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
    other = look(console_url, f"#{console.page.url.partition('#')[2]}")
    other.settled()
    assert other.texts(ROWS) == console.texts(ROWS)
    assert other.texts("#strip") == console.texts("#strip")

    console.page.click("#without")
    console.settled()
    assert console.text("#attention-says") == "Without behaviours there is nothing to look at."
    console.page.click("#back")
    console.settled()
    assert mark.count() == 43
    assert stored(console_url) == past


def test_a_recorded_behaviour_is_in_the_store_and_what_was_before_stays_beside(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED)
    console.settled()
    plain, past = score(console_url), stored(console_url)
    console.page.select_option("#add-action", "long_view")
    console.page.fill("#add-item", "5239")
    console.page.click("#record")
    expect(console.page.locator("#rows thead")).to_contain_text("before")
    console.settled()
    assert [(one["item_id"], one["action"]) for one in stored(console_url)] == [
        *((one["item_id"], one["action"]) for one in past),
        (5239, "long_view"),
    ]
    now = score(console_url)
    best_first = sorted(now, key=lambda item: -now[item])
    assert console.texts(f"{ROWS} .score .figure") == [percent(now[item]) for item in best_first]
    assert console.texts(f"{ROWS} .was") == [percent(plain[item]) for item in best_first]
    # As it was, for the other tests.
    httpx.delete(f"{console_url}/v1/users/{USER}/behaviors")
    events = [one | {"user_id": USER, "event_id": str(place)} for place, one in enumerate(past)]
    httpx.post(f"{console_url}/v1/behaviors", json={"events": events})


def test_two_models_stand_side_by_side(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED)
    console.settled()
    console.page.select_option("#versus", "sharp")
    expect(console.page.locator("#rows thead")).to_contain_text("sharp")
    console.settled()
    one, other = score(console_url, model="kuairand"), score(console_url, model="sharp")
    best_first = sorted(one, key=lambda item: -one[item])
    assert console.texts(f"{ROWS} .was") == [percent(other[item]) for item in best_first]
    assert "versus=sharp" in console.page.url


def test_candidates_are_taken_from_any_text_and_bad_input_is_told(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED, expected="422")
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


def test_a_whole_request_can_be_pasted(console_url: str, look: Look) -> None:
    asked = BODY | {"model": "sharp", "history": [5239, 6831, 2555], "history_actions": ["click", "shown", "click"]}
    console = look(console_url)
    console.settled()
    console.page.fill("#items", f"02:14:07 WARN strange score: curl {console_url}/v1/score -d '{json.dumps(asked)}'")
    console.page.click("text=Ask")
    expect(console.page.locator("#behaviours-says")).to_contain_text("3 behaviours, where 43 are stored")
    console.settled()
    answer = httpx.post(f"{console_url}/v1/score", json=asked).json()["scores"]
    scores = {str(item): value for item, value in zip(asked["item_ids"], answer, strict=True)}
    assert console.order() == sorted(scores, key=lambda item: -scores[item])
    assert console.texts(f"{ROWS} .score .figure") == [percent(scores[item]) for item in console.order()]
    fields = {name: console.page.input_value(f"#{name}") for name in ("user", "items", "context-tab", "context-hour")}
    assert fields == {"user": USER, "items": ITEMS, "context-tab": "1", "context-hour": "9"}
    assert console.page.input_value("#model") == "sharp"
    # What it copies is what was pasted, so that it goes round.
    console.page.click("button.curl >> nth=1")
    command = console.text("#curl-text")
    assert json.loads(command.partition("-d '")[2].rstrip("'")) == asked
    other = look(console_url)
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


def test_a_request_that_is_none_is_read_as_far_as_it_goes(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED)
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


def test_live_figures_are_read_while_somebody_looks(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED)
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
    readings = [httpx.get(f"{console_url}/metrics").text]
    for _ in range(5):
        score(console_url)
    readings.append(httpx.get(f"{console_url}/metrics").text)
    load = "async ([path, before, after]) => { const live = await import(path); "
    load += "return live.figures(live.parse(before), live.parse(after), 2); }"
    figures = console.page.evaluate(load, [module.replace("main.js", "live.js"), *readings])
    assert figures["rate"] >= 2.5
    assert 0 < figures["p50"] <= figures["p99"]
    assert figures["batch"] >= 1
    assert figures["degraded"] == 0


def test_ids_beyond_the_numbers_of_a_browser_stay_what_they_are(console_url: str, look: Look) -> None:
    console = look(console_url, ASKED)
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
