// Parts that several pages are made of.

import { h } from "./dom.js";
import { href } from "./session.js";

// table has a head and rows; on a narrow page each row becomes a card.
export const table = (heads, rows) => h("table", { class: "cards" },
  h("thead", {}, h("tr", {}, heads.filter(Boolean).map((t) => h("th", { scope: "col" }, t)))), h("tbody", {}, rows));

// byTopicAndKey is the form of a filter, which becomes the address of the page.
export function byTopicAndKey(page, name, query, navigate) {
  const field = (id, label) => h("label", {}, label,
    h("input", { name: id, value: query.get(id) ?? "", "data-search": id === "topic", autocomplete: "off", spellcheck: "false" }));
  const submit = (event) => {
    event.preventDefault();
    const values = Object.fromEntries([...new FormData(event.target)].map(([k, v]) => [k, v.trim()]));
    navigate(href(page, { name, ...values }));
  };
  return h("form", { class: "filter messages", role: "search", onsubmit: submit }, field("topic", "Topic"), field("key", "Key"),
    h("button", { type: "submit" }, "Find"), (query.get("topic") || query.get("key")) && h("a", { href: href(page, { name }) }, "Show all"));
}

// selected is the topic and key of an address, those that it has.
export const selected = (query) => Object.fromEntries(["topic", "key"].map((f) => [f, query.get(f)]).filter(([, v]) => v));

export const plural = (n, word) => `${Number(n).toLocaleString()} ${word}${Number(n) === 1 ? "" : "s"}`;

const units = ["B", "KiB", "MiB", "GiB"];

// size writes bytes.
export function size(bytes) {
  let n = Number(bytes), unit = 0;
  while (n >= 1024 && unit < units.length - 1) (n /= 1024), unit++;
  return `${unit ? Number(n.toPrecision(3)) : n} ${units[unit]}`;
}
