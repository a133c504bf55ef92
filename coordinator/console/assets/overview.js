// The first page: is all well, and if not, where to look.

import { cluster, overview, participants } from "./api.js";
import { h, swap } from "./dom.js";
import { figure } from "./figure.js";
import { tiles, troubles as outboxTroubles, watchAll } from "./outboxes.js";
import { poll } from "./poll.js";
import { href } from "./session.js";
import { age, span, until } from "./time.js";

export async function show({ root, signal, title }) {
  title("Overview");
  let body = h("div", {});
  root.replaceChildren(h("h1", { class: "unseen" }, "Overview"), body);
  let seen = "", known = null;
  const outboxes = watchAll(signal, () => draw());
  function draw() {
    const look = JSON.stringify([known, [...outboxes]]);
    if (!known || look === seen || signal.aborted) return;
    seen = look;
    const [o, c, p] = known;
    const next = h("div", { class: "stack" }, verdict(o, c, p.participants, outboxTroubles(outboxes)), figures(o), tiles(outboxes),
      services(p.participants), members(c));
    swap(body, next);
    body = next;
  }
  await poll(async () => {
    known = await Promise.all([overview(signal), cluster(signal), participants(signal)]);
    draw();
  }, signal);
}

const listOf = (params) => href("transactions", params);

// verdict is the answer to the question that brought somebody here.
function verdict(o, c, list, more) {
  const away = list.filter((p) => p.waiting > 0 && p.instances === 0);
  const troubles = [
    Number(o.parked) && h("a", { href: listOf({ state: "PARKED" }) }, `${o.parked} parked: only a person can decide`),
    Number(o.stalled) && h("a", { href: listOf({ stalled: "true" }) }, `${o.stalled} stalled: waiting for longer than ${span(parseFloat(o.stallAfter ?? "0s") * 1000)}`),
    ...away.map((p) => h("a", { href: listOf({ participant: p.service }) }, `${p.service} has no instance, and ${p.waiting} calls wait for it`)),
    c.unownedShards > 0 && `${c.unownedShards} of ${c.shards} shards are owned by nobody just now`, ...more,
  ].filter(Boolean);
  if (troubles.length === 0) {
    return h("section", { class: "verdict good" }, h("span", { class: "sign", "aria-hidden": "true" }, "✓"), h("p", {}, "All is well: nothing is parked, nothing is stalled."));
  }
  return h("section", { class: "verdict bad" }, h("span", { class: "sign", "aria-hidden": "true" }, "!"),
    h("div", {}, h("p", {}, "Somebody should look:"), h("ul", {}, troubles.map((t) => h("li", {}, t)))));
}

function figures(o) {
  const alarm = (n) => (Number(n) > 0 ? "bad" : "");
  const oldest = o.oldestGid ? age(o.oldestCreateTime) : "none";
  return h("section", { class: "figures", "aria-label": "Figures" },
    figure("Oldest unfinished", oldest, o.oldestGid ? href("transaction", { gid: o.oldestGid }) : listOf({ unfinished: "true" }), "", o.oldestGid),
    figure("Stalled", o.stalled, listOf({ stalled: "true" }), alarm(o.stalled)),
    figure("Parked", o.parked, listOf({ state: "PARKED" }), alarm(o.parked)),
    figure("Paused", o.paused, listOf({ paused: "true" })),
    figure("Running", o.running, listOf({ state: "RUNNING" })),
    figure("Committing", o.committing, listOf({ state: "COMMITTING" })),
    figure("Rolling back", o.rollingBack, listOf({ state: "ROLLING_BACK" })),
    figure("Started", rate(o.startedRate), listOf({}), "", "per second, here"),
    figure("Committed", rate(o.committedRate), listOf({ state: "COMMITTED" }), "", "per second, here"),
    figure("Rolled back", rate(o.rolledBackRate), listOf({ state: "ROLLED_BACK" }), "", "per second, here"));
}

const rate = (n) => (n >= 100 ? Math.round(n) : Number(n.toPrecision(2))).toLocaleString();

function services(list) {
  if (list.length === 0) return section("Participants", h("p", { class: "quiet" }, "No service is connected, and no call waits for one."));
  const rows = list.map((p) => h("tr", {},
    h("th", { scope: "row" }, h("a", { href: listOf({ participant: p.service }), "data-row": true }, p.service)),
    h("td", { class: p.instances ? "n" : "n bad" }, p.instances || "none"), h("td", { class: "n" }, p.waiting), h("td", { class: "n" }, p.inFlight),
    h("td", { class: "wide quiet" }, p.actions.join(", "))));
  return section("Participants", table(["Service", "Instances", "Waiting", "In flight", "Actions"], rows));
}

function members(c) {
  const rows = c.members.map((m) => h("tr", {}, h("th", { scope: "row" }, m.name, m.self && h("span", { class: "quiet" }, " (this one)")),
    h("td", { class: "n" }, m.shards), h("td", {}, m.leaseExpireTime ? ["ends ", until(m.leaseExpireTime), " unless renewed"] : "none")));
  return section(`Coordinators · ${c.shards} shards`, table(["Name", "Shards", "Lease"], rows));
}

const section = (title, body) => h("section", { class: "panel" }, h("h2", {}, title), h("div", { class: "scroll" }, body));
const table = (heads, rows) => h("table", {}, h("thead", {}, h("tr", {}, heads.map((t) => h("th", { scope: "col", class: t === "Actions" && "wide" }, t)))), h("tbody", {}, rows));
