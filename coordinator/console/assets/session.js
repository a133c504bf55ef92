// Who is asking: the token, the namespace, and what may be done.

const key = "amends.token";

// The token lives as long as the tab, and never stands in an address.
export const token = () => sessionStorage.getItem(key) ?? "";
export const setToken = (t) => (t ? sessionStorage.setItem(key, t) : sessionStorage.removeItem(key));

// The namespace stands in the address, so that a link leads where it was made.
export const namespace = () => new URLSearchParams(location.search).get("ns") ?? "";

let identity = { roles: [], authenticated: true, namespaces: [], subject: "" };
export const who = () => identity;
export const setWho = (w) => (identity = w);

const operators = ["ROLE_OPERATOR", "ROLE_BREAK_GLASS"];

// may tells whether the caller's roles allow a verb. What is offered is a
// courtesy; the coordinator decides again.
export function may(verb) {
  if (verb !== "VERB_ABANDON") return operates(identity);
  return !identity.authenticated || identity.roles.includes("ROLE_BREAK_GLASS");
}

// operates tells whether somebody with this identity may act on messages.
export const operates = (id) => !id.authenticated || id.roles.some((r) => operators.includes(r));

const meta = (name) => document.querySelector(`meta[name=${name}]`).content.split(" ").filter(Boolean);

// outboxNames are those of the relays that this console shows, and of the dead
// letters of consumers, which holdsLetters tells apart.
export const outboxNames = meta("outboxes");
const letters = meta("letters");
export const holdsLetters = (name) => letters.includes(name);

// href is the address of a page, in this namespace.
export function href(page, params = {}) {
  const query = new URLSearchParams();
  for (const [k, v] of Object.entries({ ...params, ns: params.ns ?? namespace() })) {
    if (v !== "" && v !== null && v !== undefined) query.set(k, v);
  }
  return "./" + page + (query.size ? "?" + query : "");
}
