// The list of transactions. Its filter is its address.

import { list } from "./api.js";
import { bulkMenu } from "./bulk.js";
import { h, keyed, say } from "./dom.js";
import { filterOf, only } from "./filter.js";
import { poll } from "./poll.js";
import { href } from "./session.js";
import { causeText, marks, stateNames, wordOf } from "./states.js";
import { age, until } from "./time.js";

const pageSize = 50;

export async function show({ root, query, signal, navigate, title }) {
  title("Transactions");
  const rows = h("tbody", {});
  const foot = h("p", { class: "foot", role: "status" }, "Loading…");
  root.replaceChildren(h("h1", {}, "Transactions"), quick(query), form(query, navigate),
    h("section", { class: "panel list" }, h("table", { class: "cards" }, head(), rows), foot),
    bulkMenu(query, navigate));
  const load = async () => {
    const page = await list({ filter: filterOf(query), pageSize, pageToken: query.get("page") }, signal);
    if (signal.aborted) return;
    keyed(rows, page.transactions, (tx) => tx.gid, row);
    say(foot, footer(page, query));
  };
  try {
    await poll(load, signal);
  } catch (err) {
    if (err.status !== 400) throw err;
    foot.replaceChildren(h("span", { class: "refusal", role: "alert" }, err.message)); // of the filter, which stays to be mended
  }
}

// quick are the filters that are wanted most.
function quick(query) {
  const chips = [["All", {}], ["Unfinished", { unfinished: "true" }], ["Stalled", { stalled: "true" }], ["Paused", { paused: "true" }],
    ...stateNames.map((state) => [wordOf(state), { state }])];
  const here = JSON.stringify(only(query));
  return h("nav", { class: "chips", "aria-label": "Filters" }, chips.map(([label, params]) => {
    const current = JSON.stringify(only(new URLSearchParams(params))) === here;
    return h("a", { href: href("transactions", params), "aria-current": current && "page" }, label);
  }));
}

function form(query, navigate) {
  const text = (name, label, placeholder, search) => h("label", {}, label,
    h("input", { name, value: query.get(name) ?? "", placeholder, "data-search": search, autocomplete: "off", spellcheck: "false" }));
  const flags = ["unfinished", "stalled", "paused", "state"].filter((f) => query.get(f));
  const submit = (event) => {
    event.preventDefault();
    const values = Object.fromEntries([...new FormData(event.target)].map(([k, v]) => [k, v.trim()]));
    const { gid, ...filter } = values;
    navigate(gid ? href("transaction", { gid }) : href("transactions", filter));
  };
  return h("form", { class: "filter", role: "search", onsubmit: submit },
    flags.map((f) => h("input", { type: "hidden", name: f, value: query.get(f) })),
    text("label", "Label", "order_id=A-17", true), text("gid", "Go to gid", "order-17"), text("name", "Name", "transfer"),
    text("participant", "Waits for", "payments"), text("filter", "Filter", 'create_time >= "2026-11-01T00:00:00Z"'),
    h("button", { type: "submit" }, "Find"));
}

const head = () => h("thead", {}, h("tr", {}, ["State", "Transaction", "Why", "Age", "Next try"].map((t) => h("th", { scope: "col" }, t))));

function row(tx) {
  return h("tr", {}, h("td", {}, marks(tx)),
    h("td", { class: "id" }, h("a", { href: href("transaction", { gid: tx.gid }), "data-row": true }, tx.gid), h("span", { class: "quiet" }, tx.name), labels(tx)),
    h("td", { class: "why" }, tx.waitsFor && h("span", {}, "waits for ", h("a", { href: href("transactions", { participant: tx.waitsFor }) }, tx.waitsFor)),
      tx.cause && h("span", {}, causeText(tx.cause))),
    h("td", { class: "n", "data-head": "age" }, age(tx.createTime)),
    h("td", { class: "n", "data-head": tx.nextTime && !tx.finishTime && "next try" }, tx.finishTime ? "" : until(tx.nextTime)));
}

// labels are links to what else has them.
export function labels(tx) {
  const all = Object.entries(tx.labels ?? {}).sort();
  return all.length > 0 && h("span", { class: "labels" }, all.map(([k, v]) => h("a", { href: href("transactions", { label: `${k}=${v}` }) }, `${k}=${v}`)));
}

function footer(page, query) {
  const n = page.transactions.length;
  const more = page.nextPageToken;
  return [n === 0 ? "No transaction matches." : `${n} shown, newest first.`,
    query.get("page") && h("a", { href: href("transactions", only(query)) }, "First page"),
    more && h("a", { href: href("transactions", { ...only(query), page: more }), rel: "next" }, "Next page"),
  ].filter(Boolean).flatMap((x) => [x, " "]);
}
