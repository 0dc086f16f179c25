// The page of dopaint: plain modules, no build step. It speaks to the same HTTP doors as everyone else.

import { get, hasKey, onKeyNeeded, post, setKey } from "./api.js";
import { fill, offerContexts, read } from "./ask.js";
import { showJob, shownJob } from "./answer.js";
import { $, plural } from "./dom.js";
import { startEditor } from "./editor.js";
import { follow, startFollow, stop } from "./follow.js";
import { arrived, clearGrid, startGrid } from "./grid.js";
import { startHistory } from "./history.js";
import { fragmentOf, plain, readFragment } from "./link.js";
import { start as startLook } from "./look.js";
import { startMolecule, draw } from "./molecule.js";
import { startOwn } from "./own.js";
import { forget } from "./pixels.js";
import { startSettling } from "./settle.js";
import { startViewer } from "./viewer.js";

let written = ""; // the fragment that the page itself wrote

function complain(error) {
  if (error && error.name === "AbortError") return;
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
  if (error) $("problem").scrollIntoView({ block: "nearest" });
}

function note(request, id) {
  written = fragmentOf(request, id);
  history.replaceState(null, "", written);
}

// ------------------------------------------------------------------------------------------------ asking and following

async function submit(event) {
  event.preventDefault();
  complain(null);
  const request = read();
  if (!request.smiles.length) {
    complain(new Error("Type or draw a molecule first."));
    $("smiles").focus();
    return;
  }
  try {
    await open(await accepted(request), request);
  } catch (error) {
    complain(error);
  }
}

/** The job of a request. The button rests only until the service has taken it: the next may be asked meanwhile. */
async function accepted(request) {
  $("go").disabled = true;
  try {
    const job = await post("/v1/predictions", request, { "Idempotency-Key": await nameOf(request) });
    if (!["failed", "cancelled", "expired"].includes(job.status)) return job;
    sessionStorage.setItem("dopaint-tab", unique()); // asked before in this tab, without an answer: anew
    return await post("/v1/predictions", request, { "Idempotency-Key": await nameOf(request) });
  } finally {
    $("go").disabled = false;
  }
}

const unique = () => [...crypto.getRandomValues(new Uint32Array(4))].map((one) => one.toString(36)).join("");

/** The same request made twice from one tab, or by a nervous double click, is one job; a new tab asks anew. */
async function nameOf(request) {
  const tab = sessionStorage.getItem("dopaint-tab") || unique();
  sessionStorage.setItem("dopaint-tab", tab);
  const bytes = new TextEncoder().encode(JSON.stringify(plain(request)));
  if (!crypto.subtle) return tab + "-" + bytes.length + "-" + unique(); // plain http away from loopback
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return tab + "-" + [...hash.slice(0, 12)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Shows a job, and follows it to its end where it is not there yet. */
async function open(job, request = plain(job.request)) {
  note(request, job.id);
  clearGrid();
  evidence(job.evidence);
  if (!["queued", "running"].includes(job.status)) {
    stop();
    return finished(job);
  }
  $("answer").hidden = true;
  $("running").hidden = false;
  $("running").scrollIntoView({ block: "start", behavior: still() ? "auto" : "smooth" });
  let planned = false;
  const begin = async () => {
    planned = true;
    await showJob(await get("/v1/predictions/" + job.id), complain);
  };
  const end = await follow(job, {
    picture: (event) => {
      arrived(event.molecule, event.row, event.draw);
      if (!planned) begin().catch(complain);
    },
    molecule: () => begin().catch(complain),
  });
  return finished(end);
}

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

async function finished(job) {
  if (job.status === "failed") complain(new Error(job.problem ? job.problem.detail : "The job failed."));
  else if (job.status === "cancelled")
    complain(new Error("This job was cancelled. What was finished before is shown."));
  else if (job.status === "expired") {
    complain(
      new Error(
        "The results of this job have expired. Press Paint to make them again: the same request gives the same numbers.",
      ),
    );
    return;
  }
  evidence(job.evidence);
  await showJob(job, complain);
  const held = document.activeElement; // who has gone on meanwhile keeps the focus
  if (job.status === "done" && [document.body, $("go"), $("cancel")].includes(held))
    $("name").focus({ preventScroll: true });
}

function evidence(words) {
  if (words) $("banner").hidden = words !== "simulation";
}

// ------------------------------------------------------------------------------------------------ the link

async function fromFragment() {
  if (location.hash === written && written) return;
  complain(null);
  let found;
  try {
    found = readFragment(location.hash);
  } catch (error) {
    complain(error);
    return;
  }
  if (found.request) await fill(found.request);
  if (found.job) {
    try {
      const job = await get("/v1/predictions/" + found.job);
      await fill(job.request);
      await open(job);
      return;
    } catch (error) {
      if (!found.request || ![404, 410].includes(error.status)) {
        complain(error);
        return;
      }
    }
  }
  if (found.request) {
    $("link-says").hidden = false;
    $("link-says").textContent =
      "This link asks for " +
      plural(found.request.smiles.length, "molecule") +
      " with " +
      plural(found.request.draws ?? 16, "draw") +
      " and seed " +
      (found.request.seed ?? 1) +
      ". Press Paint to make the pictures.";
    $("go").focus();
  }
}

async function copyLink() {
  const job = shownJob();
  const address = location.origin + location.pathname + fragmentOf(job.request, job.id);
  try {
    await navigator.clipboard.writeText(address);
    $("copied").textContent = "Copied. It holds the request, never your key.";
  } catch {
    $("link-text").hidden = false;
    $("link-text").value = address;
    $("link-text").select();
    $("copied").textContent = "Copy the selected address.";
  }
}

// ------------------------------------------------------------------------------------------------ the key

function keyDialog(wrong) {
  return new Promise((resolve) => {
    $("key-says").textContent = wrong ? "The service does not accept this key." : "";
    $("key-text").value = "";
    $("key").returnValue = "";
    if (!$("key").open) $("key").showModal();
    $("key").addEventListener(
      "close",
      () => {
        const given = $("key").returnValue === "use" && $("key-text").value.trim() !== "";
        if (given) setKey($("key-text").value);
        $("key-text").value = "";
        resolve(given);
      },
      { once: true },
    );
  });
}

// ------------------------------------------------------------------------------------------------ start

function ways() {
  const tabs = [$("tab-molecule"), $("tab-own")];
  const choose = (chosen) =>
    tabs.forEach((tab) => {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      $(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    });
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      choose(tabs[1 - i]);
      tabs[1 - i].focus();
    });
  });
}

/** What answers here; false while its model still loads. */
async function facts() {
  const version = await get("/v1/version");
  evidence(version.evidence);
  $("open-key").hidden = version.auth !== "required";
  if (version.model === null) return false;
  offerContexts(await get("/v1/contexts"));
  $("version").textContent = `dopaint ${version.dopaint} · model ${version.model} · evidence: ${version.evidence}`;
  return true;
}

let keyAsked = null; // one dialog for all requests that wait for it
onKeyNeeded((wrong) => {
  keyAsked =
    keyAsked ||
    keyDialog(wrong).finally(() => {
      keyAsked = null;
    });
  return keyAsked;
});
for (const begin of [ways, startMolecule, startEditor, startGrid, startLook, startViewer, startSettling]) begin();
startFollow(complain);
startOwn(complain);
startHistory(async (id) => {
  const job = await get("/v1/predictions/" + id);
  await fill(job.request);
  await open(job);
});
$("ask").addEventListener("submit", submit);
$("copy-link").addEventListener("click", copyLink);
$("open-key").addEventListener("click", () => keyDialog(false).then((given) => given && forget()));
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
for (const button of document.querySelectorAll("[data-close]"))
  button.addEventListener("click", () => button.closest("dialog").close());
window.addEventListener("hashchange", fromFragment);

/** The model may still be loading when the page is opened: ask again until it answers. */
async function whenReady() {
  for (let pause = 1000; !(await facts()); pause = Math.min(8000, 1.5 * pause)) {
    $("loading").hidden = false;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  $("loading").hidden = true;
}

whenReady()
  .then(() => draw())
  .catch(complain);
if (location.hash.length > 1) fromFragment();
else draw();
document.documentElement.dataset.started = hasKey() ? "with a key" : "yes"; // for those who drive the page from outside
