// Where in the cell something happens: effects by compartment and family (rows) and channel (columns). Colour is the mean
// effect, the number below it the share of features whose interval leaves out zero; choosing a field lists its features.

import { get } from "./api.js";
import { $, arrows, decimal, make, plural, signed } from "./dom.js";

const CHANCE = 0.05; // share of 95 % intervals that leave out zero where nothing happens
const MOST_FEATURES = 12;
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
  const rows = [];
  for (const compartment of map.compartments) {
    for (const family of map.families) {
      const cells = map.cells.filter((one) => one.compartment === compartment && one.family === family);
      if (cells.length) rows.push({ compartment, family, cells });
    }
  }
  const largest = Math.max(0.5, ...map.cells.map((one) => Math.abs(one.mean ?? 0)));
  const columns = columnsOf(map);
  const head = make(
    "tr",
    {},
    make("td", { colspan: 2 }),
    ...columns.map((one) => make("th", { scope: "col" }, one.words)),
  );
  let before = "";
  const body = rows.map(({ compartment, family, cells }) => {
    const first = compartment !== before;
    before = compartment;
    const line = make("tr", { class: first ? "first" : null });
    if (first)
      line.append(
        make(
          "th",
          {
            scope: "rowgroup",
            class: "compartment",
            rowspan: rows.filter((one) => one.compartment === compartment).length,
          },
          compartment,
        ),
      );
    line.append(make("th", { scope: "row" }, words(family)));
    for (const column of columns)
      line.append(
        make(
          "td",
          {},
          ...cells
            .filter((one) => column.names.includes(one.channel))
            .map((one) => cell(one, largest, column.names.length > 1)),
        ),
      );
    return line;
  });
  $("heat").replaceChildren(
    make("caption", { class: "unseen" }, "Effects in " + map.unit + " by compartment, family of features and channel"),
    make("thead", {}, head),
    make("tbody", {}, ...body),
  );
  arrows($("heat"), "button.heat");
  $("heat-scale").replaceChildren(
    make("span", {}, "−" + decimal(largest, 1)),
    make("span", { class: "ramp", "aria-hidden": "true" }),
    make("span", {}, "+" + decimal(largest, 1) + " " + map.unit),
  );
  $("heat-detail").replaceChildren();
  $("heat-section").hidden = !rows.length;
}

/** Single channels first, then pairs of channels in one column, then what has no channel. */
function columnsOf(map) {
  const single = map.channels.filter((name) => name !== "none" && !name.includes("+"));
  const pairs = map.channels.filter((name) => name.includes("+"));
  const columns = single.map((name) => ({ words: name, names: [name] }));
  if (map.channels.includes("none")) columns.push({ words: "No channel", names: ["none"] });
  if (pairs.length) columns.push({ words: "Two channels", names: pairs });
  return columns;
}

/** "AreaShape" -> "Area shape". */
const words = (family) => family.replace(/([a-z])([A-Z])/g, (_, a, b) => a + " " + b.toLowerCase());

function cell(one, largest, named) {
  const share = Math.min(1, Math.abs(one.mean ?? 0) / largest);
  const beyond = one.share_beyond === null ? "" : Math.round(100 * one.share_beyond) + " %";
  const button = make(
    "button",
    {
      type: "button",
      class: "heat" + (named ? " pair" : "") + (one.share_beyond > 2 * CHANCE ? " moved" : ""),
      "aria-label":
        [one.compartment, words(one.family), one.channel].join(", ") +
        ": mean effect " +
        signed(one.mean) +
        " over " +
        plural(one.n_features, "feature") +
        (beyond ? ", " + beyond + " of them clear of zero" : "") +
        ". List them",
      title: one.channel + ", " + plural(one.n_features, "feature"),
      click: () => list(one),
    },
    named ? make("small", {}, one.channel.replace("+", " + ")) : null,
    signed(one.mean, 1),
    named ? null : make("small", {}, beyond),
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
