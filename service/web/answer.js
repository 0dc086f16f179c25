// The answer about one molecule: what is called and why, how far to trust it, and everything to take away.

import { Refusal, downloads, get } from "./api.js";
import { $, decimal, make, plural } from "./dom.js";
import { clearGrid, showGrid, useDraws } from "./grid.js";
import { showHeat } from "./heat.js";
import { labelsTable } from "./labels.js";
import { standardised, structure, zoneChip } from "./molecule.js";
import { hideSettling, showSettling } from "./settle.js";

const MOST = { moa: 8, target: 8 };
let shown = null; // {job, index, token}
let reference = null; // promise of the reference compounds

export const label = (one) => (one.predictions && one.predictions.compound.name) || one.smiles || one.input;

/** Shows a job: tabs for its molecules, and one of them. */
export function showJob(job, complain, index) {
  const running = job.status === "queued" || job.status === "running";
  const first = Math.max(
    0,
    job.molecules.findIndex((one) => one.predictions || one.outcome === "pending"),
  );
  const before = shown && shown.job.id === job.id ? shown.index : first;
  shown = { job, index: index ?? before, running };
  $("answer").hidden = !job.molecules.length;
  $("tabs").hidden = job.molecules.length < 2;
  $("tabs").replaceChildren(
    ...job.molecules.map((one, i) =>
      make(
        "button",
        {
          type: "button",
          "aria-pressed": String(i === shown.index),
          click: () => {
            showJob(job, complain, i);
          },
        },
        label(one).slice(0, 30),
        make("small", {}, one.outcome.replaceAll("_", " ")),
      ),
    ),
  );
  if (job.molecules.length) return showMolecule(complain);
  return Promise.resolve();
}

export const shownMolecule = () => shown && shown.job.molecules[shown.index];
export const shownJob = () => shown && shown.job;

async function showMolecule(complain) {
  const mine = shown,
    one = shownMolecule();
  if (!one.predictions && ["ok", "out_of_domain"].includes(one.outcome)) {
    try {
      one.predictions = await get(one.links.predictions);
    } catch (error) {
      complain(error);
    }
    if (shown !== mine) return;
  }
  const answer = one.predictions;
  $("name").textContent = label(one);
  $("structure-used").textContent = one.smiles && one.smiles !== label(one) ? one.smiles : "";
  $("results").hidden = !answer;
  $("why-not").hidden = !["invalid", "failed"].includes(one.outcome);
  $("why-not").textContent = one.sentence;
  hideSettling();
  $("pictures-section").hidden = !one.links.pictures;
  try {
    if (one.links.pictures) await showGrid(one.links, one.index, label(one), mine.running);
    else clearGrid();
  } catch (error) {
    if (!(error instanceof Refusal && mine.running && error.status !== 401)) complain(error); // not planned yet: comes with the first picture
    clearGrid();
  }
  if (!answer || shown !== mine) return;
  trust(one, answer);
  for (const kind of ["moa", "target"]) {
    const has = answer[kind].ranking.length > 0;
    $(kind + "-section").hidden = !has && kind === "target";
    $(kind).hidden = !has;
    if (has) labelsTable($(kind), answer[kind], kind === "moa" ? "Mechanism" : "Target", MOST[kind], showCompound);
  }
  verdict($("call"), answer);
  takeAway(one, answer, mine.job);
  try {
    const [settle] = await Promise.all([
      answer.moa.ranking.length ? get(one.links.settling) : null,
      showHeat(one.links),
    ]);
    if (settle && shown === mine) showSettling(settle, answer, { moa: $("moa"), target: $("target") }, useDraws);
  } catch (error) {
    complain(error);
  }
}

/** Fills a box with what is called, or why nothing is. */
export function verdict(box, answer) {
  const called = answer.withheld ? null : answer.moa.call;
  box.className = "call " + (answer.withheld ? "withheld" : called ? "made" : "none");
  const title = answer.withheld ? "No mechanism is called" : called || "No call";
  const why = (answer.withheld || answer.moa.reason).replace(/^(No mechanism is called|no call): /, "");
  box.replaceChildren(
    make("p", { class: "verdict" }, called ? make("span", {}, "Mechanism called") : null, make("strong", {}, title)),
    make("p", {}, why[0].toUpperCase() + why.slice(1) + (/[.)]$/.test(why) ? "" : ".")),
  );
}

function trust(one, answer) {
  const draws = answer.draws,
    lost = draws.compound_without_cells + draws.compound_failed;
  const count = answer.cell_count;
  const cells =
    count && count.effect !== null
      ? "Cell count: " +
        decimal(count.effect, 1) +
        " " +
        count.unit +
        (count.low === null
          ? ""
          : " (95 % interval over draws " + decimal(count.low, 1) + " to " + decimal(count.high, 1) + ")") +
        "."
      : "";
  $("domain").replaceChildren(zoneChip(answer.domain.zone), make("p", { class: "sentence" }, answer.domain.sentence));
  const facts = [
    answer.support.sentence,
    lost
      ? plural(lost, "draw") +
        " of " +
        draws.requested +
        " have no cells or failed quality control; effects are those among the others."
      : "All " + plural(draws.requested, "draw") + " have cells.",
    cells,
    one.changes.length ? "Standardised: " + one.changes.join("; ") + "." : "",
    "Conditions: " + answer.conditions + ".",
  ].filter((words) => words);
  $("facts").replaceChildren(...facts.map((words) => make("li", {}, words)));
  $("interval-says").textContent = "95 % interval (" + answer.interval.sentence + ")";
}

const FILES = [
  ["predictions", "predictions.json", "", "mechanisms and targets with everything behind them"],
  ["predictions", "predictions.csv", "format=csv", "the same as a table"],
  ["effects", "effects.csv", "format=csv", "effect of every feature with its interval"],
  ["effects", "effects.parquet", "format=parquet", "the same for pandas, R and Julia"],
  ["profile", "profiles.csv", "format=csv", "raw profile, one row a draw"],
  ["profile", "profiles.parquet", "format=parquet", "the same for pandas, R and Julia"],
];

function takeAway(one, answer, job) {
  const stem = one.inchikey || "molecule-" + one.index;
  const entry = (words, path, name, what) =>
    make("li", {}, downloads(make("a", {}, words), path, name), make("span", {}, what));
  const files = FILES.map(([link, name, query, what]) =>
    entry(name, one.links[link] + (query ? "?" + query : ""), stem + "-" + name, what),
  );
  if (job.links.zip)
    files.unshift(
      entry(
        "everything.zip",
        job.links.zip,
        "dopaint-" + job.id + ".zip",
        "pictures (OME-TIFF), profiles, effects, predictions, of all molecules",
      ),
    );
  $("links").replaceChildren(...files);
  const used = answer.provenance;
  const facts = [
    ["Evidence", answer.evidence],
    ["Model", used.model_name + " " + used.model.slice(0, 12)],
    ["Encoder", used.encoder.slice(0, 12)],
    ["Engine", used.engine.slice(0, 12)],
    ["Design", answer.design_hash.slice(0, 12)],
    ["Draws", String(answer.request.draws)],
    ["Seed", String(answer.request.seed)],
    ["InChIKey", answer.compound.inchikey],
  ];
  $("provenance").replaceChildren(...facts.flatMap(([words, value]) => [make("dt", {}, words), make("dd", {}, value)]));
}

/** The structure of a compound that is named as evidence. */
export async function showCompound(compound, forLabel) {
  $("compound-title").textContent = compound.name;
  $("compound-body").replaceChildren(make("p", { class: "hint" }, "Looking it up …"));
  $("compound").showModal();
  try {
    reference = reference || get("/v1/reference");
    reference.catch(() => {
      reference = null;
    });
    const known = (await reference).compounds.find((one) => one.inchikey === compound.inchikey);
    const drawn = known ? await standardised(known.smiles) : null;
    const lists = known
      ? [
          ["Mechanism", [].concat(known.moa).join(", ")],
          ["Targets", [].concat(known.target).join(", ").replaceAll("|", ", ")],
        ]
      : [];
    const facts = [
      ...lists,
      ["Evidence for", forLabel],
      ["Correlation of the profiles", decimal(compound.similarity)],
      ["InChIKey", compound.inchikey],
    ];
    $("compound-body").replaceChildren(
      ...[
        drawn ? structure(drawn) : null,
        make(
          "dl",
          { class: "facts" },
          ...facts
            .filter(([, value]) => value)
            .flatMap(([words, value]) => [make("dt", {}, words), make("dd", {}, value)]),
        ),
      ].filter((part) => part),
    );
  } catch (error) {
    $("compound-body").replaceChildren(make("p", { class: "problem" }, error.message));
  }
}
