// Elements of the page, and numbers as words. Text always goes in as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const el = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

/** A section of the page with its heading. */
const section = (id, title, note, ...children) =>
  el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title),
    note ? el("p", { class: "soft" }, note) : null, ...children);

const readout = () => el("output", { class: "readout", "aria-live": "polite" });

const MINUS = "−";
const signed = (text) => text.replace("-", MINUS);

/** 12345 -> "12.3k", for axes. */
function brief(value) {
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= unit) return signed(`${+(value / unit).toPrecision(3)}${letter}`);
  return signed(`${+value.toPrecision(3)}`);
}

const whole = (value) => Math.round(value).toLocaleString("en");
const precise = (value) => signed(`${+value.toPrecision(4)}`);
const interval = ([mu, low, high]) =>
  `${precise(mu)} (95% ${low == null ? "no lower bound" : precise(low)} to ${high == null ? "no upper bound" : precise(high)})`;

/** About `count` round numbers that cover [low, high]. */
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

/** Wilson's 95% interval of a mean score of n matches (Wilson 1927), as `play` reports it. */
function wilson(mean, n) {
  const z = 1.959963984540054, z2 = (z * z) / n;
  const centre = (mean + z2 / 2) / (1 + z2);
  const half = (z / (1 + z2)) * Math.sqrt((mean * (1 - mean)) / n + z2 / (4 * n));
  return [mean === 0 ? 0 : Math.max(centre - half, 0), mean === 1 ? 1 : Math.min(centre + half, 1)];
}

// Drawings follow their width and the colour scheme.
const drawings = new Map(); // host -> draw
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const drawing = drawings.get(target);
    if (drawing.width !== target.clientWidth) {
      drawing.width = target.clientWidth;
      drawing.draw(target.clientWidth);
    }
  }
});

function drawn(host, draw) {
  drawings.set(host, { draw, width: -1 });
  resized.observe(host);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const [host, { draw }] of drawings) draw(host.clientWidth);
});
