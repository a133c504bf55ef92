// One outbox: how full it is, what does not get through, what waits, who works
// on it, and what was done by hand.

import { outbox } from "./api.js";
import { figure } from "./figure.js";
import { h, say, swap } from "./dom.js";
import { awayPanel, isAway, mayAct, nameOf, names, paced, since } from "./outboxes.js";
import { onWaiting } from "./outboxacts.js";
import { plural, table } from "./parts.js";
import { poll } from "./poll.js";
import { holdsLetters, href, outboxNames } from "./session.js";
import { age, at, until } from "./time.js";
import { waiting } from "./waiting.js";

export async function show({ root, query, signal, navigate, title }) {
  const name = nameOf(query);
  title(name ? `Outbox ${name}` : "Outboxes");
  if (!outboxNames.includes(name)) return void root.replaceChildren(h("h1", {}, "Outboxes"), none(name));
  if (holdsLetters(name)) return void navigate(href("deadletters", { name }));
  const api = outbox(name);
  const foot = h("p", { class: "foot", role: "status" }, "Loading…");
  let body = h("div", {});
  root.replaceChildren(h("h1", {}, "Outbox ", h("code", {}, name)), names("outbox", name), body, foot);
  const allowed = await mayAct(name, signal);
  const soon = () => load().catch(() => {}); // the next poll says what is wrong
  const list = waiting({ api, name, query, navigate, allowed, done: soon });
  list.node.hidden = true;
  foot.before(list.node); // it stays in its place: somebody may be typing into its filter
  let seen = "";
  async function load() {
    let next;
    try {
      const [s, b, a] = await Promise.all([api.status(signal), api.blocked({}, signal), api.acts({ pageSize: 20 }, signal), list.load(signal)]);
      const look = JSON.stringify([s, b, a], still);
      if (look === seen || signal.aborted) return;
      seen = look;
      next = h("div", { class: "stack" }, alone(s), figures(name, s), blockedKeys(api, b, allowed, soon), topics(name, s), partitions(s), acts(a));
      list.node.hidden = false;
    } catch (err) {
      if (signal.aborted || !isAway(err)) throw err;
      seen = "";
      next = awayPanel(err);
      list.node.hidden = true;
    }
    say(foot);
    swap(body, next);
    body = next;
  }
  await poll(paced(load, signal), signal, 3000);
}

// still makes the same of two answers between which only time has passed.
const still = (name, value) => (name === "oldestAge" ? since(value) : name === "leaseLeft" ? held({ leaseLeft: value }) : value);

const held = (p) => parseFloat(p.leaseLeft ?? "0s") > 0;

const none = (name) => h("p", { class: "quiet" }, outboxNames.length === 0
  ? "This coordinator was told of no relay: see amends serve --outbox." : [`There is no outbox ${name} here. There are: `,
    outboxNames.flatMap((n) => [h("a", { href: href("outbox", { name: n }) }, n), " "])]);

// alone says which messages nobody publishes.
function alone(s) {
  const left = s.partitions.filter((p) => Number(p.messages) > 0 && !held(p));
  if (left.length === 0) return "";
  return h("section", { class: "cause bad", "aria-label": "Why" }, left.map((p) => h("p", {}, h("strong", {}, `Partition ${p.partition}: `),
    `${Number(p.messages).toLocaleString()} wait, and no relay has it now.`, p.owner && ` The last one was ${p.owner}.`)));
}

function figures(name, s) {
  const alarm = (n) => (Number(n) > 0 ? "bad" : "");
  return h("section", { class: "figures", "aria-label": "Figures" },
    figure("Waiting", s.messages, "", "", Number(s.delayedMessages) > 0 && `${s.delayedMessages} for their time to come`), figure("Oldest", s.oldestAge ? age(since(s.oldestAge)) : "none"),
    figure("Dead letters", s.deadLetters, href("deadletters", { name }), alarm(s.deadLetters),
      Number(s.parkedMessages) > 0 && `${s.parkedMessages} with their key parked`),
    figure("Blocked keys", s.blockedKeys, "", alarm(s.blockedKeys)));
}

function blockedKeys(api, b, allowed, done) {
  if (b.blockedKeys.length === 0) return "";
  const rows = b.blockedKeys.map((k) => h("tr", {},
    h("td", { class: "id" }, k.key ? h("code", {}, k.key) : h("span", { class: "quiet" }, "no key"), h("span", { class: "quiet" }, k.topic)),
    h("td", { class: "why" }, h("span", {}, h("strong", {}, k.poison ? "Never gets through: " : "Tried again: "), h("span", { class: "error" }, k.error)),
      h("span", { class: "quiet" }, plural(k.attempts, "attempt"), k.poison ? ", blocked for " : " in ", age(k.blockTime),
        k.retryTime ? [", next ", until(k.retryTime)] : ", parked until somebody acts")),
    h("td", { class: "n", "data-head": "waiting" }, Number(k.messages).toLocaleString()),
    allowed && h("td", {}, onWaiting(api, k, done))));
  return h("section", { class: "panel list blocked" }, h("h2", {}, "Keys that do not get through"),
    table(["Key", "Why", "Waiting", allowed && "Act on the first message"], rows),
    b.nextPageToken && h("p", { class: "foot" }, "There are more: those above first."));
}

function topics(name, s) {
  if (s.topics.length === 0) return "";
  return h("section", { class: "panel" }, h("h2", {}, "Waiting, by topic"), table(["Topic", "Waiting", "Oldest"], s.topics.map((t) => h("tr", {},
    h("th", { scope: "row" }, h("a", { href: href("outbox", { name, topic: t.topic }) }, t.topic)),
    h("td", { class: "n", "data-head": "waiting" }, Number(t.messages).toLocaleString()), h("td", { class: "n", "data-head": "oldest" }, age(since(t.oldestAge)))))));
}

function partitions(s) {
  const rows = s.partitions.map((p) => {
    const idle = held(p) ? "" : Number(p.messages) > 0 ? "bad" : "quiet";
    return h("tr", {}, h("th", { scope: "row", "data-head": "partition" }, p.partition), h("td", { class: "n", "data-head": "waiting" }, Number(p.messages).toLocaleString()),
      h("td", { class: "n", "data-head": p.oldestAge && "oldest" }, p.oldestAge && age(since(p.oldestAge))),
      h("td", { "data-head": "relay" }, p.owner || h("span", { class: "quiet" }, "never had one")),
      h("td", { class: idle, "data-head": "lease" }, held(p) ? "held" : "nobody has it now"));
  });
  return h("section", { class: "panel" }, h("h2", {}, "Partitions"), table(["Partition", "Waiting", "Oldest", "Relay", "Lease"], rows));
}

const verbs = { OUTBOX_VERB_REPLAY: "replayed", OUTBOX_VERB_DISCARD: "discarded", OUTBOX_VERB_SKIP: "skipped", OUTBOX_VERB_PARK: "parked" };

function acts(a) {
  if (a.acts.length === 0) return "";
  return h("section", { class: "panel" }, h("h2", {}, "Done by hand"), h("ol", { class: "deeds" }, a.acts.map((x) => h("li", {}, at(x.actTime), " ",
    h("strong", {}, x.actor || "somebody"), " ", h("span", { class: "verb" }, verbs[x.verb] ?? x.verb), " ", Number(x.messages).toLocaleString(), " of ", h("code", {}, x.target),
    h("q", {}, x.reason)))), a.nextPageToken && h("p", { class: "foot" }, "The last 20; older ones: amends outbox acts."));
}
