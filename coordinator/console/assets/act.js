// Verbs as buttons, and the dialog behind each.

import { act, requestID } from "./api.js";
import { ask, reason, typed } from "./dialog.js";
import { announce, h } from "./dom.js";
import { may } from "./session.js";
import { marks } from "./states.js";
import { takesReply, verbs } from "./verbs.js";

// buttons offers what is legal now and allowed to the caller. now() is the
// transaction as it is known at the moment; done is called after each verb.
export function buttons(now, branch, list, done) {
  const offered = Object.keys(verbs).filter((v) => list?.includes(v) && may(v)); // always in the same order
  return offered.map((v) => h("button", {
    type: "button", class: verbs[v].danger ? "danger" : "", "data-verb": v,
    "aria-label": branch ? `${verbs[v].label} ${branch.name}…` : null,
    onclick: () => open(verbs[v], now, branch, done),
  }, verbs[v].label + "…"));
}

async function open(verb, now, branch, done) {
  const tx = now();
  const fields = [reason];
  if (verb.reply && takesReply(branch)) {
    fields.push({ name: "reply", label: "Reply (optional)", rows: 3, hint: "What later steps receive, for example as JSON." });
  }
  if (verb.danger) fields.push(typed(tx.gid));
  const key = requestKeys();
  const result = await ask({
    title: branch ? `${verb.label}: ${branch.name}` : verb.label,
    says: [h("p", { class: "subject" }, h("code", {}, tx.gid), " ", tx.name, " ", marks(tx)), verb.says(tx, branch)],
    fields, action: verb.label, danger: verb.danger,
    submit: (values) => {
      const body = { reason: values.reason };
      if (values.reply) body.reply = base64(values.reply);
      body.requestId = key(JSON.stringify(body));
      // As this page shows it: whoever decides decides about what they see.
      if (verb.etag) body.etag = now().etag;
      return act(verb, tx.gid, branch?.name, body);
    },
  });
  if (result) {
    announce(`${verb.label}: done`);
    done(result.transaction);
  }
}

// requestKeys gives the same key for the same content, so that what is sent
// again after a lost answer is not done twice.
export function requestKeys() {
  const keys = new Map();
  return (content) => {
    if (!keys.has(content)) keys.set(content, requestID());
    return keys.get(content);
  };
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
