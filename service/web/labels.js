// Mechanisms and targets as bars from -1 to 1: score, interval over draws, chance line, p, and the compounds that speak for
// each. Never a bare number.

import { decimal, make, svg } from "./dom.js";

const at = (value) => 100 + 98 * value; // -1 to 1 on a width of 200

/** One bar with its whisker and its chance line. */
export function bar(label, one, over = "draws") {
  const line = (name, x1, y1, x2, y2) => svg("line", { class: name, x1, y1, x2, y2 });
  const parts = [
    svg("title", {}, words(label, one, over)),
    svg("rect", { class: "ground", x: 0, y: 4, width: 200, height: 18 }),
    line("axis", at(0), 1, at(0), 25),
    line("tick", at(-0.5), 4, at(-0.5), 22),
    line("tick", at(0.5), 4, at(0.5), 22),
  ];
  if (one.score !== null)
    parts.push(
      svg("rect", {
        class: one.score > (one.chance ?? 0) ? "bar" : "bar below",
        x: Math.min(at(0), at(one.score)),
        y: 8,
        width: Math.abs(at(one.score) - at(0)),
        height: 10,
      }),
    );
  if (tells(one))
    parts.push(
      line("whisker", at(one.low), 13, at(one.high), 13),
      line("whisker", at(one.low), 8, at(one.low), 18),
      line("whisker", at(one.high), 8, at(one.high), 18),
    );
  if (one.chance !== null && one.chance !== undefined)
    parts.push(line("chance", at(one.chance), 1, at(one.chance), 25));
  return svg(
    "svg",
    {
      class: "scale",
      viewBox: "0 0 200 26",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": words(label, one, over),
    },
    ...parts,
  );
}

export const tells = (one) => one.low !== null && one.low !== undefined && !(one.low <= -1 && one.high >= 1);

function words(label, one, over) {
  const interval = tells(one)
    ? ", 95 % interval over " + over + " " + decimal(one.low) + " to " + decimal(one.high)
    : ", the " + over + " do not tell an interval";
  return (
    label +
    ": score " +
    decimal(one.score) +
    interval +
    (one.chance === null || one.chance === undefined ? "" : ", chance " + decimal(one.chance))
  );
}

const probability = (p) => (p === null || p === undefined ? "–" : p < 0.001 ? "< 0.001" : decimal(p, 3));

function numbers(one) {
  return [
    decimal(one.score),
    make("small", {}, tells(one) ? decimal(one.low) + " … " + decimal(one.high) : "no interval"),
  ];
}

/** Fills a table with the ranking of a kind ("moa" or "target"). */
export function labelsTable(table, kind, what, most, onCompound, over = "draws") {
  const axis = make(
    "span",
    { class: "ruler", "aria-hidden": "true" },
    ...["−1", "0", "1"].map((value) => make("span", {}, value)),
  );
  const head = make(
    "tr",
    {},
    make("th", { scope: "col" }, what),
    make(
      "th",
      { scope: "col", class: "wide" },
      make("span", { class: "unseen" }, "Score (Biosimilarity, −1 to 1)"),
      axis,
    ),
    make("th", { scope: "col" }, "Score"),
    make(
      "th",
      { scope: "col" },
      make("abbr", { title: "share of reference compounds without this label that score at least as high" }, "p"),
    ),
    make(
      "th",
      { scope: "col" },
      make(
        "abbr",
        {
          title:
            "highest Tanimoto similarity of the structure to a reference compound of this label: what structure alone says",
        },
        "Structure",
      ),
    ),
    make("th", { scope: "col" }, "Evidence: closest reference compounds"),
  );
  const rows = kind.ranking.slice(0, most).map((one) =>
    make(
      "tr",
      { "data-label": one.label, class: one.label === kind.call ? "called" : null },
      make(
        "th",
        { scope: "row" },
        one.label,
        one.label === kind.call ? make("span", { class: "chip called" }, "called") : null,
      ),
      make("td", { class: "bars" }, bar(one.label, one, over)),
      make("td", { class: "score" }, ...numbers(one)),
      make("td", { class: "p" }, make("span", { class: "phone" }, "p "), probability(one.p)),
      make("td", { class: "alike" }, make("span", { class: "phone" }, "structure "), decimal(one.structure)),
      make(
        "td",
        { class: "compounds" },
        ...(one.compounds || []).map((compound) =>
          make(
            "button",
            {
              type: "button",
              class: "evidence",
              title: "Pearson correlation of the profiles. Show the structure",
              click: () => onCompound(compound, one.label),
            },
            compound.name,
            " ",
            make("span", {}, decimal(compound.similarity)),
          ),
        ),
      ),
    ),
  );
  table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

/** Moves bars and numbers to the values after fewer draws; `values` maps a label to {score, low, high}. */
export function moveBars(table, values, chance, partial) {
  table.classList.toggle("partial", partial); // p and evidence are known for all draws only
  for (const row of table.querySelectorAll("tr[data-label]")) {
    const label = row.dataset.label;
    const one = values.get(label);
    row.classList.toggle("stale", !one);
    if (!one) continue;
    const full = { ...one, chance: chance.get(label) ?? null };
    row.querySelector(".bars").replaceChildren(bar(label, full));
    row.querySelector(".score").replaceChildren(...numbers(full));
  }
}
