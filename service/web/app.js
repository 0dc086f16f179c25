"use strict";
// The page of dopaint: plain JavaScript, no library. It speaks to the same HTTP doors as everyone else.

const $ = (id) => document.getElementById(id);
const POLL_MS = 400;
let shown = null; // the finished prediction on the page
let chosen = 0; // which of its molecules
let pictures = null; // draws of that molecule

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "rect", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail || answer.reason || response.statusText);
  return answer;
}

function complain(error) {
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
}

const lines = () => $("smiles").value.split("\n").map((line) => line.trim()).filter((line) => line);

// ------------------------------------------------------------------------------------------------ the molecule

let drawing = 0;
async function draw() {
  const smiles = lines()[0];
  const mine = ++drawing;
  if (!smiles) { $("drawing").replaceChildren(); $("drawing-says").textContent = ""; $("smiles-says").textContent = ""; return; }
  try {
    const answer = await ask("v1/molecules", { smiles });
    if (mine !== drawing) return;
    const picture = make("img", { alt: "Structure of " + answer.smiles, src: "data:image/svg+xml," + encodeURIComponent(answer.svg) });
    $("drawing").replaceChildren(picture);
    $("drawing-says").textContent = answer.smiles + (answer.standing && answer.standing.name ? " (" + answer.standing.name + ")" : "");
    const changes = answer.changes.length ? "Standardised: " + answer.changes.join("; ") + ". " : "";
    $("smiles-says").textContent = changes + (answer.standing ? answer.standing.sentence : "");
  } catch (error) {
    if (mine !== drawing) return;
    $("drawing").replaceChildren();
    $("drawing-says").textContent = "";
    $("smiles-says").textContent = error.message;
  }
}

// ------------------------------------------------------------------------------------------------ asking and waiting

async function submit(event) {
  event.preventDefault();
  complain(null);
  const body = { smiles: lines(), draws: Number($("draws").value), seed: Number($("seed").value), allow_simulated: $("allow").checked };
  $("go").disabled = true;
  try {
    const job = await ask("v1/predictions", body);
    location.hash = job.id;
    await follow(job.id);
  } catch (error) {
    complain(error);
  } finally {
    $("go").disabled = false;
  }
}

async function follow(id) {
  $("answer").hidden = true;
  $("running").hidden = false;
  try {
    for (;;) {
      const job = await ask("v1/predictions/" + encodeURIComponent(id));
      if (job.status === "failed") throw new Error(job.problem.detail);
      if (job.status === "done") { show(job); return; }
      $("bar").value = job.progress.fraction;
      const left = job.seconds_left === null ? "" : ", about " + Math.ceil(job.seconds_left) + " s left";
      const ahead = job.jobs_ahead ? ", " + job.jobs_ahead + " jobs before this one" : "";
      $("stage").textContent = job.progress.stage + ": " + Math.round(100 * job.progress.fraction) + " %" + left + ahead;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  } finally {
    $("running").hidden = true;
  }
}

// ------------------------------------------------------------------------------------------------ the answer

function show(job) {
  shown = job;
  chosen = Math.max(0, job.molecules.findIndex((one) => one.predictions));
  $("smiles").value = job.request.smiles.join("\n");
  $("draws").value = job.request.draws;
  $("seed").value = job.request.seed;
  $("allow").checked = job.request.allow_simulated;
  draw();
  $("banner").hidden = job.evidence !== "simulation";
  $("answer").hidden = false;
  showMolecule();
}

function label(one) {
  return one.predictions && one.predictions.compound.name ? one.predictions.compound.name : one.smiles || one.input;
}

function showMolecule() {
  const one = shown.molecules[chosen];
  $("tabs").replaceChildren(...shown.molecules.map((other, i) => {
    const button = make("button", { type: "button", "aria-pressed": String(i === chosen) }, label(other).slice(0, 30) + (other.outcome === "ok" ? "" : " (" + other.outcome.replaceAll("_", " ") + ")"));
    button.addEventListener("click", () => { chosen = i; showMolecule(); });
    return button;
  }));
  $("one").hidden = !one.predictions;
  complain(one.predictions ? null : new Error(one.input + ": " + one.sentence));
  if (!one.predictions) return;
  const answer = one.predictions;
  $("name").textContent = label(one);
  const lost = answer.draws.compound_without_cells + answer.draws.compound_failed;
  const changes = one.changes.length ? " Standardised: " + one.changes.join("; ") + "." : "";
  $("facts").textContent = answer.domain.sentence + " " + answer.support.sentence + changes + (lost ? " " + lost + " of " + answer.draws.requested + " draws have no cells." : "") + " Conditions: " + answer.conditions + ".";
  $("call").textContent = answer.withheld || (answer.moa.call ? "Called: " + answer.moa.call + ". " : "") + answer.moa.reason;
  rows("moa", answer.moa, 8);
  rows("target", answer.target, 20);
  $("legend").hidden = $("moa").hidden = !answer.moa.ranking.length;
  const links = [["predictions.json", one.links.predictions], ["predictions.csv", one.links.predictions + "?format=csv"], ["effects.csv", one.links.effects + "?format=csv"], ["effects.parquet", one.links.effects + "?format=parquet"], ["profiles.csv, one row a draw", one.links.profile + "?format=csv"], ["profiles.parquet", one.links.profile + "?format=parquet"]];
  $("links").replaceChildren(...links.map(([words, place]) => make("li", {}, make("a", { href: place }, words))));
  const made = answer.provenance;
  $("provenance").textContent = "Evidence: " + answer.evidence + ". Model " + made.model_name + " " + made.model.slice(0, 12) + ", encoder " + made.encoder.slice(0, 12) + ", engine " + made.engine.slice(0, 12) + ", design " + answer.design_hash.slice(0, 12) + ", seed " + answer.request.seed + ".";
  loadPictures(one);
}

function rows(id, kind, most) {
  const body = $(id).querySelector("tbody");
  body.replaceChildren(...kind.ranking.slice(0, most).map((one) => {
    const p = one.p === null ? "" : one.p < 0.001 ? "< 0.001" : one.p.toFixed(3);
    const structure = one.structure === null ? "" : one.structure.toFixed(2);
    const compounds = one.compounds.map((compound) => compound.name + " (" + compound.similarity.toFixed(2) + ")").join(", ");
    return make("tr", one.label === kind.call ? { class: "called" } : {}, make("th", { scope: "row" }, one.label), make("td", {}, scale(one)), make("td", {}, p), make("td", {}, structure), make("td", {}, compounds));
  }));
}

function scale(one) {
  const at = (value) => 100 + 96 * value; // -1 to 1 on a width of 200
  const line = (name, x1, y1, x2, y2) => make("line", { class: name, x1, y1, x2, y2 });
  const tells = one.low !== null && !(one.low <= -1 && one.high >= 1);
  const words = one.label + ": score " + one.score.toFixed(2) + (tells ? ", interval " + one.low.toFixed(2) + " to " + one.high.toFixed(2) + " over draws" : ", the draws do not tell") + (one.chance === null ? "" : ", chance " + one.chance.toFixed(2));
  const parts = [make("title", {}, words), line("axis", at(0), 0, at(0), 26), make("rect", { class: one.score > (one.chance ?? 0) ? "bar" : "bar below", x: Math.min(at(0), at(one.score)), y: 7, width: Math.abs(at(one.score) - at(0)), height: 12 })];
  if (tells) parts.push(line("whisker", at(one.low), 13, at(one.high), 13), line("whisker", at(one.low), 9, at(one.low), 17), line("whisker", at(one.high), 9, at(one.high), 17));
  if (one.chance !== null) parts.push(line("chance", at(one.chance), 1, at(one.chance), 25));
  return make("svg", { class: "scale", viewBox: "0 0 200 26", preserveAspectRatio: "none", role: "img", "aria-label": words }, ...parts);
}

// ------------------------------------------------------------------------------------------------ the pictures

const well = (row, column) => (row < 26 ? "" : "A") + String.fromCharCode(65 + (row % 26)) + String(column + 1).padStart(2, "0");

async function loadPictures(one) {
  pictures = null;
  try {
    const answer = await ask(one.links.pictures);
    if (shown.molecules[chosen] !== one) return;
    pictures = answer;
    const before = $("channel").value;
    $("channel").replaceChildren(...["composite", ...answer.channels].map((name) => make("option", { value: name }, name)));
    if ([...$("channel").options].some((option) => option.value === before)) $("channel").value = before;
    grid();
  } catch (error) {
    complain(error);
  }
}

function grid() {
  if (!pictures) return;
  const name = label(shown.molecules[chosen]).slice(0, 24);
  const high = Number($("high").value).toFixed(2);
  $("high-value").textContent = high;
  const view = "&channel=" + encodeURIComponent($("channel").value) + "&high=" + high;
  const columns = pictures.draws.slice(0, 32);
  const place = (one) => one.source + " · " + one.batch + " · " + well(one.row, one.column);
  const head = make("tr", {}, make("td"), ...columns.map((one) => make("th", { scope: "col" }, place(one))));
  const line = (words, key) => make("tr", {}, make("th", { scope: "row" }, words), ...columns.map((one) => make("td", {}, make("img", { src: one[key] + view, loading: "lazy", width: 128, height: 128, alt: words + ", " + place(one) + ", draw " + one.draw }))));
  $("grid").replaceChildren(make("thead", {}, head), make("tbody", {}, line(name, "compound"), line("DMSO", "control")));
}

// ------------------------------------------------------------------------------------------------ start

let typing;
$("smiles").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(draw, 250); });
$("ask").addEventListener("submit", submit);
$("channel").addEventListener("change", grid);
$("high").addEventListener("input", () => { $("high-value").textContent = Number($("high").value).toFixed(2); });
$("high").addEventListener("change", grid);
ask("v1/version").then((facts) => { $("banner").hidden = facts.evidence !== "simulation"; }).catch(() => {}); // the banner stays while nobody knows better
if (location.hash.length > 1) follow(location.hash.slice(1)).catch(complain);
else draw();
