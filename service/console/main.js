// The page: what is asked of the server, in which order, and which part shows what came of it.

import { ask } from "./api.js";
import * as asking from "./asking.js";
import { start as startAttention } from "./attention.js";
import { start as startBehaviours } from "./behaviours.js";
import { askForKey, showCurl, start as startDialogs } from "./dialogs.js";
import { byId } from "./dom.js";
import { start as startEvolution } from "./evolution.js";
import { start as startLive } from "./live.js";
import { start as startQuestion } from "./question.js";
import { start as startRanking } from "./ranking.js";
import * as telling from "./telling.js";
import { MOST_CANDIDATES, empty, fromFragment, ranked, timed, toFragment } from "./view.js";

const DRAWN = 24;
const LOOKED_AT = 8; // users, for one with much to see
const EXPLAINED = 20; // rows of the heat map
const SLOW_MS = 300;

let view = empty();
let served = { models: [], routes: { weights: {} } };
let answering = null; // name of the model that answered last
let sample = []; // users to offer
let stored = { user: null, events: [], error: null };
let before = null; // the history before a behaviour was recorded here
let rows = [];
let compared = null; // what stands beside the ranking
let explained = null;
let at = -1; // the behaviour looked at
let catalogue = { model: null, names: [], items: new Map() };
let turn = new AbortController();
const requests = {}; // the latest of each kind, to copy

const live = startLive();
const question = startQuestion({ onAsk: asked, onAnother: another, onDraw: draw });
const behaviours = startBehaviours({ onSelect: look, onEdit: edit });
const ranking = startRanking({ onPick: pick, onTry: tryItem });
const attention = startAttention({ onSelect: (column) => look(column + ignored()), onPick: pick });
const evolution = startEvolution({ onSelect: (step) => look(step + ignored()) });

const model = () => {
  const name = view.model || answering || Object.keys(served.routes.weights)[0];
  return served.models.find((one) => one.name === name) ?? served.models[0];
};
const list = () => view.history ?? stored.events;
const ignored = () => Math.max(0, list().length - model().max_history); // behaviours too old to count
const picked = () => view.pick ?? rows[0]?.item;
const says = (id, parts) => byId(id).replaceChildren(...parts);
const keep = () => history.replaceState(null, "", toFragment(view));

// Names and values of an item's side fields; none while they, or the item, are not known.
function fields(item) {
  const known = catalogue.items.get(item);
  return known ? catalogue.names.map((name) => [name, known[name] ?? "–"]) : [];
}

function notice(text) {
  byId("notice").hidden = !text;
  byId("notice").textContent = text;
}

function failed(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) askForKey();
  else notice(telling.failure(error));
}

// What is asked after a change of the view; a new change ends what is under way.
async function refresh() {
  turn.abort();
  turn = new AbortController();
  const { signal } = turn;
  const slow = setTimeout(() => document.body.classList.add("slow"), SLOW_MS);
  byId("main").ariaBusy = "true";
  keep();
  question.write(view, served.models, model());
  notice("");
  try {
    await Promise.all([past(signal), score(signal)]);
    await Promise.all([explain(signal), evolve(signal), learn(signal)]);
  } catch (error) {
    failed(error);
  } finally {
    clearTimeout(slow);
    if (!signal.aborted) {
      byId("main").ariaBusy = "false";
      document.body.classList.remove("slow");
    }
  }
}

async function past(signal) {
  if (stored.user !== view.user || stored.error) await recall(signal);
  showBehaviours();
}

async function recall(signal) {
  before = null;
  at = -1;
  requests.behaviours = asking.behaviours(view.user);
  const next = { user: view.user, events: [], error: null };
  try {
    const { data } = await ask(requests.behaviours, signal);
    next.events = data.events.map((one) => ({ item: one.item_id, action: one.action ?? model().default_action, at: one.timestamp_ms }));
  } catch (error) {
    if (error.status !== 503) throw error;
    next.error = error;
  }
  stored = next;
  if (view.history) view.history = timed(view.history, stored.events);
}

async function score(signal) {
  requests.score = asking.score(view, model());
  const other = asking.beside(view, model(), before);
  const nothing = { data: { scores: [] } };
  const answers = view.items.length ? [ask(requests.score, signal), other && ask(other.request, signal)] : [nothing];
  const [answer, beside] = await Promise.all(answers);
  answering = answer.data.model ?? answering;
  compared = other && beside && other.title;
  rows = ranked(view.items, answer.data.scores, beside?.data.scores);
  if (!view.items.includes(view.pick)) view.pick = null;
  showRanking();
  performance.mark("ranked");
  says("ranking-says", telling.ranking(rows, answer.data, compared));
  says("speed", rows.length ? [telling.speed(answer)] : []);
  notice(telling.degraded(answer.data.degraded));
}

// What cannot be explained, as by a model without attention, is told in the answer's place.
async function told(request, signal, part, id) {
  try {
    return (await ask(request, signal)).data;
  } catch (error) {
    if (error.status !== 422) throw error;
    part.clear();
    says(id, [error.message]);
    return null;
  }
}

async function explain(signal) {
  const shown = [...new Set([...rows.slice(0, EXPLAINED).map((row) => row.item), ...(view.pick ? [view.pick] : [])])];
  if (!shown.length) return attention.clear();
  requests.explain = asking.explain(view, model(), shown);
  explained = await told(requests.explain, signal, attention, "attention-says");
  if (!explained) return;
  if (stored.error && !view.history && explained.history.length) {
    stored.events = explained.history.map((one) => ({ item: one.item_id, action: one.action, at: one.timestamp_ms }));
    showBehaviours();
  }
  showAttention();
}

async function evolve(signal) {
  if (!picked()) return evolution.clear();
  requests.evolution = asking.explain(view, model(), [picked()], { evolution: true });
  const found = await told(requests.evolution, signal, evolution, "evolution-says");
  if (!found) return;
  says("evolution-says", telling.evolution(found, (step) => look(step + ignored())));
  if (!found.history.length) return evolution.clear();
  evolution.show({ history: found.history, one: found.candidates[0], actions: model().actions, at: at - ignored() });
}

// Side fields of the items that are not known yet.
async function learn(signal) {
  const { name } = model();
  if (catalogue.model !== name) catalogue = { model: name, names: [], items: new Map() };
  const wanted = [...new Set([...view.items, ...list().map((one) => one.item)])].filter((item) => !catalogue.items.has(item));
  if (!wanted.length) return;
  const parts = [];
  for (let first = 0; first < wanted.length; first += asking.NAMED) parts.push(wanted.slice(first, first + asking.NAMED));
  for (const { data } of await Promise.all(parts.map((part) => ask(asking.fields(part, name), signal)))) remember(data);
  wanted.forEach((item) => catalogue.items.has(item) || catalogue.items.set(item, null));
  showBehaviours();
  showRanking();
}

function remember(page) {
  if (catalogue.model !== page.model) catalogue = { model: page.model, names: [], items: new Map() };
  catalogue.names = page.fields;
  for (const item of page.items) catalogue.items.set(item.item_id, item);
}

function showBehaviours() {
  const all = list();
  if (!(at in all)) at = all.length - 1;
  const back = () => change({ history: null }).then(() => byId("strip").querySelector(".at")?.focus());
  const text = telling.behaviours(view, stored, all, all.length - ignored(), back);
  behaviours.show({ list: all, actions: model().actions, ignored: ignored(), at, fields, says: text, edited: Boolean(view.history) });
}

function showRanking() {
  ranking.show(rows, { pick: picked(), fields, names: catalogue.names, action: byId("add-action").value, compared });
}

function showAttention() {
  const { candidates, history: used } = explained;
  const most = used.length ? attention.show({ history: used, candidates, actions: model().actions, pick: picked() }) : attention.clear();
  says("attention-says", telling.attention(candidates.length, rows.length, used.length, most));
  attention.select(at - ignored());
}

function look(place) {
  if (place === at || !list()[place]) return;
  at = place;
  behaviours.select(at);
  attention.select(at - ignored());
  evolution.select(at - ignored());
}

// What a person does.

function change(next) {
  view = { ...view, ...next };
  return refresh();
}

function asked(next) {
  change(next.user === view.user || next.history ? next : { ...next, history: null });
}

function another() {
  const others = sample.filter((user) => user !== view.user);
  if (!others.length) return notice("The store tells of no other users; type any id.");
  return change({ user: others[Math.floor(Math.random() * others.length)], history: null });
}

async function drawn(count, seed) {
  const { data } = await ask(asking.draw(Math.max(1, Math.min(count || DRAWN, MOST_CANDIDATES)), seed, model().name));
  remember(data);
  return { items: data.items.map((item) => item.item_id), pick: null };
}

function draw(count) {
  drawn(count, Math.floor(Math.random() * 2 ** 31)).then(change).catch(failed);
}

function edit(next, place) {
  at = place;
  change({ history: next });
}

function tryItem(item) {
  edit([...list(), { item, action: byId("add-action").value || model().default_action, at: null }], list().length);
}

function pick(item) {
  view.pick = item;
  keep();
  showRanking();
  attention.pick(item);
  const away = explained && !explained.candidates.some((one) => one.item_id === item);
  Promise.all([evolve(turn.signal), away && explain(turn.signal)]).catch(failed);
}

async function record(item) {
  const action = byId("add-action").value;
  const event = { user_id: view.user, item_id: item, timestamp_ms: Date.now(), ...(action ? { action } : {}) };
  try {
    await ask(asking.record(event));
    const was = stored.events;
    await recall();
    before = was;
    await change({ history: null });
  } catch (error) {
    failed(error);
  }
}

// What the page can do without, unless a key would bring it.
const optional = (request, instead) => ask(request).catch((error) => (error.status === 401 ? Promise.reject(error) : { data: instead }));

// Of the first few users the one who did most, for somebody who comes without a question.
async function liveliest() {
  const users = sample.slice(0, LOOKED_AT);
  const answers = await Promise.all(users.map((user) => optional(asking.behaviours(user), { events: [] })));
  const counts = answers.map(({ data }) => data.events.length);
  return users[counts.indexOf(Math.max(...counts))] ?? "1";
}

async function begin() {
  try {
    view = fromFragment(location.hash);
    const [{ data }, users] = await Promise.all([ask(asking.models()), optional(asking.users(), { users: [] })]);
    served = data;
    live.restart();
    sample = users.data.users;
    question.users(sample);
    says("about", [telling.about(served.models)]);
    view.user ||= await liveliest();
    if (!view.items.length) Object.assign(view, await drawn(DRAWN, 0));
    await refresh();
  } catch (error) {
    failed(error);
  }
}

function addForm() {
  const form = byId("add");
  const item = () => byId("add-item").value.trim();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    tryItem(item());
  });
  byId("record").addEventListener("click", () => form.reportValidity() && record(item()));
  byId("without").addEventListener("click", () => edit([], -1));
}

addForm();
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("ranking").focus();
});
for (const button of document.querySelectorAll("button.curl")) {
  button.addEventListener("click", () => requests[button.dataset.request] && showCurl(requests[button.dataset.request]));
}
addEventListener("hashchange", begin);
startDialogs(begin);
begin();
