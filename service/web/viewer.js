// One draw enlarged: compound, DMSO and their difference side by side, with what was drawn.

import { downloads } from "./api.js";
import { $, make, wellName } from "./dom.js";
import { look, onLook } from "./look.js";
import { composite, difference, load, paint } from "./pixels.js";

let draws = [],
  at = 0,
  name = "",
  ready = new Set();

/** Opens the dialog on a draw; arrow keys go to the others, digits toggle channels. */
export function openViewer(all, draw, compound, made) {
  draws = all;
  name = compound;
  ready = made;
  at = draws.findIndex((one) => one.draw === draw);
  $("viewer").showModal();
  show();
}

async function show() {
  const one = draws[at];
  $("viewer-title").textContent = name + " beside DMSO, draw " + (one.draw + 1) + " of " + draws.length;
  const facts = [
    ["Laboratory", one.source],
    ["Batch", one.batch],
    ["Plate", one.plate + " (" + one.plate_format + " wells)"],
    ["Well", wellName(one.row, one.column)],
    ["Noise seed", one.seed],
    ["Outcome", (one.outcome || "being made").replaceAll("_", " ")],
  ];
  $("viewer-facts").replaceChildren(
    ...facts.flatMap(([words, value]) => [make("dt", {}, words), make("dd", {}, value)]),
  );
  $("viewer-compound").textContent = name;
  for (const row of ["compound", "control"])
    downloads(
      $("viewer-" + row + "-file"),
      one[row] + "&format=ome-tiff",
      row + "-draw-" + (one.draw + 1) + ".ome.tiff",
    );
  const both = ["compound", "control"].every((row) => ready.has(row + " " + one.draw));
  $("viewer-waiting").hidden = both;
  if (!both) return;
  try {
    const [compound, control] = await Promise.all([load(one.compound), load(one.control)]);
    if (draws[at] !== one) return;
    paint($("viewer-canvas-compound"), composite(compound, look));
    paint($("viewer-canvas-control"), composite(control, look));
    paint($("viewer-canvas-difference"), difference(compound, control, look));
  } catch (error) {
    $("viewer-waiting").hidden = false;
    $("viewer-waiting").textContent = error.message;
  }
}

function step(by) {
  at = (at + by + draws.length) % draws.length;
  show();
}

export function startViewer() {
  $("viewer-before").addEventListener("click", () => step(-1));
  $("viewer-after").addEventListener("click", () => step(1));
  $("viewer").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
  });
  onLook(() => {
    if ($("viewer").open) show();
  });
}
