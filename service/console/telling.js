// What the page says in sentences.

import { h, number, percent, plural, points } from "./dom.js";
import { largest } from "./evolution.js";

const DEGRADED = {
  store_stale: "The behaviour store does not answer: these scores come from what this server read for the user a short while ago.",
  store_unavailable: "The behaviour store does not answer: these scores are those of a user without behaviours.",
};

export const degraded = (reason) => (reason ? (DEGRADED[reason] ?? `Degraded: ${reason}.`) : "");
export const failure = (error) => `${error.message}${error.field ? ` (${error.field})` : ""}`;
export const about = (models) => models.map((one) => `${one.name} ${one.version}: ${one.description}, loaded ${one.loaded_at.replace("T", " ").slice(0, 16)} UTC`).join(" · ");

export function behaviours(view, stored, list, counted, onBack) {
  const seen = counted < list.length ? `, of which the model looks at the last ${counted}` : "";
  const count = plural(list.length, "behaviour", "behaviours");
  if (view.history) {
    const back = h("button", { type: "button", id: "back", onclick: onBack }, "Back to what is stored");
    return [h("strong", {}, "What if: "), `${count}${seen}, where ${stored.events.length} are stored. Nothing is written. `, back];
  }
  if (stored.error && !list.length) return [`The history cannot be read: ${stored.error.message}.`];
  if (!list.length) return [`Nothing is stored for user ${view.user}. The model falls back on what it knows of everybody; try a behaviour below.`];
  return [`User ${view.user}: ${count}${seen}, oldest on the left${stored.error ? ", as this server last read them" : ""}.`];
}

function changes(rows) {
  const moved = rows.filter((row) => row.before.rank !== row.rank).length;
  const most = rows.map((row) => row.score - row.before.score).reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
  return ` ${moved || "None"} of ${rows.length} moved to another place; the largest change is ${points(most)} points.`;
}

export function ranking(rows, answer, compared) {
  if (!rows.length) return ["No candidates yet: paste ids of items above, or draw some from the catalogue."];
  const unknown = answer.unknown_items;
  const text = `Of ${plural(rows.length, "candidate", "candidates")}, ${rows[0].item} comes first with ${percent(rows[0].score)}.`;
  return [text, compared ? changes(rows) : "", unknown ? ` ${plural(unknown, "candidate is", "candidates are")} unknown to the model and share one general score.` : ""];
}

export function speed({ data, server, ms }) {
  const { queue, store, compute } = server;
  return `${data.model} ${data.version}: ${number(queue + store + compute)} ms in the server (queue ${number(queue)}, history ${number(store)}, model ${number(compute)}), ${number(ms)} ms with the way there and back.`;
}

export function attention(shown, all, steps, most) {
  if (!steps) return ["Without behaviours there is nothing to look at."];
  const first = shown < all ? `${shown} of the ${all} candidates. ` : "";
  return [`${first}All behaviours alike would have ${percent(1 / steps)} each; the strongest here has ${percent(most)}.`];
}

export function evolution({ history, candidates: [one] }, onLook) {
  const { probabilities } = one.evolution;
  const [from, to] = [probabilities[0], probabilities.at(-1)];
  if (!history.length) return [`${one.item_id}: ${percent(to)}, without any behaviour.`];
  const causes = largest(history, probabilities).map(({ step, behaviour, change }) => [
    h("button", { type: "button", class: "quiet item", onclick: () => onLook(step) }, `${behaviour.item_id} ${behaviour.action ?? ""}`.trim()),
    ` (${points(change)})`,
  ]);
  return ["Candidate ", h("strong", {}, one.item_id), `: ${percent(from)} before the first behaviour, ${percent(to)} after the last. Moved most by `, ...causes.flatMap((cause, place) => (place ? [", ", ...cause] : cause)), "."];
}
