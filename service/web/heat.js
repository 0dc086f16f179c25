// Where in the cell something happens: effects by compartment and family (rows) and channel (columns). Colour is the mean
// effect, the number below it the share of features whose interval leaves out zero; choosing a field lists its features.

import { get } from "./api.js";
import { $, arrows, decimal, make, plural, signed } from "./dom.js";

const CHANCE = 0.05; // share of 95 % intervals that leave out zero where nothing happens
const MOST_FEATURES = 12;
const BOOKKEEPING = ["Number", "Parent", "Children"]; // how the engine numbers objects: the cell count once more
let effects = null,
  effectsAt = "",
  singles = new Set();

/** Shows the heat map; `links.effects` gives the features of a field when one is chosen. */
export async function showHeat(links) {
  $("heat-section").hidden = true;
  const map = await get(links.heatmap);
  effectsAt = links.effects;
  effects = null;
  singles = new Set(map.channels.filter((name) => name !== "none" && !name.includes("+")));
  const largest = Math.max(0.5, ...map.cells.map((one) => Math.abs(one.mean ?? 0)));
  const alone = map.cells.filter((one) => !one.channel.includes("+") && !BOOKKEEPING.includes(one.family));
  const between = map.cells.filter((one) => one.channel.includes("+"));
  const columns = [...singles].map((name) => [name, name]);
  if (map.channels.includes("none")) columns.push(["none", "No channel"]);
  const what = "Effects in " + map.unit + " by compartment, ";
  fill($("heat"), what + "family of features and channel", alone, columns, {
    order: [map.compartments, map.families],
    rowOf: (one) => [one.compartment, one.family],
    columnOf: (one) => one.channel,
    largest,
  });
  fill(
    $("heat-pairs"),
    what + "of features of two channels",
    between,
    [...singles].map((name) => [name, name]),
    {
      order: [map.compartments, [...singles]],
      rowOf: (one) => [one.compartment, one.channel.split("+")[0]],
      columnOf: (one) => one.channel.split("+")[1],
      largest,
    },
  );
  $("pairs").hidden = !between.length;
  $("heat-scale").replaceChildren(
    make("span", {}, "−" + decimal(largest, 1)),
    make("span", { class: "ramp", "aria-hidden": "true" }),
    make("span", {}, "+" + decimal(largest, 1) + " " + map.unit),
  );
  $("heat-detail").replaceChildren();
  $("heat-section").hidden = !alone.length;
}

/** A table of fields: rows in two levels, one column a channel. */
function fill(table, caption, cells, columns, { order, rowOf, columnOf, largest }) {
  const [outer, inner] = order;
  const head = make(
    "tr",
    {},
    make("td", { colspan: 2 }),
    ...columns.map(([, name]) => make("th", { scope: "col" }, name)),
  );
  const body = [];
  for (const group of outer) {
    const members = inner.filter((name) => cells.some((one) => rowOf(one).join() === [group, name].join()));
    members.forEach((name, n) => {
      const here = cells.filter((one) => rowOf(one).join() === [group, name].join());
      const line = make("tr", { class: n ? null : "first" });
      if (!n) line.append(make("th", { scope: "rowgroup", class: "compartment", rowspan: members.length }, group));
      line.append(make("th", { scope: "row" }, words(name)));
      for (const [channel] of columns) {
        line.append(
          make("td", {}, ...here.filter((one) => columnOf(one) === channel).map((one) => field(one, largest))),
        );
      }
      body.push(line);
    });
  }
  table.replaceChildren(
    make("caption", { class: "unseen" }, caption),
    make("thead", {}, head),
    make("tbody", {}, ...body),
  );
  if (cells.length) arrows(table, "button.heat");
}

/** "AreaShape" -> "Area shape". */
const words = (family) => family.replace(/([a-z])([A-Z])/g, (_, a, b) => a + " " + b.toLowerCase());

function field(one, largest) {
  const share = Math.min(1, Math.abs(one.mean ?? 0) / largest);
  const beyond = one.share_beyond === null ? "" : Math.round(100 * one.share_beyond) + " %";
  const size = plural(one.n_features, "feature");
  const place = [one.compartment, words(one.family), one.channel === "none" ? "no channel" : one.channel].join(", ");
  const unseen = (said) => make("span", { class: "unseen" }, said);
  const button = make(
    "button",
    {
      type: "button",
      class: "heat" + (one.share_beyond > 2 * CHANCE ? " moved" : ""),
      title: `${place}: ${size}`,
      click: () => list(one),
    },
    unseen(`${place}: mean effect `),
    signed(one.mean, 1),
    beyond ? unseen(", clear of zero ") : null,
    make("small", {}, beyond),
    unseen(` of ${size}. List them`),
  );
  button.style.setProperty("--share", Math.round(100 * Math.sqrt(share)) + "%");
  button.classList.add((one.mean ?? 0) < 0 ? "down" : "up");
  return button;
}

async function list(one) {
  $("heat-detail").replaceChildren(make("p", { class: "hint" }, "Reading the features …"));
  effects = effects || (await get(effectsAt + "?format=json")).data;
  const exact = [...effects.feature.keys()].filter((i) => {
    const parts = effects.feature[i].split("_");
    const named = [...new Set(parts.slice(1).filter((part) => singles.has(part)))].join("+") || "none"; // as profiling/drivers.py reads names
    return (
      parts[0] === one.compartment &&
      (parts[1] || "other") === one.family &&
      named === one.channel &&
      effects.value[i] !== null
    );
  });
  exact.sort((a, b) => Math.abs(effects.value[b]) - Math.abs(effects.value[a]));
  const lines = exact
    .slice(0, MOST_FEATURES)
    .map((i) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, make("code", {}, effects.feature[i])),
        make("td", {}, signed(effects.value[i])),
        make(
          "td",
          {},
          effects.low[i] === null ? "no interval" : signed(effects.low[i]) + " … " + signed(effects.high[i]),
        ),
      ),
    );
  $("heat-detail").replaceChildren(
    make(
      "h4",
      {},
      [one.compartment, words(one.family), one.channel === "none" ? "no channel" : one.channel].join(" · "),
    ),
    make(
      "p",
      { class: "hint" },
      "The strongest " +
        lines.length +
        " of " +
        one.n_features +
        " features, in control MADs, with 95 % intervals over draws.",
    ),
    make(
      "table",
      { class: "features" },
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          make("th", { scope: "col" }, "Feature"),
          make("th", { scope: "col" }, "Effect"),
          make("th", { scope: "col" }, "Interval"),
        ),
      ),
      make("tbody", {}, ...lines),
    ),
  );
  $("heat-detail").scrollIntoView({ block: "nearest" });
}
