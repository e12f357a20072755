// What is asked and looked at, and the same as the fragment of an address: a link shows another person the same.

import { read } from "./api.js";

export const MOST_CANDIDATES = 1000;

export function empty() {
  // history: null is the stored one, else [{item, action}] as edited here; versus: a model beside the first one.
  return { user: "", items: [], context: {}, model: "", versus: "", history: null, pick: null };
}

// Ids out of any text, each once, in order.
export function ids(text) {
  return [...new Set(text.match(/-?\d+/g) ?? [])];
}

// What a body of a score request asks, be it alone or within a command or a line of a log; null where there is none.
export function fromRequest(text) {
  let body;
  try {
    body = read(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1));
  } catch {
    return null;
  }
  if (!Array.isArray(body?.item_ids)) return null;
  const whole = (value) => /^-?\d+$/.test(value);
  const past = Array.isArray(body.history) ? body.history.map((item, place) => ({ item: String(item), action: body.history_actions?.[place] ?? null, at: null })) : null;
  const context = Object.entries(body.context ?? {}).filter(([, value]) => whole(value));
  return {
    user: String(body.user_id ?? ""),
    items: [...new Set(body.item_ids.map(String).filter(whole))].slice(0, MOST_CANDIDATES),
    context: Object.fromEntries(context.map(([name, value]) => [name, String(value)])),
    model: String(body.model ?? ""),
    history: past && past.filter((one) => whole(one.item)),
    pick: null,
  };
}

export function toFragment(view) {
  const pairs = new URLSearchParams();
  if (view.user) pairs.set("user", view.user);
  if (view.items.length) pairs.set("items", view.items.join(","));
  for (const [name, value] of Object.entries(view.context)) pairs.set(`context.${name}`, value);
  if (view.model) pairs.set("model", view.model);
  if (view.versus) pairs.set("versus", view.versus);
  if (view.pick) pairs.set("pick", view.pick);
  if (view.history) {
    pairs.set("history", view.history.map((one) => one.item).join(","));
    pairs.set("actions", view.history.map((one) => encodeURIComponent(one.action ?? "")).join(","));
  }
  return `#${pairs.toString().replaceAll("%2C", ",")}`;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // an address that was cut off, or typed
  }
}

export function fromFragment(fragment) {
  const view = empty();
  const pairs = new URLSearchParams(fragment.replace(/^#/, ""));
  for (const name of ["user", "model", "versus"]) view[name] = pairs.get(name) ?? "";
  view.items = ids(pairs.get("items") ?? "").slice(0, MOST_CANDIDATES);
  view.pick = pairs.get("pick");
  for (const [name, value] of pairs) {
    if (name.startsWith("context.") && /^-?\d+$/.test(value)) view.context[name.slice(8)] = value;
  }
  if (pairs.has("history")) {
    const actions = (pairs.get("actions") ?? "").split(",");
    const items = pairs.get("history").match(/-?\d+/g) ?? [];
    view.history = items.map((item, place) => ({ item, action: decoded(actions[place] ?? "") || null }));
  }
  return view;
}

// An edited history out of a link, with the times of the stored behaviours that it kept.
export function timed(history, events) {
  const left = events.slice();
  return history.map((one) => {
    const exact = left.findIndex((event) => event.item === one.item && event.action === one.action);
    const place = exact < 0 ? left.findIndex((event) => event.item === one.item) : exact;
    return { ...one, at: place < 0 ? null : left.splice(place, 1)[0].at };
  });
}

// Best first; equal scores stay in the order asked. `before` is the same for what it is compared with.
export function ranked(items, scores, before) {
  const order = (of) => items.map((_, place) => place).sort((a, b) => of[b] - of[a] || a - b);
  const rows = order(scores).map((place, rank) => ({ place, item: items[place], score: scores[place], rank: rank + 1 }));
  if (before) {
    const ranks = [];
    order(before).forEach((place, rank) => (ranks[place] = rank + 1));
    for (const row of rows) row.before = { score: before[row.place], rank: ranks[row.place] };
  }
  return rows;
}
