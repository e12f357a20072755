// How the state of interest evolution moves towards one candidate, step by step.

import { byId, glyph, h, number, percent, points, svg } from "./dom.js";

const HEIGHT = 100;
const LANES = [
  ["attention", "attention", percent, "How much of the candidate's attention each behaviour gets"],
  ["update", "update", number, "The update gate times attention (a·u), mean over hidden units: how far the gate opens"],
  ["moved", "state moved", number, "How far the state moved, as a length"],
];

function bars(values, most) {
  const shape = values.map((value, step) => svg("rect", { x: step + 0.12, width: 0.76, y: HEIGHT * (1 - value / (most || 1)), height: (HEIGHT * value) / (most || 1), "data-step": step }));
  return svg("svg", { viewBox: `0 0 ${values.length} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "lane" }, shape);
}

function curve(probabilities) {
  const [low, high] = [Math.min(...probabilities), Math.max(...probabilities)];
  const y = (value) => 92 - (84 * (value - low)) / (high - low || 1);
  const path = probabilities.map((value, step) => `${step ? "L" : "M"}${step} ${y(value).toFixed(2)}`).join("");
  const steps = probabilities.length - 1;
  return svg("svg", { viewBox: `0 0 ${steps} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "lane curve" },
    svg("path", { d: `M0 ${y(probabilities[0])}H${steps}`, class: "start" }), svg("path", { d: path, class: "way" }), svg("path", { d: "M0 0V100", class: "now" }));
}

export function start({ onSelect }) {
  const root = byId("evolution");
  let told = null;

  function table({ history, one }) {
    const { update, moved, probabilities } = one.evolution;
    const titles = ["step", "item", "action", "attention", "update", "moved", "probability", "change"];
    const rows = history.map((behaviour, step) => h("tr", {}, [step + 1, behaviour.item_id, behaviour.action ?? "–", percent(one.attention[step]), update[step].toFixed(4), moved[step].toFixed(4), percent(probabilities[step + 1], 2), points(probabilities[step + 1] - probabilities[step])].map((text) => h("td", { class: "figure" }, text))));
    const first = h("tr", {}, h("td", { class: "figure" }, 0), h("td", { colspan: 5 }, "before any behaviour"), h("td", { class: "figure" }, percent(probabilities[0], 2)), h("td"));
    return h("details", { class: "numbers" }, h("summary", {}, "All of it as numbers"), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Evolution in numbers" }, h("table", {}, h("thead", {}, h("tr", {}, titles.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, first, rows))));
  }

  function says(step) {
    const { history, one } = told;
    const behaviour = history[step];
    const [from, to] = one.evolution.probabilities.slice(step, step + 2);
    return `${step + 1} of ${history.length}: item ${behaviour.item_id}${behaviour.action ? `, ${behaviour.action}` : ""}, attention ${percent(one.attention[step])}, update ${number(one.evolution.update[step])}, ${percent(from)} → ${percent(to)}`;
  }

  function select(step) {
    if (!told || !(step in told.history)) return;
    const range = byId("evolution-step");
    range.value = step;
    range.setAttribute("aria-valuetext", says(step));
    const { history } = told;
    byId("evolution-at").replaceChildren(glyph(told.actions, history[step].action), ` ${says(step)}`);
    root.querySelectorAll("rect").forEach((bar) => bar.classList.toggle("at", Number(bar.dataset.step) === step));
    root.querySelector(".now").setAttribute("d", `M${step + 1} 0V100`);
  }

  function lane(name, most, title, drawing) {
    return [h("span", { class: "lane-name", title }, name, h("span", { class: "unit" }, most)), drawing];
  }

  // `next`: {history, one: the candidate, actions, at}
  function show(next) {
    const walking = document.activeElement?.id === "evolution-step";
    told = next;
    const { one, history } = told;
    const { probabilities } = one.evolution;
    const parts = LANES.flatMap(([key, name, format, title]) => {
      const values = key === "attention" ? one.attention : one.evolution[key];
      const most = Math.max(...values);
      return lane(name, `to ${format(most)}`, title, bars(values, most));
    });
    const range = h("input", { type: "range", id: "evolution-step", min: 0, max: history.length - 1, "aria-label": "Behaviour", oninput: (event) => onSelect(Number(event.target.value)) });
    root.replaceChildren(
      h("div", { class: "lanes" }, parts, lane("probability", `${(100 * probabilities[0]).toFixed(1)} to ${percent(probabilities.at(-1))}`, "What the model would say if evolution ended there", curve(probabilities)), h("span", { class: "lane-name" }, "step"), range),
      h("p", { id: "evolution-at", class: "unit at" }),
      table(told),
    );
    select(Math.min(Math.max(told.at, 0), history.length - 1));
    if (walking) range.focus();
  }

  function clear() {
    told = null;
    root.replaceChildren();
  }

  return { show, select, clear };
}

// The behaviours that moved the probability most, largest first.
export function largest(history, probabilities, most = 3) {
  return history
    .map((behaviour, step) => ({ step, behaviour, change: probabilities[step + 1] - probabilities[step] }))
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change))
    .slice(0, most);
}
