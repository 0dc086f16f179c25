// The form: what is asked, read from it and put back into it.

import { $, make } from "./dom.js";
import { draw, lines } from "./molecule.js";

/** The request that the form asks for. */
export function read() {
  const request = {
    smiles: lines(),
    draws: Number($("draws").value),
    seed: Number($("seed").value),
    contexts: chosen(),
    allow_simulated: $("allow").checked,
    abstain: $("abstain").checked,
  };
  const half = Number($("precision").value);
  if (half > 0) request.precision = { half_width: half };
  return request;
}

/** Fills the form with a request. */
export function fill(request) {
  const smiles = Array.isArray(request.smiles) ? request.smiles : [request.smiles];
  $("smiles").value = smiles.join("\n");
  $("draws").value = request.draws ?? 16;
  $("seed").value = request.seed ?? 1;
  $("precision").value = request.precision ? request.precision.half_width : "";
  $("allow").checked = Boolean(request.allow_simulated);
  $("abstain").checked = Boolean(request.abstain);
  wanted = new Set(request.contexts || []);
  mark();
  return draw();
}

let wanted = new Set(); // contexts to be ticked once they are known

const boxes = () => [...$("contexts").querySelectorAll("input")];
const chosen = () =>
  boxes().length
    ? boxes()
        .filter((box) => box.checked)
        .map((box) => box.value)
    : [...wanted];
function mark() {
  for (const box of boxes()) box.checked = wanted.has(box.value);
  told();
}

function told() {
  const names = chosen();
  $("contexts-say").textContent = names.length ? names.length + " chosen" : "all of them";
}

/** Offers the laboratories and batches that the model knows. */
export function offerContexts(answer) {
  const batches = new Map(answer.sources.map((source) => [source, new Set()]));
  for (const plate of answer.plates) batches.get(plate.source).add(plate.batch);
  const box = (value, words) =>
    make(
      "label",
      { class: "box" },
      make("input", {
        type: "checkbox",
        value,
        change: () => {
          wanted = new Set(chosen());
          told();
        },
      }),
      words,
    );
  $("contexts").replaceChildren(
    ...[...batches].map(([source, members]) =>
      make(
        "div",
        { class: "laboratory" },
        make("strong", {}, box(source, "Laboratory " + source)),
        ...[...members].sort().map((batch) => box(batch, batch)),
      ),
    ),
  );
  mark();
}
