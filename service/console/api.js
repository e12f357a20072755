// Requests to this server. Ids of items are text throughout the page, since they may be larger than its numbers.

const KEY = "augur-key";
const ID_LISTS = new Set(["item_ids", "history"]);

export class ApiError extends Error {
  constructor(status, code, message, field) {
    super(message);
    Object.assign(this, { status, code, field });
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

const raw = (id) => (JSON.rawJSON ? JSON.rawJSON(id) : Number(id));
const values = (fields, of) => Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, of(value)]));

export function write(body) {
  return JSON.stringify(body, (name, value) => {
    if (ID_LISTS.has(name) && Array.isArray(value)) return value.map(raw);
    if (name === "context") return values(value, raw);
    return name === "item_id" ? raw(value) : value;
  });
}

export function read(text) {
  return JSON.parse(text, (name, value, context) => {
    if (typeof value !== "number") return value;
    const exact = context?.source ?? String(value);
    return name === "item_id" || (Number.isInteger(value) && !Number.isSafeInteger(value)) ? exact : value;
  });
}

// What Server-Timing says, in milliseconds.
function timing(header) {
  const parts = (header ?? "").split(",").map((part) => part.trim().match(/^(\w+);dur=([\d.]+)/));
  return Object.fromEntries(parts.filter(Boolean).map(([, name, ms]) => [name, Number(ms)]));
}

async function send(request, signal) {
  const headers = key.get() ? { authorization: `Bearer ${key.get()}` } : {};
  if (request.body) headers["content-type"] = "application/json";
  try {
    return await fetch(request.path, { method: request.method, headers, body: request.body && write(request.body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server does not answer. It may be stopping, or the network is away.");
  }
}

export async function ask(request, signal) {
  const begun = performance.now();
  const answer = await send(request, signal);
  const text = await answer.text();
  const ms = performance.now() - begun;
  if (answer.ok) return { data: request.text ? text : read(text), ms, server: timing(answer.headers.get("server-timing")) };
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // A proxy's own page, perhaps: the status has to do.
  }
  throw new ApiError(answer.status, error.code ?? "error", error.message ?? `Status ${answer.status}`, error.field);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// A line for a shell; the key stays out of it.
export function curl(request) {
  const parts = ["curl -s", quoted(location.origin + request.path)];
  if (request.method !== "GET" && request.method !== "POST") parts.push(`-X ${request.method}`);
  if (key.get()) parts.push('-H "authorization: Bearer $AUGUR_KEY"');
  if (request.body) parts.push("-H 'content-type: application/json'", `-d ${quoted(write(request.body))}`);
  return parts.join(" \\\n  ");
}
