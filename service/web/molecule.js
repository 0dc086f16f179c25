// A molecule as it is typed: standardised, drawn, placed in what the model knows, or refused with the place in the text.

import { Refusal, post } from "./api.js";
import { $, make, plural } from "./dom.js";

const MOST_CHECKED = 50; // lines that are checked while one types
const known = new Map(); // text -> promise of the service's answer
let asked = 0;

export const lines = () =>
  $("smiles")
    .value.split("\n")
    .map((line) => line.trim())
    .filter((line) => line);

export function standardised(text) {
  if (!known.has(text)) {
    if (known.size > 500) known.clear();
    const answer = post("/v1/molecules", { smiles: text });
    answer.catch((error) => {
      if (!(error instanceof Refusal) || error.status !== 422) known.delete(text);
    });
    known.set(text, answer);
  }
  return known.get(text);
}

/** An image of a structure; drawn as a picture, so that nothing in it can run. */
export const structure = (answer) =>
  make("img", {
    class: "structure",
    alt: "Structure of " + answer.smiles,
    src: "data:image/svg+xml," + encodeURIComponent(answer.svg),
  });

export const ZONES = {
  in: "inside what the model knows",
  edge: "at the edge of what the model knows",
  out: "outside what the model knows",
};
export const zoneChip = (zone) => make("span", { class: "chip zone-" + zone }, ZONES[zone] || zone);

/** The text of the line under the cursor, its start in the whole text, and its number. */
function currentLine() {
  const text = $("smiles").value,
    caret = $("smiles").selectionStart;
  const all = text.split("\n");
  let start = 0;
  for (let i = 0; i < all.length; i += 1) {
    if (caret <= start + all[i].length && all[i].trim())
      return { text: all[i].trim(), start: start + all[i].length - all[i].trimStart().length, number: i };
    start += all[i].length + 1;
  }
  start = 0;
  for (let i = 0; i < all.length; i += 1) {
    if (all[i].trim())
      return { text: all[i].trim(), start: start + all[i].length - all[i].trimStart().length, number: i };
    start += all[i].length + 1;
  }
  return null;
}

export async function draw() {
  const mine = ++asked;
  const line = currentLine();
  summary();
  if (!line) {
    $("drawing").replaceChildren(make("p", { class: "hint" }, "The molecule is drawn here."));
    $("drawing-says").replaceChildren();
    $("smiles-says").replaceChildren();
    $("smiles").removeAttribute("aria-invalid");
    return;
  }
  try {
    const answer = await standardised(line.text);
    if (mine === asked) accepted(answer);
  } catch (error) {
    if (mine === asked) refused(error, line);
  }
}

function accepted(answer) {
  $("smiles").removeAttribute("aria-invalid");
  $("drawing").replaceChildren(structure(answer));
  const name = answer.standing && answer.standing.name;
  $("drawing-says").replaceChildren(
    ...[
      name ? make("strong", {}, name) : null,
      make("code", {}, answer.smiles),
      answer.standing ? zoneChip(answer.standing.zone) : null,
    ].filter((one) => one),
  );
  const changes = answer.changes.length
    ? make("p", { class: "changes" }, make("strong", {}, "Standardised: "), answer.changes.join("; ") + ".")
    : make("p", { class: "changes" }, make("strong", {}, "Standard form: "), "nothing had to be changed.");
  $("smiles-says").replaceChildren(
    ...[changes, answer.standing ? make("p", {}, answer.standing.sentence) : null].filter((one) => one),
  );
}

function refused(error, line) {
  $("drawing").replaceChildren(make("p", { class: "hint" }, "No molecule to draw."));
  $("drawing-says").replaceChildren();
  const entry = error instanceof Refusal ? error.errors[0] : null;
  const words = make(
    "p",
    { class: "refused" },
    make("strong", {}, "Cannot be used: "),
    entry ? entry.message : error.message,
  );
  $("smiles").setAttribute("aria-invalid", String(Boolean(entry)));
  if (!entry || !entry.position) {
    $("smiles-says").replaceChildren(words);
    return;
  }
  const at = Math.min(entry.position, line.text.length) - 1; // positions count from 1
  const near = make(
    "p",
    { class: "place" },
    make(
      "code",
      {},
      (at > 30 ? "…" : "") + line.text.slice(Math.max(0, at - 30), at),
      make("mark", {}, line.text.slice(at, at + 1)),
      line.text.slice(at + 1, at + 31) + (line.text.length > at + 31 ? "…" : ""),
    ),
  );
  const show = make(
    "button",
    {
      type: "button",
      class: "quiet",
      click: () => {
        $("smiles").focus();
        $("smiles").setSelectionRange(line.start + at, line.start + at + 1);
      },
    },
    "Select character " + entry.position,
  );
  $("smiles-says").replaceChildren(words, near, show);
}

async function summary() {
  const all = lines(),
    mine = asked;
  if (all.length < 2) {
    $("lines-say").textContent = "";
    return;
  }
  const found = await Promise.all(
    all.slice(0, MOST_CHECKED).map((text) =>
      standardised(text).then(
        () => null,
        (error) => error.message,
      ),
    ),
  );
  if (mine !== asked) return;
  const wrong = found.flatMap((reason, i) => (reason ? [i + 1] : []));
  const rest = all.length > MOST_CHECKED ? " The first " + MOST_CHECKED + " were checked." : "";
  $("lines-say").textContent =
    plural(all.length, "molecule") +
    (wrong.length
      ? ", of which number " +
        wrong.slice(0, 8).join(", ") +
        (wrong.length > 8 ? " …" : "") +
        " cannot be used and will be left out."
      : ", all of them usable.") +
    rest;
}

export function startMolecule() {
  let typing;
  const soon = () => {
    clearTimeout(typing);
    typing = setTimeout(draw, 250);
  };
  for (const kind of ["input", "click", "keyup"]) $("smiles").addEventListener(kind, soon);
  for (const button of document.querySelectorAll("[data-example]")) {
    button.addEventListener("click", () => {
      $("smiles").value = button.dataset.example;
      $("smiles").focus();
      draw();
    });
  }
}
