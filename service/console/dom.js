// Elements and numbers, as the other modules write them.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const h = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);
export const svg = (tag, properties = {}, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

// Writing the same text anew would cost a layout.
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
export function points(share) {
  const size = Math.abs(100 * share).toFixed(1);
  const sign = share < 0 ? "−" : "+";
  return Number(size) ? sign + size : size;
}

export const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;

// Three significant digits, without an exponent.
export function number(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 || size === 0 ? 2 : 3);
}

// Actions are told apart by shape and colour both, by their place in the model's list.
const SHAPES = [
  () => svg("circle", { cx: 8, cy: 8, r: 4.6, class: "hollow" }),
  () => svg("path", { d: "M8 2 14 13.4H2Z" }),
  () => svg("rect", { x: 2.6, y: 2.6, width: 10.8, height: 10.8, rx: 1 }),
  () => svg("path", { d: "M8 1.2 14.8 8 8 14.8 1.2 8Z" }),
  () => svg("path", { d: "M6 1.5h4V6h4.5v4H10v4.5H6V10H1.5V6H6Z" }),
  () => svg("path", { d: "M8 14.5 2 3.2h12Z", class: "hollow" }),
];
const UNKNOWN = () => svg("path", { d: "M3 8h10", class: "hollow" });

// The mark of an action of a model; of a model that knows none, all are alike.
export function glyph(actions, action) {
  const place = actions.length ? actions.indexOf(action) : 0;
  const known = place >= 0;
  const shape = known ? SHAPES[place % SHAPES.length]() : UNKNOWN();
  return svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", class: `glyph action-${known ? place % SHAPES.length : "none"}` }, shape);
}

export function when(ms, parts = { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" }) {
  return new Intl.DateTimeFormat("en-GB", { ...parts, timeZone: "UTC" }).format(ms);
}
