// One transaction: where it stands, why, what can be done; live.

import { transaction } from "./api.js";
import { buttons } from "./act.js";
import { announce, h, swap } from "./dom.js";
import { facts, head, why } from "./facts.js";
import { graph } from "./graph.js";
import { eventTable, operatorLog } from "./history.js";
import { lanesView } from "./lanes.js";
import { payloads } from "./payloads.js";
import { wait } from "./poll.js";
import { isOver, stateOf, wordOf } from "./states.js";
import { watch } from "./watch.js";

const links = { live: ["●", "live"], lost: ["○", "reconnecting…"], ended: ["■", "ended"], "": ["○", "connecting…"] };

export async function show({ root, query, signal, title }) {
  const gid = query.get("gid") ?? "";
  title(gid);
  const events = [];
  let tx = await transaction(gid, signal);
  const view = page(() => tx, gid, signal, (newer) => update(newer));
  root.replaceChildren(view.node);

  function update(newer) {
    if (signal.aborted) return;
    const before = tx;
    tx = newer ?? tx;
    if (stateOf(tx) !== stateOf(before)) announce(`${gid} is now ${wordOf(stateOf(tx))}`);
    view.draw(tx, events);
  }
  const refresh = later(async () => update(await transaction(gid, signal)), signal);
  update();
  redraw(signal, () => !isOver(tx) && view.again());
  await watch(gid, {
    signal,
    onEvent: (event) => (events.push(event), refresh()),
    onState: (state) => (view.link(state), state === "live" && refresh()),
  });
}

// later runs ask soon, once for many calls, and again for those that came
// while it ran. A failure is made good by the next event or connection.
function later(ask, signal) {
  let wanted = false, running = false;
  const run = async () => {
    running = true;
    while (wanted && !signal.aborted) {
      await wait(50, signal);
      wanted = false;
      await ask().catch(() => wait(1000, signal).then(() => (wanted = true)));
    }
    running = false;
  };
  return () => ((wanted = true), running || run());
}

async function redraw(signal, draw) {
  while (!signal.aborted) {
    await wait(1000, signal);
    if (!document.hidden) draw();
  }
}

// page builds the parts; draw brings all of them up to date.
function page(now, gid, signal, done) {
  const link = h("span", { class: "link-state" });
  let parts = { head: h("div"), why: h("div"), verbs: h("div"), facts: h("div"), graph: h("div") };
  const lanes = lanesView(now, done);
  const log = operatorLog();
  const table = eventTable();
  const node = h("div", { class: "stack" }, Object.values(parts).slice(0, 4), lanes.node, log.node, parts.graph, payloads(gid, signal), table.node);
  let seen = "";
  const draw = (tx, events) => {
    const look = JSON.stringify(tx);
    if (look !== seen) {
      seen = look;
      const next = { head: head(tx, link), why: why(tx), verbs: verbBar(tx, now, done), facts: facts(tx), graph: definition(tx) };
      for (const k of Object.keys(parts)) swap(parts[k], next[k]);
      parts = next;
    }
    lanes.draw(tx, events);
    log.draw(events);
    table.draw(events);
  };
  const state = (s) => link.replaceChildren(h("span", { "aria-hidden": "true" }, links[s][0]), ` ${links[s][1]}`);
  state("");
  return { node, draw, again: lanes.again, link: state };
}

function verbBar(tx, now, done) {
  const list = buttons(now, null, tx.verbs, done);
  return h("div", { class: "buttons verbs", role: "group", "aria-label": "What can be done", hidden: list.length === 0 }, list);
}

function definition(tx) {
  const branches = tx.branches ?? [];
  if (tx.kind !== "KIND_SAGA" || branches.length < 2) return h("div", { hidden: true });
  return h("section", { class: "panel" }, h("h2", {}, "Definition"), graph(branches));
}
