// The ranking: a row for each candidate, with what it was before beside it. Rows stay the same elements and move.

import { byId, h, percent, points, put } from "./dom.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const LONGEST = 24; // characters of a row's fields: to cut them off by style would cost a layer for each row
const MOVE = { duration: 350, easing: "ease-out" };

function change(row) {
  if (!row.before) return ["", ""];
  const places = row.before.rank - row.rank;
  if (!places) return ["same", "="];
  return places > 0 ? ["up", `▲ ${places}`] : ["down", `▼ ${-places}`];
}

const cut = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text);

const spoken = { same: () => "same place", up: (row) => `up from ${row.before.rank}`, down: (row) => `down from ${row.before.rank}` };

export function start({ onPick, onTry }) {
  const body = byId("rows").tBodies[0];
  const box = byId("rows").parentElement;
  const lines = new Map();

  function line(item) {
    const parts = {
      rank: h("td", { class: "figure rank" }),
      change: h("td", { class: "change" }),
      item: h("button", { type: "button", class: "quiet item", title: "Explain this one", onclick: () => onPick(item) }, item),
      fields: h("td", { class: "fields" }),
      bar: h("span", { class: "bar", "aria-hidden": "true" }),
      score: h("span", { class: "figure" }),
      was: h("span", { class: "was" }),
      by: h("span", { class: "by" }),
      try: h("button", { type: "button", class: "quiet try", onclick: () => onTry(item) }, "+"),
    };
    const cells = [parts.rank, parts.change, h("th", { scope: "row" }, parts.item), parts.fields];
    cells.push(h("td", { class: "score" }, parts.bar, parts.score), h("td", { class: "figure before" }, parts.was, parts.by), h("td", {}, parts.try));
    return { ...parts, row: h("tr", {}, cells) };
  }

  function write(parts, row, { fields, pick, action }) {
    const [kind, text] = change(row);
    parts.row.classList.toggle("picked", row.item === pick);
    parts.item.setAttribute("aria-pressed", String(row.item === pick));
    put(parts.rank, String(row.rank));
    parts.change.className = `change ${kind}`;
    put(parts.change, text);
    if (kind) parts.change.setAttribute("aria-label", spoken[kind](row));
    else parts.change.removeAttribute("aria-label");
    put(parts.fields, cut(fields(row.item).map(([, value]) => value).join(" · ")));
    put(parts.score, percent(row.score));
    parts.bar.style.setProperty("--share", row.score);
    parts.bar.style.setProperty("--before", row.before ? row.before.score : row.score);
    parts.bar.classList.toggle("compared", Boolean(row.before));
    put(parts.was, row.before ? percent(row.before.score) : "");
    put(parts.by, row.before ? points(row.score - row.before.score) : "");
    parts.try.title = `What if they also did this: ${action || "behaviour"}`;
    parts.try.setAttribute("aria-label", `What if: ${action || "behaviour"} with ${row.item}`);
  }

  function titles(told, rows) {
    const cells = ["#", told.compared ? "moved" : "", "candidate", told.names.join(" · "), "click probability", told.compared ?? "", ""];
    byId("rows").style.setProperty("--id", Math.max(...rows.map((row) => row.item.length), 7));
    byId("rows").style.setProperty("--fields", Math.max(...rows.map((row) => lines.get(row.item)?.fields.textContent.length ?? 0), 9));
    byId("rows").tHead.replaceChildren(h("tr", {}, cells.map((text) => (text ? h("th", { scope: "col" }, text) : h("td")))));
    byId("rows").classList.toggle("compared", Boolean(told.compared));
  }

  // `told`: {pick, fields(item), names of the fields, action, compared: the title of what it is compared with, or null}
  function show(rows, told) {
    const was = new Map([...lines.keys()].map((item, place) => [item, place]));
    const sight = calm.matches || !lines.size ? null : inSight();
    const kept = new Map(rows.map((row) => [row.item, lines.get(row.item) ?? line(row.item)]));
    for (const row of rows) write(kept.get(row.item), row, told);
    const elements = [...kept.values()].map((parts) => parts.row);
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    place(elements);
    lines.clear();
    kept.forEach((parts, item) => lines.set(item, parts));
    titles(told, rows);
    // Last, since it makes the browser lay out what was written: it should do so once.
    if (focused && document.activeElement !== focused) focused.focus({ preventScroll: true });
    if (sight) move([...kept.keys()].map((item, place) => [elements[place], was.get(item) ?? place, place]), sight);
  }

  // Rows that stand where they should are left alone: one that is put in anew costs its style and layout.
  function place(elements) {
    const kept = new Set(elements);
    for (const row of [...body.rows]) if (!kept.has(row)) row.remove();
    let next = body.firstElementChild;
    for (const element of elements) {
      if (element === next) next = next.nextElementSibling;
      else body.insertBefore(element, next);
    }
  }

  // Read before anything is written, when no layout is due: the height of a row, which is that of all, the first and last.
  function inSight() {
    const height = body.rows[0].offsetHeight;
    return { height, first: box.scrollTop / height - 1, last: (box.scrollTop + box.clientHeight) / height };
  }

  // Rows in sight go from where they were to where they are.
  function move(ways, { height, first, last }) {
    for (const [row, from, to] of ways) {
      const seen = Math.max(from, to) > first && Math.min(from, to) < last;
      if (from !== to && seen) row.animate([{ transform: `translateY(${(from - to) * height}px)` }, { transform: "none" }], MOVE);
    }
  }

  return { show };
}
