// Small things that every part of the page uses: making elements, words for numbers.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element; a function as attribute is a listener for the event of that name. */
export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** "−0.42"; a dash where there is no number. */
export function decimal(value, digits = 2) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value
    .toFixed(digits)
    .replace(/^-(?=0(\.0*)?$)/, "")
    .replace("-", "−");
}

/** "+1.20" or "−0.42". */
export const signed = (value, digits = 2) => (value > 0 ? "+" : "") + decimal(value, digits);

/** "B07" of row 1, column 6; "AF48" of row 31, column 47. */
export const wellName = (row, column) =>
  (row < 26 ? "" : "A") + String.fromCharCode(65 + (row % 26)) + String(column + 1).padStart(2, "0");

export const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");

/** "3 s", "2 min", "1 h 5 min". */
export function duration(seconds) {
  const s = Math.ceil(seconds);
  if (s < 90) return s + " s";
  const minutes = Math.round(s / 60);
  return minutes < 60 ? minutes + " min" : Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
}

/** Arrow keys, Home and End move the focus inside a table of buttons, of which one takes part in the Tab order.
 *  `focused` had the focus before the table was filled again, and gets it back. */
export function arrows(table, selector, focused = null) {
  const all = () =>
    [...table.querySelectorAll("tbody tr")]
      .map((line) => [...line.querySelectorAll(selector)])
      .filter((line) => line.length);
  const first = focused || table.querySelector(selector);
  table.querySelectorAll(selector).forEach((one) => {
    one.tabIndex = one === first ? 0 : -1;
  });
  if (focused) focused.focus({ preventScroll: true });
  const go = (event) => {
    const here = event.target.closest(selector);
    if (!here) return;
    const lines = all();
    const y = lines.findIndex((line) => line.includes(here));
    const x = lines[y].indexOf(here);
    const to = {
      ArrowLeft: [y, x - 1],
      ArrowRight: [y, x + 1],
      ArrowUp: [y - 1, x],
      ArrowDown: [y + 1, x],
      Home: [y, 0],
      End: [y, lines[y].length - 1],
    }[event.key];
    const next = to && lines[to[0]] && lines[to[0]][Math.min(to[1], lines[to[0]].length - 1)];
    if (!next) return;
    event.preventDefault();
    here.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  table.onkeydown = go; // one listener, however often the table is filled
}
