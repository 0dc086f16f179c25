// The second way in: the user's own pictures, measured and scored as the painted ones are.

import { door, downloads, get, post } from "./api.js";
import { $, decimal, duration, make, plural } from "./dom.js";
import { labelsTable } from "./labels.js";
import { showCompound, verdict } from "./answer.js";
import { zip } from "./zip.js";

const MOST = 8;
let following = 0,
  current = null; // the job that is measured now

/** One file for the service: a zip or TIFF as it is, or all chosen TIFFs packed below compound/ and control/. */
async function upload() {
  const compound = [...$("own-compound").files],
    control = [...$("own-control").files];
  if (!compound.length) throw new Error("Choose at least one picture of the compound.");
  if (compound.length === 1 && !control.length) {
    const zipped = /\.zip$/i.test(compound[0].name);
    return { body: compound[0], type: zipped ? "application/zip" : "image/tiff" };
  }
  if ([...compound, ...control].some((file) => /\.zip$/i.test(file.name)))
    throw new Error("Choose either one zip file, which holds compound/ and control/, or TIFF files.");
  const files = [];
  for (const [role, chosen] of [
    ["compound", compound],
    ["control", control],
  ]) {
    for (const [i, file] of chosen.entries()) {
      const number = String(i + 1).padStart(4, "0"); // two folders may hold files of the same name
      files.push({ name: role + "/" + number + "-" + file.name, bytes: new Uint8Array(await file.arrayBuffer()) });
    }
  }
  return { body: zip(files), type: "application/zip" };
}

async function submit(event) {
  event.preventDefault();
  const mine = ++following;
  $("own-problem").hidden = true;
  $("own-answer").hidden = true;
  $("own-go").disabled = true;
  try {
    const { body, type } = await upload();
    const query = new URLSearchParams();
    for (const [name, id] of [
      ["channels", "own-channels"],
      ["pixel_size_um", "own-pixel"],
      ["bits", "own-bits"],
      ["smiles", "own-smiles"],
    ]) {
      const value = $(id)
        .value.trim()
        .replace(/\s*,\s*/g, ",");
      if (value) query.set(name, value);
    }
    if ($("own-allow").checked) query.set("allow_simulated", "true");
    say("Sending " + decimal(body.size / 1e6, 1) + " MB");
    let job = await (
      await door("/v1/profiles?" + query, { method: "POST", headers: { "Content-Type": type }, body })
    ).json();
    while (["queued", "running"].includes(job.status)) {
      if (mine !== following) return;
      current = job.id;
      show(job);
      job = await get("/v1/profiles/" + job.id + "?wait=2");
    }
    if (mine !== following) return;
    $("own-running").hidden = true;
    if (job.status !== "done")
      throw new Error(job.problem ? job.problem.detail : "The measurement was " + job.status + ".");
    answer(job);
  } catch (error) {
    $("own-running").hidden = true;
    $("own-problem").textContent = error.message;
    $("own-problem").hidden = false;
  } finally {
    $("own-go").disabled = false;
  }
}

function say(words, share = null) {
  $("own-running").hidden = false;
  $("own-stage").textContent = words;
  if (share === null) $("own-bar").removeAttribute("value");
  else $("own-bar").value = share;
}

function show(job) {
  const left =
    job.seconds_left === null || job.seconds_left === undefined
      ? ""
      : ", about " + duration(job.seconds_left) + " left";
  say(job.status === "queued" ? "Waiting" : (job.progress.stage || "measuring") + left, job.progress.fraction);
}

function answer(job) {
  const found = job.result,
    lost = found.fields.filter((one) => one.outcome !== "ok").length;
  $("own-answer").hidden = false;
  $("own-control-text").textContent =
    found.control === "own"
      ? "Compared with your own control pictures."
      : "Compared with the control of the reference library: plate and laboratory effects are not taken out. Send control pictures of the same plate if you have them.";
  $("own-notes").replaceChildren(...(found.notes || []).map((words) => make("li", {}, words)));
  $("own-quality-says").textContent =
    plural(found.fields.length, "field") +
    " read" +
    (lost ? ", of which " + lost + " not used." : ", all of them used.");
  const line = (one) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, one.name),
      make("td", {}, one.role),
      make("td", {}, one.outcome.replaceAll("_", " ") + (one.reason ? ": " + one.reason : "")),
      make("td", {}, one.cells === null || one.cells === undefined ? "–" : String(one.cells)),
      make("td", {}, (one.flags || []).join(", ") || "none"),
    );
  $("own-fields").replaceChildren(
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        ...["Field", "Role", "Outcome", "Cells", "Quality flags"].map((words) => make("th", { scope: "col" }, words)),
      ),
    ),
    make("tbody", {}, ...found.fields.map(line)),
  );
  for (const kind of ["moa", "target"]) {
    const has = found[kind] && found[kind].ranking.length;
    $("own-" + kind).hidden = !has;
    if (has)
      labelsTable(
        $("own-" + kind),
        found[kind],
        kind === "moa" ? "Mechanism" : "Target",
        MOST,
        showCompound,
        "pictures",
      );
  }
  verdict($("own-call"), found);
  const link = (words, path) => make("li", {}, downloads(make("a", {}, words), path, words));
  $("own-links").replaceChildren(
    link("profile.csv", "/v1/profiles/" + job.id + "/profile?format=csv"),
    link("profile.parquet", "/v1/profiles/" + job.id + "/profile?format=parquet"),
    link("effects.csv", "/v1/profiles/" + job.id + "/effects?format=csv"),
  );
  $("own-title").focus();
}

export function startOwn(complain) {
  $("own").addEventListener("submit", submit);
  $("own-cancel").addEventListener("click", async () => {
    following += 1;
    $("own-running").hidden = true;
    $("own-go").disabled = false;
    try {
      if (current) await post("/v1/profiles/" + current + "/cancel", {});
    } catch (error) {
      complain(error);
    }
    current = null;
  });
  for (const id of ["own-compound", "own-control"]) {
    $(id).addEventListener("change", () => {
      const files = [...$(id).files];
      $(id + "-says").textContent = files.length
        ? plural(files.length, "file") +
          ", " +
          decimal(files.reduce((sum, file) => sum + file.size, 0) / 1e6, 1) +
          " MB"
        : "";
    });
  }
}
