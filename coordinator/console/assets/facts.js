// What is known of a transaction, above its branches.

import { h } from "./dom.js";
import { labels } from "./list.js";
import { href } from "./session.js";
import { causeText, isOver, marks, phaseWord } from "./states.js";
import { age, at, until } from "./time.js";

// head is the transaction's name and where it stands.
export function head(tx, link) {
  return h("div", { class: "tx-head" },
    h("h1", {}, h("code", {}, tx.gid)),
    h("p", { class: "line" }, marks(tx), h("span", {}, tx.name, " ", h("span", { class: "quiet" }, tx.kind === "KIND_TCC" ? "TCC" : "saga")), labels(tx), link));
}

// why says what it waits for, which is what people come here to learn.
export function why(tx) {
  const reasons = [];
  if (tx.cause) reasons.push(h("p", {}, h("strong", {}, "Cause: "), causeText(tx.cause)));
  if (tx.paused) reasons.push(h("p", {}, h("strong", {}, "Paused: "), "no calls are sent until somebody resumes it."));
  for (const b of tx.branches ?? []) {
    if (isOver(tx) || !b.error || !(b.nextTime || b.phase.endsWith("ING") || b.phase === "STUCK")) continue;
    if (tx.cause?.branch === b.name && tx.cause.message === b.error) continue; // it was said already
    reasons.push(h("p", {}, h("strong", {}, `${b.name}: `), phaseWord(b.phase).toLowerCase(), b.attempt > 1 && `, attempt ${b.attempt}`, ", ",
      h("span", { class: "error" }, b.error), b.nextTime && [". Next try ", until(b.nextTime), "."]));
  }
  if (tx.stalled && tx.waitsFor) {
    reasons.unshift(h("p", {}, h("strong", {}, "Stalled: "), "it has waited for ", h("a", { href: href("transactions", { participant: tx.waitsFor }) }, tx.waitsFor), " for too long."));
  }
  return h("section", { class: `cause ${tx.stalled || tx.state === "STATE_PARKED" ? "bad" : ""}`, hidden: reasons.length === 0, "aria-label": "Why" }, reasons);
}

// times is the rest, for whoever needs it.
export function facts(tx) {
  const rows = [
    ["Started", [at(tx.createTime), " (", age(tx.createTime), " ago)"]], ["Last change", [at(tx.updateTime), " (", age(tx.updateTime), " ago)"]],
    tx.finishTime && ["Finished", at(tx.finishTime)], tx.deadline && ["Deadline", isOver(tx) ? at(tx.deadline) : [at(tx.deadline), " (", until(tx.deadline), ")"]],
    tx.namespace && ["Namespace", tx.namespace], ["Etag", h("code", {}, tx.etag)],
  ].filter(Boolean);
  return h("dl", { class: "facts" }, rows.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v))));
}
