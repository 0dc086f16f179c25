// Drawing a molecule: the published editor of OpenChemLib, loaded when it is first asked for.

import { $ } from "./dom.js";
import { draw, lines } from "./molecule.js";

let editor = null,
  library = null;

async function open() {
  $("editor-says").textContent = "Loading the editor …";
  $("editor").showModal();
  try {
    library = library || (await import("./vendor/openchemlib.js"));
    if (!editor) editor = new library.CanvasEditor($("editor-place"), { readOnly: false });
    const first = lines()[0];
    $("editor-says").textContent = "";
    try {
      const molecule = first ? library.Molecule.fromSmiles(first) : new library.Molecule(0, 0);
      editor.setMolecule(molecule);
    } catch {
      $("editor-says").textContent = "The text is no molecule that can be drawn: the sheet is empty.";
    }
  } catch (error) {
    $("editor-says").textContent = "The editor cannot be loaded: " + error.message;
  }
}

function take() {
  const smiles = editor ? editor.getMolecule().toIsomericSmiles() : "";
  $("editor").close();
  if (!smiles) return;
  const others = $("smiles")
    .value.split("\n")
    .filter((line) => line.trim())
    .slice(1);
  $("smiles").value = [smiles, ...others].join("\n");
  $("smiles").setSelectionRange(0, 0);
  $("smiles").focus();
  draw();
}

export function startEditor() {
  $("open-editor").addEventListener("click", open);
  $("editor-take").addEventListener("click", take);
}
