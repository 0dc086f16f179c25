// A job from its acceptance to its end: progress, pictures as they are made, cancelling.

import { Refusal, events, get, post } from "./api.js";
import { $, duration, plural } from "./dom.js";

const POLL_MS = 1000;
let current = null; // {id, controller}

/** Follows a job to its end and returns it. `on.picture(event)` and `on.molecule(entry)` are called on the way. */
export async function follow(job, on) {
  stop();
  const mine = { id: job.id, controller: new AbortController() };
  current = mine;
  $("running").hidden = false;
  show(job);
  try {
    await watch(mine, on);
    for (;;) {
      job = await get("/v1/predictions/" + job.id, { signal: mine.controller.signal });
      if (!["queued", "running"].includes(job.status)) return job;
      show(job);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  } finally {
    if (current === mine) {
      current = null;
      $("running").hidden = true;
    }
  }
}

async function watch(mine, on) {
  try {
    for await (const event of events("/v1/predictions/" + mine.id + "/events", mine.controller.signal)) {
      if (event.name === "progress") show(event.data);
      else if (event.name === "picture") on.picture(event.data);
      else if (event.name === "molecule") on.molecule(event.data);
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Refusal) throw error;
  }
}

/** Leaves the job alone; it goes on at the service. */
export function stop() {
  if (current) current.controller.abort();
  current = null;
  $("running").hidden = true;
}

function show({ status, progress, seconds_left: left, jobs_ahead: ahead }) {
  const share = progress ? progress.fraction : 0;
  $("bar").value = share;
  $("stage").textContent =
    status === "queued"
      ? ahead
        ? "Waiting; " + plural(ahead, "job") + " before this one"
        : "Waiting for the model"
      : sentence(progress);
  $("percent").textContent = Math.round(100 * share) + " %";
  $("left").textContent = left === null || left === undefined ? "" : "about " + duration(left) + " left";
}

const sentence = (progress) => {
  const words = progress && progress.stage ? progress.stage : "starting";
  return words[0].toUpperCase() + words.slice(1);
};

export function startFollow(complain) {
  $("cancel").addEventListener("click", async () => {
    if (!current) return;
    $("cancel").disabled = true;
    try {
      await post("/v1/predictions/" + current.id + "/cancel", {});
    } catch (error) {
      complain(error);
    } finally {
      $("cancel").disabled = false;
    }
  });
}
