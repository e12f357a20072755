// Requests, made of what is looked at.

export const NAMED = 200; // items whose fields are asked for at a time

const get = (path) => ({ method: "GET", path });
const post = (path, body) => ({ method: "POST", path, body });

export const models = () => get("/v1/models");
export const users = () => get("/v1/users?limit=50");
export const behaviours = (user) => get(`/v1/users/${encodeURIComponent(user)}/behaviors`);
export const record = (event) => post("/v1/behaviors", { events: [event] });

export const draw = (count, seed, model) => get(`/v1/catalogue?limit=${count}&seed=${seed}&model=${encodeURIComponent(model)}`);
export const fields = (items, model) => get(`/v1/catalogue?limit=${NAMED}&model=${encodeURIComponent(model)}&${items.map((item) => `item_id=${item}`).join("&")}`);

// A history as the API takes it; an action that the model does not have counts as its usual one.
function historyOf(list, model) {
  const body = { history: list.map((one) => one.item) };
  if (model.actions.length) body.history_actions = list.map((one) => (model.actions.includes(one.action) ? one.action : model.default_action));
  return body;
}

function question(view, model, history) {
  const body = { user_id: view.user, item_ids: view.items };
  if (Object.keys(view.context).length) body.context = view.context;
  if (view.model) body.model = view.model;
  return history ? { ...body, ...historyOf(history, model) } : body;
}

export const score = (view, model) => post("/v1/score", question(view, model, view.history));
export const explain = (view, model, items, more = {}) => post("/v1/explain", { ...question(view, model, view.history), item_ids: items, ...more });

// What the ranking is compared with: another model, the history as stored, or the one before a behaviour was recorded.
export function beside(view, model, before) {
  if (view.versus) return { title: view.versus, request: post("/v1/score", { ...question(view, model, view.history), model: view.versus }) };
  if (view.history) return { title: "as stored", request: post("/v1/score", question(view, model, null)) };
  return before && { title: "before", request: post("/v1/score", question(view, model, before)) };
}
