// How the answer settles: a slider through the draws moves the estimate and its interval; a chart shows the whole way.

import { $, decimal, make, svg } from "./dom.js";
import { moveBars, tells } from "./labels.js";

const WIDTH = 640,
  HEIGHT = 220,
  LEFT = 34,
  RIGHT = 10,
  TOP = 10,
  BOTTOM = 26;
const LINES = 3; // labels in the chart
let data = null,
  whole = 0,
  tables = {},
  chances = {},
  onDraws = () => {};

/** Shows the settling of an answer: `tables` and `answer` are by kind. */
export function showSettling(settle, answer, tablesByKind, useDraws) {
  data = settle;
  tables = tablesByKind;
  onDraws = useDraws;
  whole = settle.draws.length - 1;
  chances = Object.fromEntries(
    Object.keys(tables).map((kind) => [kind, new Map(answer[kind].ranking.map((one) => [one.label, one.chance]))]),
  );
  $("settling").hidden = settle.draws.length < 2 || !settle.labels.moa.length;
  if ($("settling").hidden) return;
  const slider = $("settle-slider");
  slider.max = whole;
  slider.value = whole;
  chart();
  move(whole);
}

export function hideSettling() {
  data = null;
  $("settling").hidden = true;
}

const atPoint = (one, i) => ({ score: one.score[i], low: one.low[i], high: one.high[i] });

function move(i) {
  const n = data.draws[i];
  for (const kind of Object.keys(tables)) {
    const values = new Map(data.labels[kind].map((one) => [one.label, atPoint(one, i)]));
    moveBars(tables[kind], values, chances[kind], i < whole);
  }
  const best = data.labels.moa[0];
  const now = atPoint(best, i);
  const interval = tells(now)
    ? `95 % interval ${decimal(now.low)} to ${decimal(now.high)}`
    : "the draws do not tell an interval yet";
  const words = `With the first ${n} of ${data.draws[whole]} draws: ${best.label} scores ${decimal(now.score)}, ${interval}.`;
  $("settle-slider").setAttribute("aria-valuetext", words);
  $("settle-says").textContent = words + (i < whole ? " The call, p and the evidence are those of all draws." : "");
  $("settle-n").textContent = n + " of " + data.draws[whole];
  const cursor = $("settle-chart").querySelector(".cursor");
  if (cursor) {
    cursor.setAttribute("x1", x(n));
    cursor.setAttribute("x2", x(n));
  }
  onDraws(n);
}

// Draws on a logarithmic axis: the interval shrinks with their root.
const x = (n) => {
  const first = Math.log(data.draws[0]),
    last = Math.log(data.draws[whole]);
  return LEFT + ((Math.log(n) - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
};
const y = (value) => TOP + ((1 - Math.max(-1, Math.min(1, value))) / 2) * (HEIGHT - TOP - BOTTOM);

function chart() {
  const parts = [];
  for (const value of [-1, -0.5, 0, 0.5, 1]) {
    parts.push(
      svg("line", { class: value === 0 ? "axis" : "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
    );
    parts.push(svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, decimal(value, value % 1 ? 1 : 0)));
  }
  for (const n of ticks()) parts.push(svg("text", { x: x(n), y: HEIGHT - 8, "text-anchor": "middle" }, String(n)));
  data.labels.moa.slice(0, LINES).forEach((one, rank) => {
    const points = data.draws.map((n, i) => ({ n, ...atPoint(one, i) })).filter((point) => point.score !== null);
    const band = points.filter((point) => tells(point));
    if (band.length > 1 && rank === 0)
      parts.push(
        svg("polygon", {
          class: "band line-" + rank,
          points: [
            ...band.map((p) => x(p.n) + "," + y(p.high)),
            ...band.reverse().map((p) => x(p.n) + "," + y(p.low)),
          ].join(" "),
        }),
      );
    parts.push(
      svg("polyline", { class: "way line-" + rank, points: points.map((p) => x(p.n) + "," + y(p.score)).join(" ") }),
    );
  });
  const chance = chances.moa.get(data.labels.moa[0].label);
  if (chance !== null && chance !== undefined)
    parts.push(svg("line", { class: "chance", x1: LEFT, x2: WIDTH - RIGHT, y1: y(chance), y2: y(chance) }));
  parts.push(svg("line", { class: "cursor", x1: 0, x2: 0, y1: TOP, y2: HEIGHT - BOTTOM }));
  const words =
    "Score of the three best mechanisms by number of draws; the band is the 95 % interval of the best one, the dashed line its chance level.";
  $("settle-chart").replaceChildren(
    svg("svg", { viewBox: "0 0 " + WIDTH + " " + HEIGHT, role: "img", "aria-label": words }, ...parts),
  );
  $("settle-legend").replaceChildren(
    ...data.labels.moa
      .slice(0, LINES)
      .map((one, rank) =>
        make(
          "li",
          {},
          svg(
            "svg",
            { class: "sample", viewBox: "0 0 28 8", "aria-hidden": "true" },
            svg("line", { class: "way line-" + rank, x1: 0, y1: 4, x2: 28, y2: 4 }),
          ),
          one.label,
        ),
      ),
    make(
      "li",
      {},
      svg(
        "svg",
        { class: "sample", viewBox: "0 0 28 8", "aria-hidden": "true" },
        svg("line", { class: "chance", x1: 0, y1: 4, x2: 28, y2: 4 }),
      ),
      "chance",
    ),
  );
}

function ticks() {
  const all = data.draws,
    wanted = [];
  for (const n of all) if (!wanted.length || x(n) - x(wanted[wanted.length - 1]) > 34) wanted.push(n);
  const last = all[whole];
  if (wanted[wanted.length - 1] !== last) {
    if (x(last) - x(wanted[wanted.length - 1]) < 34) wanted.pop();
    wanted.push(last);
  }
  return wanted;
}

export function startSettling() {
  $("settle-slider").addEventListener("input", () => data && move(Number($("settle-slider").value)));
}
