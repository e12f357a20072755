// The heat map: candidates by behaviours, as dark as the share of the candidate's attention.

import { byId, glyph, h, percent } from "./dom.js";

// Models differ in how much they prefer one behaviour to another: the scale goes from the least weight to the most.
const darkness = (weight, [least, most]) => (most > least ? (weight - least) / (most - least) : 0.5);

export function start({ onSelect, onPick }) {
  const root = byId("attention");
  let cells = [];

  function go(event) {
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const [row, column] = [Number(event.target.dataset.row), Number(event.target.dataset.column)];
    if (event.key === "Enter") onPick(event.target.dataset.item);
    const next = steps && cells[row + steps[0]]?.[column + steps[1]];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  function cell(weight, range, row, column, told) {
    const properties = { "data-row": row, "data-column": column, "data-item": told.candidates[row].item_id, tabindex: row || column ? -1 : 0 };
    return h("td", { ...properties, "--dark": darkness(weight, range).toFixed(3) }, percent(weight));
  }

  root.addEventListener("keydown", go);
  const at = (event) => event.target.closest("td[data-column]");
  root.addEventListener("focusin", (event) => at(event) && look(at(event)));
  root.addEventListener("mouseover", (event) => at(event) && look(at(event)));
  root.addEventListener("click", (event) => at(event) && onPick(at(event).dataset.item));
  let told;

  function look(td) {
    const column = Number(td.dataset.column);
    const one = told.history[column];
    byId("attention-at").replaceChildren(glyph(told.actions, one.action), ` ${td.dataset.item} gives item ${one.item_id} ${td.textContent} of its attention`);
    onSelect(column);
  }

  function select(column) {
    cells.forEach((row) => row.forEach((td, place) => td.classList.toggle("at", place === column)));
  }

  // `next`: {history, candidates, actions, pick} of an explanation, candidates in the order of the ranking
  function show(next) {
    told = next;
    const weights = told.candidates.flatMap((one) => one.attention);
    const range = [Math.min(...weights), Math.max(...weights)];
    cells = told.candidates.map((one, row) => one.attention.map((weight, column) => cell(weight, range, row, column, told)));
    const rows = told.candidates.map((one, row) => h("tr", { "data-item": one.item_id }, h("th", { scope: "row", class: "figure" }, one.item_id), cells[row]));
    const marks = told.history.map((one) => h("th", { scope: "col", "aria-label": `item ${one.item_id} ${one.action ?? ""}` }, glyph(told.actions, one.action)));
    root.replaceChildren(
      h("table", { class: "heat", role: "grid", "aria-label": "Attention of candidates over behaviours" }, h("thead", {}, h("tr", {}, h("td"), marks)), h("tbody", {}, rows)),
      h("p", { class: "scale unit" }, `${percent(range[0])} `, h("span", { class: "ramp", "aria-hidden": "true" }), ` ${percent(range[1])} `, h("span", { id: "attention-at", class: "at" })),
    );
    pick(told.pick);
    return range[1];
  }

  function pick(item) {
    for (const row of root.querySelectorAll("tbody tr")) row.classList.toggle("picked", row.dataset.item === item);
  }

  function clear() {
    root.replaceChildren();
    cells = [];
    return 0;
  }

  return { show, select, pick, clear };
}
