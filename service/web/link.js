// A link that reproduces what is on the page: the request in the fragment, which browsers never send. Never the key.

const FIELDS = ["smiles", "draws", "precision", "seed", "contexts", "allow_simulated", "abstain"]; // nothing else gets in or out
const MOST_CHARACTERS = 500_000;

/** The parts of a request that a link carries, keys sorted. */
export function plain(request) {
  const kept = FIELDS.filter((name) => request[name] !== undefined && request[name] !== null).sort();
  return Object.fromEntries(kept.map((name) => [name, request[name]]));
}

function encode(text) {
  const bytes = new TextEncoder().encode(text);
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function decode(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(binary, (one) => one.charCodeAt(0)));
}

export const fragmentOf = (request, job) =>
  "#request=" + encode(JSON.stringify(plain(request))) + (job ? "&job=" + encodeURIComponent(job) : "");

/** {request, job} of a fragment; both null where it has none. Throws for a fragment that is no request. */
export function readFragment(fragment) {
  const found = { request: null, job: null };
  for (const part of fragment.replace(/^#/, "").split("&")) {
    const [name, ...rest] = part.split("=");
    const value = rest.join("=");
    if (name === "job" && /^[\w-]{1,64}$/.test(value)) found.job = value;
    if (name === "request" && value) found.request = checked(value);
  }
  return found;
}

function checked(value) {
  const wrong = new Error(
    "This link does not carry a request that the page can read: ask for it again, or type the molecule.",
  );
  if (value.length > MOST_CHARACTERS) throw wrong;
  let request;
  try {
    request = JSON.parse(decode(value));
  } catch {
    throw wrong;
  }
  if (typeof request !== "object" || request === null || Array.isArray(request)) throw wrong;
  const smiles = typeof request.smiles === "string" ? [request.smiles] : request.smiles;
  if (!Array.isArray(smiles) || !smiles.length || smiles.some((one) => typeof one !== "string")) throw wrong;
  const whole = (one) => one === undefined || (Number.isInteger(one) && one >= 0);
  if (!whole(request.draws) || !whole(request.seed)) throw wrong;
  const contexts = request.contexts ?? [];
  if (!Array.isArray(contexts) || contexts.some((one) => typeof one !== "string")) throw wrong;
  return plain({ ...request, smiles, contexts });
}
