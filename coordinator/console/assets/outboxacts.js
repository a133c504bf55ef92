// What can be done with messages by hand, and the dialog behind each button.

import { requestKeys } from "./act.js";
import { ask, reason, typed } from "./dialog.js";
import { announce, h } from "./dom.js";
import { plural } from "./parts.js";

const recorded = { ...reason, hint: "Recorded in the outbox's database, under your name." };
const many = (n) => plural(n, "message");

// act asks for a reason, does it, and tells what was done. subject is what it is
// done to, in words; which is the same for the API.
export async function act({ api, verb, title, subject, says, which, danger, sure, done, hint }) {
  const key = requestKeys();
  const result = await ask({
    title, says: [h("p", { class: "subject" }, subject), ...says], action: title, danger,
    fields: [hint ? { ...recorded, hint } : recorded, sure && typed(sure)].filter(Boolean),
    submit: ({ reason: why }) => {
      const body = { ...which, reason: why };
      return api[verb]({ ...body, requestId: key(JSON.stringify(body)) });
    },
  });
  if (!result) return;
  announce(`${title}: ${many(result.messages)}${result.more ? ". There are more: act again" : ""}`);
  done(result);
}

// counted is act for everything that topic and key select: first it is counted.
export async function counted(how) {
  const n = await ask({
    title: how.title, action: "Count", says: [h("p", { class: "subject" }, how.subject), "First it is counted. Nothing is done yet."],
    submit: () => how.api[how.verb]({ ...how.which, reason: "to count", validateOnly: true }),
  });
  if (!n) return;
  await act({ ...how, title: `${how.title}: ${many(n.messages)}`, sure: how.danger && String(n.messages),
    says: [...how.says, n.more && "These are the oldest; there are more, for which to act again."].filter(Boolean) });
}

const button = (text, label, open, danger) =>
  h("button", { type: "button", class: danger ? "danger" : "", "aria-label": label, "data-act": text.toLowerCase(), onclick: open }, text + "…");

const ofKey = (key) => (key ? ["key ", h("code", {}, key)] : "no key");

// onWaiting offers what can be done with a message in front of its key.
export function onWaiting(api, m, done) {
  const subject = h("span", {}, m.topic, ", ", ofKey(m.key), ", position ", h("code", {}, m.position));
  return h("div", { class: "buttons small" },
    button("Skip", `Skip message ${m.position}…`, () => act({
      api, verb: "skip", title: "Skip this message", subject, which: { position: m.position }, done,
      says: ["It is moved to the dead letters, from where it can be replayed. What waits behind it is published without it."],
    })),
    m.key && button("Park key", `Park the key of message ${m.position}…`, () => act({
      api, verb: "park", title: "Park this key", subject: h("span", {}, ofKey(m.key)), which: { position: m.position }, done,
      says: ["Every message of the key that waits now is moved to the dead letters, in order. What is written later is published."],
    })));
}

const words = {
  replay: {
    title: "Replay", one: "It goes back into the outbox, behind what waits there already, also of its own key.",
    many: "They go back into the outbox by number, behind what waits there already, also of their own keys.",
  },
  discard: {
    title: "Discard", danger: true, one: "It is deleted for good: nobody will get it. Its id stays in the record.",
    many: "They are deleted for good: nobody will get them. Their ids stay in the record.",
  },
};

// With dead letters of consumers there is one thing to do.
const requeue = {
  replay: {
    title: "Requeue", one: "It goes back to the topic that it came from, behind what is there. Who has handled it knows it again.",
    many: "They go back to the topic that they came from, behind what is there. Who has handled them knows them again.",
  },
};

// onDead offers what can be done with dead letters: which is { numbers }, or
// { topic, key }, which is counted first.
export function onDead(api, which, subject, done, ofConsumers) {
  const { numbers } = which;
  return h("div", { class: "buttons" }, Object.entries(ofConsumers ? requeue : words).map(([verb, w]) => {
    const how = { api, verb, title: w.title, subject, says: [numbers?.length === 1 ? w.one : w.many], which, danger: w.danger, done, hint: ofConsumers && "Recorded beside the dead letters in Kafka, under your name." };
    const sure = w.danger && (numbers?.length === 1 ? numbers[0] : String(numbers?.length));
    return button(w.title, null, () => (numbers ? act({ ...how, sure }) : counted(how)), w.danger);
  }));
}
