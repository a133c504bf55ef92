// The HTTP/JSON API of the coordinator, and of the relays beside it.

import { namespace, token } from "./session.js";

// Refusal is an error in the server's words.
export class Refusal extends Error {
  constructor(status, body) {
    super(body.message || `the server answered ${status}`);
    Object.assign(this, { status, reason: body.reason ?? "", metadata: body.metadata ?? {} });
  }
}

const enc = encodeURIComponent;

export function headers(more = {}) {
  const out = { ...more };
  if (token()) out.Authorization = `Bearer ${token()}`;
  if (namespace()) out["Amends-Namespace"] = namespace();
  return out;
}

export async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  return new Refusal(response.status, body);
}

async function call(method, path, { body, query, signal, base = "" } = {}) {
  const params = new URLSearchParams(Object.entries(query ?? {}).filter(([, v]) => v));
  const init = { method, signal, headers: headers(body ? { "Content-Type": "application/json" } : {}) };
  if (body) init.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(base + "v1/" + path + (params.size ? "?" + params : ""), init);
  } catch (err) {
    if (err.name === "AbortError") throw err;
    throw new Refusal(0, { message: "the coordinator cannot be reached", reason: "UNREACHABLE" });
  }
  if (!response.ok) throw await refusal(response);
  return response.json();
}

const get = (path, signal, query) => call("GET", path, { signal, query });
const post = (path, body) => call("POST", path, { body });

export const whoAmI = (signal) => get("whoami", signal);
export const overview = (signal) => get("overview", signal);
export const cluster = (signal) => get("cluster", signal);
export const participants = (signal) => get("participants", signal);
export const list = (query, signal) => get("transactions", signal, query);
export const count = (filter, signal) => get("transactions:count", signal, { filter });
export const transaction = (gid, signal, full) =>
  get(`transactions/${enc(gid)}`, signal, full && { view: "TRANSACTION_VIEW_FULL" }).then((r) => r.transaction);
export const bulks = (query, signal) => get("bulks", signal, query);
export const startBulk = (body) => post("bulks", body).then((r) => r.bulk);
export const cancelBulk = (id, reason) => post(`bulks/${enc(id)}:cancel`, { reason });
export const watchPath = (gid) => `v1/transactions/${enc(gid)}:watch`;

// act does a verb of the table in verbs.js to a transaction or one branch.
export function act(verb, gid, branch, body) {
  const onBranch = verb.ofBranch ? `/branches/${enc(branch)}` : "";
  return post(`transactions/${enc(gid)}${onBranch}:${verb.path}`, branch && !verb.ofBranch ? { ...body, branch } : body);
}

// outbox is the API of the relay of that name.
export function outbox(name) {
  const base = `outbox/${enc(name)}/`;
  const ask = (path, signal, query) => call("GET", path, { signal, query, base });
  const act = (path) => (body) => call("POST", path, { body, base }).then((r) => r.act);
  return {
    whoAmI: (signal) => ask("whoami", signal),
    status: (signal) => ask("outbox", signal),
    messages: (query, signal) => ask("outbox/messages", signal, query),
    blocked: (query, signal) => ask("outbox/blockedKeys", signal, query),
    deadLetters: (query, signal) => ask("outbox/deadLetters", signal, query),
    deadLetter: (number, signal) => ask(`outbox/deadLetters/${enc(number)}`, signal).then((r) => r.deadLetter),
    acts: (query, signal) => ask("outbox/acts", signal, query),
    replay: act("outbox/deadLetters:replay"),
    discard: act("outbox/deadLetters:discard"),
    park: act("outbox:parkKey"),
    skip: ({ position, ...body }) => act(`outbox/messages/${enc(position)}:skip`)(body),
  };
}

// requestID makes the key of a request, which may then be sent again. (Of
// crypto, randomUUID is missing where there is neither TLS nor loopback.)
export function requestID() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
}
