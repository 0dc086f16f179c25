// The do-grid: columns are laboratories, batches and wells; rows are the compound and DMSO under the same noise. Along a
// row the eye sees what the laboratory does, down a column what the compound does.

import { get } from "./api.js";
import { $, arrows, make, plural, wellName } from "./dom.js";
import { limitsFrom, look, onLook, setChannels } from "./look.js";
import { composite, difference, load, paint } from "./pixels.js";
import { openViewer } from "./viewer.js";

const FIRST = 32; // columns shown at once; a button shows the rest
const LONGEST = 256; // pixels a side of a picture in the grid
const FOR_LIMITS = 8; // control pictures from which the contrast is taken

let now = null; // {draws, index, name, ready: Set of "row draw", shown, upto}
const seen = new WeakSet();
let watcher = null;

export const place = (one) => one.source + ", batch " + one.batch + ", well " + wellName(one.row, one.column);

/** Shows the grid of molecule `index`; `running` where its pictures are still being made. */
export async function showGrid(links, index, name, running) {
  const answer = await get(links.pictures);
  setChannels(answer.channels);
  const ready = new Set();
  for (const one of answer.draws) {
    for (const row of ["compound", "control"]) {
      if (one[row + "_ready"] || told.has(key(index, row, one.draw))) ready.add(row + " " + one.draw);
    }
  }
  // a job that stopped early, by its precision or by hand, has fewer draws than were planned
  const draws = running
    ? answer.draws
    : answer.draws.filter((one) => ready.has("compound " + one.draw) || ready.has("control " + one.draw));
  now = { draws, index, name, ready, shown: Math.min(FIRST, draws.length), upto: draws.length };
  if (!sized) resize(Math.floor(($("grid").parentElement.clientWidth - HEAD) / Math.max(1, now.shown)) - 2);
  build();
  takeLimits();
}

const HEAD = 130; // pixels of the names of the rows
let sized = false; // by hand

/** The side of the pictures; until it is set by hand, as large as lets all columns be seen, within reason. */
function resize(side) {
  $("size").value = Math.max(104, Math.min(176, side));
  $("grid").style.setProperty("--side", $("size").value + "px");
}

const told = new Set(); // pictures that events told of, which may come before the grid is there
const key = (index, row, draw) => (row === "control" ? "" : index) + " " + row + " " + draw;

/** A picture was made: show it. */
export function arrived(index, row, draw) {
  told.add(key(index, row, draw));
  if (!now || (row === "compound" && index !== now.index)) return;
  now.ready.add(row + " " + draw);
  for (const cell of $("grid").querySelectorAll(`button[data-draw="${draw}"]`)) drawCell(cell);
  if (row === "control" && [...now.ready].filter((one) => one.startsWith("control")).length <= FOR_LIMITS) takeLimits();
}

/** The first n draws are in use; the others are dimmed. */
export function useDraws(n) {
  if (!now) return;
  now.upto = n;
  for (const cell of $("grid").querySelectorAll("[data-draw]"))
    cell.classList.toggle("unused", Number(cell.dataset.draw) >= n);
}

export function clearGrid() {
  now = null;
  told.clear();
  $("grid").replaceChildren();
}

async function takeLimits(byHand = false) {
  const controls = now.draws.filter((one) => now.ready.has("control " + one.draw)).slice(0, FOR_LIMITS);
  const pictures = await Promise.all(controls.map((one) => load(one.control, LONGEST).catch(() => null)));
  limitsFrom(
    pictures.filter((one) => one),
    byHand,
  );
}

const sorted = (draws) =>
  $("order").value === "draw"
    ? [...draws]
    : [...draws].sort(
        (a, b) =>
          compare(a.source, b.source) ||
          compare(a.batch, b.batch) ||
          a.row - b.row ||
          a.column - b.column ||
          a.draw - b.draw,
      );
const compare = (a, b) => a.localeCompare(b, undefined, { numeric: true });

function build() {
  const held = document.activeElement && document.activeElement.closest("#grid button.cell");
  const focused = held && `button[data-draw="${held.dataset.draw}"][data-row="${held.dataset.row}"]`;
  const columns = sorted(now.draws).slice(0, now.shown);
  const spans = (key) =>
    columns.reduce((runs, one) => {
      const value = key(one),
        last = runs[runs.length - 1];
      if (last && last.value === value) last.n += 1;
      else runs.push({ value, n: 1, words: value.split(" ").pop() });
      return runs;
    }, []);
  const heading = (words, runs, level) =>
    make(
      "tr",
      { class: level },
      make("th", { scope: "row" }, words),
      ...runs.map((run) => make("th", { scope: "colgroup", colspan: run.n }, make("span", {}, run.words))),
    );
  const wells = make(
    "tr",
    { class: "well" },
    make("th", { scope: "row" }, "Well"),
    ...columns.map((one) =>
      make(
        "th",
        { scope: "col", "data-draw": one.draw },
        wellName(one.row, one.column),
        make("span", { class: "draw" }, " draw " + (one.draw + 1)),
      ),
    ),
  );
  const head = make(
    "thead",
    {},
    heading(
      "Laboratory",
      spans((one) => one.source),
      "source",
    ),
    heading(
      "Batch",
      spans((one) => one.source + " " + one.batch),
      "batch",
    ),
    wells,
  );
  const line = (words, what, row) =>
    make(
      "tr",
      { class: row },
      make("th", { scope: "row" }, words, what ? make("small", {}, what) : null),
      ...columns.map((one) => make("td", {}, cell(one, row, words))),
    );
  const lines = [line(now.name, "do(compound)", "compound"), line("DMSO", "same wells, same noise", "control")];
  if (look.difference) lines.push(line("Difference", "compound − DMSO", "difference"));
  $("grid").replaceChildren(
    make(
      "caption",
      { class: "unseen" },
      "Pictures of " +
        now.name +
        " and of DMSO; each column is a laboratory, batch and well with the same noise for both.",
    ),
    head,
    make("tbody", {}, ...lines),
  );
  arrows($("grid"), "button.cell", focused && $("grid").querySelector(focused));
  if (watcher) watcher.disconnect();
  watcher = new IntersectionObserver(
    (entries) =>
      entries.forEach((entry) => {
        if (entry.isIntersecting) {
          seen.add(entry.target);
          drawCell(entry.target);
        } else seen.delete(entry.target);
      }),
    { rootMargin: "200px" },
  );
  $("grid")
    .querySelectorAll("button.cell")
    .forEach((one) => watcher.observe(one));
  useDraws(now.upto);
  const rest = now.draws.length - now.shown;
  $("more-columns").hidden = rest <= 0;
  $("more-columns").textContent = "Show " + plural(rest, "further column");
  $("difference-key").hidden = !look.difference;
}

function cell(one, row, words) {
  const name = row === "difference" ? "Difference" : words;
  return make(
    "button",
    {
      type: "button",
      class: "cell",
      "data-draw": one.draw,
      "data-row": row,
      "aria-label": name + ", " + place(one) + ", draw " + (one.draw + 1) + ". Enlarge",
      click: () => openViewer(now.draws, one.draw, now.name, now.ready),
    },
    make("canvas", { "aria-hidden": "true", width: 2, height: 2 }),
  );
}

async function drawCell(button) {
  const one = now && now.draws.find((other) => other.draw === Number(button.dataset.draw));
  if (!one || !seen.has(button)) return;
  const needed = button.dataset.row === "difference" ? ["compound", "control"] : [button.dataset.row];
  const ready = needed.every((row) => now.ready.has(row + " " + one.draw));
  button.classList.toggle("waiting", !ready);
  if (!ready) return;
  try {
    const [first, second] = await Promise.all(needed.map((row) => load(one[row], LONGEST)));
    paint(button.firstChild, second ? difference(first, second, look) : composite(first, look));
    button.dataset.painted = "yes";
    const outcome =
      button.dataset.row === "compound" && one.outcome && one.outcome !== "ok" ? one.outcome.replaceAll("_", " ") : "";
    button.classList.toggle("flagged", Boolean(outcome));
    button.dataset.flag = outcome;
  } catch (error) {
    button.classList.add("waiting");
    button.title = error.message;
  }
}

export function startGrid() {
  let withDifference = look.difference;
  onLook(() => {
    if (!now) return;
    if (withDifference !== look.difference) {
      withDifference = look.difference;
      build();
    } else $("grid").querySelectorAll("button.cell").forEach(drawCell);
  });
  $("order").addEventListener("change", () => now && build());
  $("more-columns").addEventListener("click", () => {
    now.shown = now.draws.length;
    build();
  });
  $("size").addEventListener("input", () => {
    sized = true;
    $("grid").style.setProperty("--side", $("size").value + "px");
  });
  $("auto").addEventListener("click", () => now && takeLimits(true));
}
