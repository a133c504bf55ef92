// The audit trail: what people did, and every event with its hash.

import { h, keyed } from "./dom.js";
import { at, clockAt } from "./time.js";
import { deeds } from "./trail.js";

const shown = 200; // events, unless all are asked for

// operatorLog shows who did what and why.
export function operatorLog() {
  const list = h("ol", { class: "deeds" });
  const node = h("section", { class: "panel" }, h("h2", {}, "Operator log"), list);
  const draw = (events) => {
    const all = deeds(events).filter((e) => e.type !== "started");
    node.hidden = all.length === 0;
    keyed(list, all, (e) => e.seq, (e) => h("li", {}, at(e.time), " ", h("strong", {}, e.detail.actor || "somebody"), " ",
      h("span", { class: "verb" }, e.type), e.detail.branch && [" ", h("code", {}, e.detail.branch)],
      (e.detail.reason || e.detail.message) && h("q", {}, e.detail.reason || e.detail.message)));
  };
  return { node, draw };
}

// eventTable shows the trail itself; the newest of a long one.
export function eventTable() {
  const rows = h("tbody", {});
  const count = h("span", { class: "quiet" });
  const all = h("button", { type: "button", hidden: true }, "Show all");
  let everything = false, last = [];
  const draw = (events) => {
    last = events;
    const some = everything ? events : events.slice(-shown);
    count.textContent = some.length < events.length ? ` the last ${some.length} of ${events.length}` : ` ${events.length}`;
    all.hidden = some.length === events.length;
    keyed(rows, some, (e) => e.seq, row);
  };
  all.addEventListener("click", () => ((everything = true), draw(last)));
  const node = h("details", { class: "panel" }, h("summary", {}, h("h2", {}, "Events"), count), all,
    h("div", { class: "scroll" }, h("table", { class: "events" },
      h("thead", {}, h("tr", {}, ["#", "Time", "Event", "Detail", "Hash"].map((t) => h("th", { scope: "col" }, t)))), rows)));
  return { node, draw };
}

function row(e) {
  const { state, ...detail } = e.detail ?? {};
  const text = Object.entries(detail).filter(([, v]) => v !== "").sort(byOrder).map(([k, v]) => `${k}=${typeof v === "object" ? JSON.stringify(v) : v}`).join(" ");
  const hash = hex(e.hash);
  return h("tr", {}, h("td", { class: "n" }, e.seq), h("td", {}, clockAt(e.time)), h("td", {}, e.type), h("td", { class: "detail" }, text, state && h("span", { class: "quiet" }, ` → ${state}`)),
    h("td", {}, h("code", { title: hash }, hash.slice(0, 12))));
}

// The fields in the order in which they are read; longer texts come last.
const order = ["branch", "op", "attempt", "outcome"];
const rank = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
const last = (name) => (name === "message" || name === "reason" ? 1 : 0);
const byOrder = ([a], [b]) => last(a) - last(b) || rank(a) - rank(b) || a.localeCompare(b);

const hex = (base64) => [...atob(base64 ?? "")].map((c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join("");
