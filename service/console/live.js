// The strip of live figures: differences between two readings of /metrics, while somebody looks at the page.

import { ask } from "./api.js";
import { byId, number } from "./dom.js";

const PERIOD_MS = 2000;
const REQUEST = { method: "GET", path: "/metrics", text: true };
const SCORING = /^\/v1\/score|\/infer$/;
const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// Prometheus' text to {name: [{labels, value}]}.
export function parse(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const [, name, labels = "", value] = line.match(LINE) ?? [];
    if (!name) continue;
    const named = Object.fromEntries([...labels.matchAll(LABEL)].map(([, label, of]) => [label, of]));
    (found[name] ??= []).push({ labels: named, value: Number(value) });
  }
  return found;
}

const total = (metrics, name) => (metrics[name] ?? []).reduce((sum, one) => sum + one.value, 0);

// Bounds and counts of a histogram over all routes that score.
function buckets(metrics) {
  const found = new Map();
  for (const { labels, value } of metrics.augur_request_seconds_bucket ?? []) {
    if (SCORING.test(labels.route)) found.set(labels.le, (found.get(labels.le) ?? 0) + value);
  }
  return found;
}

// A quantile of what came between two readings, linear within a bucket; seconds, NaN for nothing.
export function quantile(q, before, after) {
  const grown = [...after].map(([bound, count]) => [Number(bound.replace("+Inf", "Infinity")), count - (before.get(bound) ?? 0)]);
  grown.sort((a, b) => a[0] - b[0]);
  const wanted = q * (grown.at(-1)?.[1] ?? 0);
  if (!wanted) return NaN;
  let [low, below] = [0, 0];
  for (const [bound, count] of grown) {
    if (count >= wanted) return bound === Infinity ? low : low + ((bound - low) * (wanted - below)) / (count - below);
    [low, below] = [bound, count];
  }
  return NaN;
}

export function figures(before, after, seconds) {
  const grown = (name) => total(after, name) - total(before, name);
  return {
    rate: grown("augur_scored_requests_total") / seconds,
    p50: 1000 * quantile(0.5, buckets(before), buckets(after)),
    p99: 1000 * quantile(0.99, buckets(before), buckets(after)),
    batch: grown("augur_candidates_total") / grown("augur_batches_total"),
    queue: total(after, "augur_queue_candidates"),
    degraded: grown("augur_degraded_total") / seconds,
  };
}

// Polls from the first `restart` on. A server that lacks a key, or has no metrics at this address, is not asked again.
export function start() {
  let [last, timer] = [null, null];
  let turn = 0; // a reading under way when the page is turned away from, or begins anew, counts no more

  async function poll() {
    const mine = turn;
    try {
      const now = { at: performance.now(), metrics: parse((await ask(REQUEST)).data) };
      if (mine !== turn) return;
      if (last) show(figures(last.metrics, now.metrics, (now.at - last.at) / 1000));
      timer = setTimeout(poll, last ? PERIOD_MS : PERIOD_MS / 2);
      last = now;
    } catch (error) {
      if (mine !== turn) return;
      byId("live").classList.add("away");
      byId("live").hidden = error.status === 404;
      last = null;
      if (![401, 404].includes(error.status)) timer = setTimeout(poll, 2 * PERIOD_MS);
    }
  }

  function show(found) {
    byId("live").classList.remove("away");
    for (const [name, value] of Object.entries(found)) byId(`live-${name}`).textContent = name === "queue" ? value : number(value);
    byId("live-degraded").classList.toggle("bad", found.degraded > 0);
  }

  function restart() {
    clearTimeout(timer);
    turn += 1;
    last = null;
    if (!document.hidden) poll();
  }

  document.addEventListener("visibilitychange", restart);
  return { restart };
}
