// The HTTP doors: the same that everyone else uses. The key lives in this tab only and travels in a header, never in an address.

const KEY = "dopaint-key";
let key = sessionStorage.getItem(KEY) || "";
let askForKey = async () => false; // set by the page: shows the dialog, tells whether a key was given

export const hasKey = () => key !== "";
export function setKey(text) {
  key = text.trim();
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}
export function onKeyNeeded(handler) {
  askForKey = handler;
}

/** What the service refused: its problem document (RFC 9457) as an error. */
export class Refusal extends Error {
  constructor(status, problem, retryAfter) {
    super(sentenceOf(problem) || "The service answered " + status + ".");
    this.status = status;
    this.code = problem.code || "http";
    this.errors = problem.errors || [];
    this.retryAfter = retryAfter;
  }
}

function sentenceOf(problem) {
  const said = (problem.errors || []).map((one) => one.message).filter((words) => words);
  return said.length ? said.slice(0, 3).join(" ") : problem.detail || problem.reason || problem.title;
}

function headers(more = {}) {
  return key ? { Authorization: "Bearer " + key, ...more } : more;
}

/** A response, or a `Refusal`. A key that is missing or wrong is asked for. */
export async function door(path, options = {}) {
  let response, used;
  const send = () => {
    used = key;
    return fetch(path, { ...options, headers: headers(options.headers), credentials: "omit" });
  };
  try {
    response = await send();
    while (response.status === 401 && (used !== key || (await askForKey(hasKey())))) response = await send();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service cannot be reached. Is `dopaint serve` still running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refusal(response.status, problem, Number(response.headers.get("Retry-After")) || null);
}

export const get = async (path, options) => (await door(path, options)).json();

export async function post(path, body, more = {}) {
  const response = await door(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...more },
    body: JSON.stringify(body),
  });
  return response.json();
}

export const remove = (path) => door(path, { method: "DELETE" });

/** Events of a job (text/event-stream) read by fetch, so that the key stays in a header; resumes where it broke off. */
export async function* events(path, signal) {
  let last = "";
  for (let broken = 0; broken < 5; broken += 1) {
    try {
      const response = await door(path, { signal, headers: last ? { "Last-Event-ID": last } : {} });
      for await (const event of parsed(response.body)) {
        if (event.id) last = event.id;
        broken = 0;
        yield event;
        if (event.name === "end") return;
      }
    } catch (error) {
      if (error.name === "AbortError" || error instanceof Refusal) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 500 * (broken + 1)));
  }
}

async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r", "");
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const block = text.slice(0, end);
      text = text.slice(end + 2);
      const event = { name: "message", id: "", data: "" };
      for (const line of block.split("\n")) {
        const [field, ...rest] = line.split(":");
        const words = rest.join(":").replace(/^ /, "");
        if (field === "event") event.name = words;
        else if (field === "id") event.id = words;
        else if (field === "data") event.data += words;
      }
      if (event.data) yield { name: event.name, id: event.id, data: JSON.parse(event.data) };
    }
  }
}

/** Starts a download. Where a key is needed, by an address that expires, so that big files need not fit into memory. */
export async function download(path, name) {
  const [, job] = path.match(/^\/v1\/predictions\/([^/]+)\//) || [];
  let place = path;
  if (hasKey() && job)
    place = (await post("/v1/predictions/" + job + "/links", { resource: "files", seconds: 300 })).prefix + path;
  else if (hasKey()) place = URL.createObjectURL(await (await door(path)).blob());
  const link = document.createElement("a");
  link.href = place;
  link.download = name;
  link.click();
  if (place.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(place), 60_000);
}

/** A link that downloads. */
export function downloads(link, path, name) {
  link.href = path;
  link.download = name;
  link.onclick = (event) => {
    event.preventDefault();
    download(path, name).catch((error) => {
      link.title = error.message;
    });
  };
  return link;
}
