// One dead letter, with its headers and body.

import { outbox } from "./api.js";
import { h } from "./dom.js";
import { awayPanel, isAway, mayAct, nameOf } from "./outboxes.js";
import { onDead } from "./outboxacts.js";
import { size } from "./parts.js";
import { readable } from "./payloads.js";
import { holdsLetters, href } from "./session.js";
import { age, at } from "./time.js";

export async function show({ root, query, signal, navigate, title }) {
  const name = nameOf(query);
  const number = query.get("number") ?? "";
  title(`Dead letter ${number} of ${name}`);
  const api = outbox(name);
  let d, allowed;
  try {
    [d, allowed] = await Promise.all([api.deadLetter(number, signal), mayAct(name, signal)]);
  } catch (err) {
    if (signal.aborted || !isAway(err)) throw err;
    return void root.replaceChildren(h("h1", {}, `Dead letter ${number}`), awayPanel(err, name));
  }
  const done = () => navigate(href("deadletters", { name }));
  const subject = h("span", {}, `#${d.number} `, h("code", {}, d.topic), d.key && [" key ", h("code", {}, d.key)]);
  root.replaceChildren(h("div", { class: "stack" },
    h("h1", {}, "Dead letter ", h("code", {}, `#${d.number}`), " of ", h("a", { href: href("deadletters", { name }) }, h("code", {}, name))),
    h("section", { class: "cause bad", "aria-label": "Why" }, h("p", {}, h("strong", {}, d.parked ? "Parked: " : "Given up: "), d.error || "it waits behind another one of its key"),
      d.parked && h("p", {}, "Its key stands still until the first of its parked messages is replayed or discarded.")),
    allowed && onDead(api, { numbers: [d.number] }, subject, done, holdsLetters(name)), facts(name, d), headers(d), body(d)));
}

function facts(name, d) {
  const rows = [
    ["Topic", h("a", { href: href("deadletters", { name, topic: d.topic }) }, d.topic)],
    ["Key", d.key ? h("a", { href: href("deadletters", { name, key: d.key }) }, d.key) : "none"],
    ["Written", [at(d.createTime), " (", age(d.createTime), " ago)"]], d.failTime && ["Given up", [at(d.failTime), " (", age(d.failTime), " ago)"]],
    ["Attempts", d.attempts || "not known"], ["Id", h("code", {}, d.id)], d.idempotencyKey && ["Idempotency key", h("code", {}, d.idempotencyKey)],
  ].filter(Boolean);
  return h("dl", { class: "facts" }, rows.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v))));
}

function headers(d) {
  const all = Object.entries(d.headers ?? {}).sort();
  if (all.length === 0) return "";
  return h("section", { class: "panel" }, h("h2", {}, "Headers"), h("table", { class: "headers" }, h("tbody", {},
    all.map(([k, v]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, k)), h("td", {}, h("code", {}, v)))))));
}

const body = (d) => h("section", { class: "panel" }, h("h2", {}, "Body ", h("span", { class: "quiet" }, size(d.size))),
  d.body ? h("pre", { tabindex: "0" }, readable(d.body)) : h("p", { class: "quiet" }, d.size === "0" ? "It has none." : "It is not shown to you."));
