// The ranking: a row for each candidate, with what it was before beside it. Rows stay the same elements and move.

import { byId, h, percent, points } from "./dom.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const MOVE = { duration: 350, easing: "ease-out" };

function change(row) {
  if (!row.before) return ["", ""];
  const places = row.before.rank - row.rank;
  if (!places) return ["same", "="];
  return places > 0 ? ["up", `▲ ${places}`] : ["down", `▼ ${-places}`];
}

const spoken = { same: () => "same place", up: (row) => `up from ${row.before.rank}`, down: (row) => `down from ${row.before.rank}` };

export function start({ onPick, onTry }) {
  const body = byId("rows").tBodies[0];
  const lines = new Map();

  function line(item) {
    const parts = {
      rank: h("td", { class: "figure rank" }),
      change: h("td", { class: "change" }),
      item: h("button", { type: "button", class: "quiet item", onclick: () => onPick(item) }, item),
      fields: h("td", { class: "fields" }),
      bar: h("span", { class: "bar", "aria-hidden": "true" }),
      score: h("span", { class: "figure" }),
      before: h("td", { class: "figure before" }),
      try: h("button", { type: "button", class: "quiet try", onclick: () => onTry(item) }, "+"),
    };
    const cells = [parts.rank, parts.change, h("th", { scope: "row" }, parts.item), parts.fields];
    cells.push(h("td", { class: "score" }, parts.bar, parts.score), parts.before, h("td", {}, parts.try));
    return { ...parts, row: h("tr", {}, cells) };
  }

  function write(parts, row, { fields, pick, action }) {
    const [kind, text] = change(row);
    parts.row.classList.toggle("picked", row.item === pick);
    parts.item.setAttribute("aria-pressed", String(row.item === pick));
    parts.item.title = "Explain this one";
    parts.rank.textContent = row.rank;
    parts.change.className = `change ${kind}`;
    parts.change.textContent = text;
    if (kind) parts.change.setAttribute("aria-label", spoken[kind](row));
    else parts.change.removeAttribute("aria-label");
    parts.fields.textContent = fields(row.item).map(([, value]) => value).join(" · ");
    parts.score.textContent = percent(row.score);
    parts.bar.style.setProperty("--share", row.score);
    parts.bar.style.setProperty("--before", row.before ? row.before.score : row.score);
    parts.bar.classList.toggle("compared", Boolean(row.before));
    parts.before.textContent = row.before ? `${percent(row.before.score)}  ${points(row.score - row.before.score)}` : "";
    parts.try.title = `What if they also did this: ${action || "behaviour"}`;
    parts.try.setAttribute("aria-label", `What if: ${action || "behaviour"} with ${row.item}`);
  }

  function titles(told) {
    const cells = ["#", told.compared ? "moved" : "", "candidate", told.names.join(" · "), "click probability", told.compared ? `${told.compared}, and difference` : "", ""];
    byId("rows").tHead.replaceChildren(h("tr", {}, cells.map((text) => (text ? h("th", { scope: "col" }, text) : h("td")))));
    byId("rows").classList.toggle("compared", Boolean(told.compared));
  }

  // `told`: {pick, fields(item), names of the fields, action, compared: the title of what it is compared with, or null}
  function show(rows, told) {
    const moving = !calm.matches && lines.size > 0;
    const was = new Map(moving ? [...lines].map(([item, parts]) => [item, parts.row.offsetTop]) : []);
    titles(told);
    const kept = new Map(rows.map((row) => [row.item, lines.get(row.item) ?? line(row.item)]));
    for (const row of rows) write(kept.get(row.item), row, told);
    body.replaceChildren(...[...kept.values()].map((parts) => parts.row));
    lines.clear();
    kept.forEach((parts, item) => lines.set(item, parts));
    if (moving) for (const [item, parts] of kept) if (was.has(item)) move(parts.row, was.get(item));
  }

  function move(row, from) {
    const way = from - row.offsetTop;
    if (way) row.animate([{ transform: `translateY(${way}px)` }, { transform: "none" }], MOVE);
  }

  return { show };
}
