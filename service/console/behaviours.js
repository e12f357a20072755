// The behaviours of a user in time: a mark for each, what is known of the one looked at, and edits of the sequence.

import { byId, glyph, h, when } from "./dom.js";

const DAY = { day: "numeric", month: "short" };

function groups(list) {
  const found = [];
  list.forEach((one, place) => {
    const name = one.at == null ? "tried" : when(one.at, DAY);
    if (found.at(-1)?.name !== name) found.push({ name, places: [] });
    found.at(-1).places.push(place);
  });
  return found;
}

export function start({ onSelect, onEdit }) {
  let told = { list: [], actions: [], ignored: 0, at: -1 };
  const strip = byId("strip");
  const marks = () => [...strip.querySelectorAll("button")];

  const name = (one) => one.action ?? (told.actions.length ? "no action" : "behaviour");

  function mark(one, number) {
    const ignored = number < told.ignored;
    const label = `Behaviour ${number + 1} of ${told.list.length}: item ${one.item}, ${name(one)}${ignored ? ", too old to count" : ""}`;
    const look = () => onSelect(number);
    return h("button", { type: "button", class: ignored ? "mark ignored" : "mark", "aria-label": label, title: label, onclick: look, onfocus: look, tabindex: -1 }, glyph(told.actions, one.action));
  }

  function legend() {
    const counts = new Map(told.actions.map((action) => [action, 0]));
    for (const one of told.list) counts.set(name(one), (counts.get(name(one)) ?? 0) + 1);
    const entries = [...counts].filter(([, count]) => count);
    byId("legend").replaceChildren(...entries.map(([action, count]) => h("li", {}, glyph(told.actions, action), `${action} `, h("span", { class: "figure" }, count))));
  }

  function edited(change) {
    const list = told.list.slice();
    onEdit(list, change(list));
  }

  const remove = (at) => edited((list) => (list.splice(at, 1), Math.min(at, list.length - 1)));
  const swap = (at, by) => edited((list) => {
    if (!list[at + by]) return at;
    [list[at], list[at + by]] = [list[at + by], list[at]];
    return at + by;
  });
  const rename = (at, action) => edited((list) => ((list[at] = { ...list[at], action }), at));

  function details() {
    const { at, list } = told;
    const one = list[at];
    const box = byId("selected");
    const used = box.contains(document.activeElement) ? document.activeElement.name : "";
    if (!one) {
      box.replaceChildren();
      return;
    }
    const choices = told.actions.map((action) => h("option", { value: action, selected: action === one.action }, action));
    const kind = h("select", { name: "action", "aria-label": "Its action", onchange: (event) => rename(at, event.target.value) }, choices);
    const button = (name, text, title, act, off) => h("button", { type: "button", name, title, disabled: off, onclick: act }, text);
    box.replaceChildren(
      h("p", {}, glyph(told.actions, one.action), h("strong", {}, ` item ${one.item}`), ` ${told.fields(one.item).map((pair) => pair.join(" ")).join(", ")}`, h("span", { class: "unit" }, ` ${at + 1} of ${list.length}${one.at == null ? "" : `, ${when(one.at)} UTC`}`)),
      h("div", { class: "row" }, told.actions.length ? kind : null, button("earlier", "◀ Earlier", "Move it one place back (Alt and left arrow)", () => swap(at, -1), at === 0), button("later", "Later ▶", "Move it one place on (Alt and right arrow)", () => swap(at, 1), at === list.length - 1), button("remove", "Remove", "What if this had not happened? (Delete)", () => remove(at))),
    );
    // What was used is there anew; at an end of the sequence the mark takes its place.
    if (used) (box.querySelector(`[name="${used}"]:enabled`) ?? marks()[at]).focus();
  }

  strip.addEventListener("keydown", (event) => {
    const all = marks();
    const at = all.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
    const to = { Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || !(step || to !== undefined || event.key === "Delete")) return;
    event.preventDefault();
    if (event.key === "Delete") remove(at);
    else if (event.altKey && step) swap(at, step);
    else all[Math.max(0, Math.min(all.length - 1, to ?? at + step))].focus();
  });

  function select(at) {
    told.at = at;
    marks().forEach((each, number) => {
      each.classList.toggle("at", number === at);
      each.tabIndex = number === at ? 0 : -1;
    });
    details();
  }

  // `next`: {list: [{item, action, at}], actions, ignored, at, fields(item), says, edited}
  function show(next) {
    const focused = strip.contains(document.activeElement);
    told = next;
    const made = told.list.map(mark);
    strip.replaceChildren(...groups(told.list).map(({ name, places }) => h("div", { class: "day" }, h("div", { class: "marks" }, places.map((number) => made[number])), h("span", { class: "unit" }, name))));
    byId("behaviours").classList.toggle("edited", told.edited);
    byId("behaviours-says").replaceChildren(...told.says);
    legend();
    select(told.at);
    if (focused) made[told.at]?.focus();
  }

  return { show, select };
}
