// The relays' outboxes: how each of them is, and what the caller may do there.

import { outbox } from "./api.js";
import { h } from "./dom.js";
import { figure } from "./figure.js";
import { visible, wait } from "./poll.js";
import { holdsLetters, href, operates, outboxNames, who } from "./session.js";
import { age, span } from "./time.js";

const every = 5000;
const late = 60; // seconds, as in the alert AmendsOutboxLate

// nameOf is the outbox that an address is about: the first one unless it says.
export const nameOf = (query) => query.get("name") ?? outboxNames[0] ?? "";

// names are links to the same page of each outbox.
export function names(page, here) {
  if (outboxNames.length < 2) return "";
  return h("nav", { class: "chips", "aria-label": "Outboxes" }, outboxNames.map((name) =>
    h("a", { href: href(holdsLetters(name) ? "deadletters" : page, { name }), "aria-current": name === here && "page" }, name)));
}

// mayAct tells whether the caller may act on an outbox: the coordinator and the
// relay both have to allow it. It is a courtesy; they decide again.
export async function mayAct(name, signal) {
  if (!operates(who())) return false;
  return outbox(name).whoAmI(signal).then(operates, () => false);
}

// paced spends no more than a tenth of the time asking: a relay reads every
// waiting row to answer how full its outbox is.
export const paced = (ask, signal) => async () => {
  const began = Date.now();
  await ask();
  await wait(9 * (Date.now() - began), signal);
};

// watchAll keeps how each outbox is, by name, until the signal ends it. One that
// does not answer holds up no other.
export function watchAll(signal, changed) {
  const all = new Map(outboxNames.map((name) => [name, null]));
  const follow = async (name) => {
    while (!signal.aborted) {
      await visible(signal);
      await paced(async () => {
        const state = await outbox(name).status(signal).then(stateOf, (err) => ({ trouble: whyNot(err), closed: closed(err) }));
        if (signal.aborted) return;
        all.set(name, state);
        changed();
      }, signal)();
      await wait(every, signal);
    }
  };
  for (const name of outboxNames) follow(name);
  return all;
}

const stateOf = (s) => ({ messages: s.messages, dead: s.deadLetters, blocked: s.blockedKeys, oldest: since(s.oldestAge) });

// since is the time, to the second, of which an age like "12.5s" is told.
export const since = (duration) => duration && new Date(Math.round(Date.now() / 1000 - parseFloat(duration)) * 1000).toISOString();

const seconds = (ts) => (ts ? (Date.now() - Date.parse(ts)) / 1000 : 0);

// closed tells that a relay answers, and does not let the caller in.
export const closed = (err) => err.status === 401 || err.status === 403;

// whyNot says why there is no answer, in as few words as say it all.
export function whyNot(err) {
  if (err.status === 504) return "it does not answer in time";
  if (err.status === 501) return "it is of a version that does not offer this";
  const dialing = /desc = "?transport: (?:Error while dialing: |authentication handshake failed: )?(.*?)"?$/.exec(err.message);
  return dialing ? dialing[1] : err.message;
}

// troubles are what somebody should look at.
export function troubles(all) {
  return [...all].flatMap(([name, s]) => {
    if (!s || s.closed) return [];
    const link = (page, text) => h("a", { href: href(page, { name }) }, `${holdsLetters(name) ? "consumers of" : "outbox"} ${name}: ${text}`);
    if (s.trouble) return [holdsLetters(name) ? link("deadletters", s.trouble) : link("outbox", `its relay is away (${s.trouble})`)];
    return [
      Number(s.blocked) && link("outbox", `${s.blocked} ${s.blocked === "1" ? "key does" : "keys do"} not get through`),
      Number(s.dead) && link("deadletters", `${s.dead} dead ${s.dead === "1" ? "letter" : "letters"}`),
      seconds(s.oldest) > late && link("outbox", `a message has waited for ${span(seconds(s.oldest) * 1000)}`),
    ].filter(Boolean);
  });
}

// tiles are one figure for each outbox.
export function tiles(all) {
  if (all.size === 0) return "";
  return h("section", { "aria-label": "Outboxes" }, h("h2", { class: "above" }, "Outboxes"),
    h("div", { class: "figures outboxes" }, [...all].map(([name, s]) => tile(name, s))));
}

function tile(name, s) {
  const to = href(holdsLetters(name) ? "deadletters" : "outbox", { name });
  if (!s) return figure(name, "…", to);
  if (s.closed) return figure(name, "no access", to, "", s.trouble);
  if (s.trouble) return figure(name, "away", to, "bad", s.trouble);
  if (holdsLetters(name)) return figure(name, [Number(s.dead).toLocaleString(), h("small", {}, " dead")], to, Number(s.dead) ? "bad" : "", "given up by consumers");
  const bad = Number(s.dead) || Number(s.blocked) || seconds(s.oldest) > late;
  const notes = [s.oldest ? ["oldest ", age(s.oldest)] : "nothing waits",
    Number(s.dead) > 0 && ` · ${Number(s.dead).toLocaleString()} dead`, Number(s.blocked) > 0 && ` · ${s.blocked} blocked`];
  return figure(name, [Number(s.messages).toLocaleString(), h("small", {}, " waiting")], to, bad ? "bad" : "", h("span", {}, notes));
}

// awayPanel stands in the place of what a relay does not tell.
export function awayPanel(err, name) {
  const [title, rest] = closed(err)
    ? ["This relay does not let you in: ", ""]
    : holdsLetters(name) ? ["Not known just now: ", " Dead letters stay in Kafka. Asked again every few seconds."]
    : ["This relay is away: ", " Its messages wait in the database; none is lost. Asked again every few seconds."];
  return h("section", { class: "cause bad", role: "alert" }, h("p", {}, h("strong", {}, title), whyNot(err), "."), rest && h("p", {}, rest));
}

// isAway tells errors of one relay from those of the whole console.
export const isAway = (err) => closed(err) || err.status === 501 || err.status >= 503;
