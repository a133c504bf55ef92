// Bulk actions and how far they are.

import { bulks, cancelBulk } from "./api.js";
import { ask, reason } from "./dialog.js";
import { announce, h, keyed, say } from "./dom.js";
import { poll } from "./poll.js";
import { href, may } from "./session.js";
import { age, at } from "./time.js";
import { verbs } from "./verbs.js";

const words = { BULK_STATE_RUNNING: ["▸", "Running", "busy"], BULK_STATE_DONE: ["✓", "Done", "good"], BULK_STATE_CANCELLED: ["✕", "Cancelled", "over"] };

export async function show({ root, query, signal, title }) {
  title("Bulk actions");
  const items = h("ul", { class: "bulks" });
  const foot = h("p", { class: "foot", role: "status" }, "Loading…");
  root.replaceChildren(h("h1", {}, "Bulk actions"),
    h("p", { class: "quiet" }, "One is started from a list of ", h("a", { href: href("transactions", { unfinished: "true" }) }, "transactions"), "."), items, foot);
  await poll(async () => {
    const page = await bulks({ pageToken: query.get("page") }, signal);
    if (signal.aborted) return;
    keyed(items, page.bulks, (b) => b.id, item);
    say(foot, page.bulks.length ? "" : "There are none.",
      page.nextPageToken && h("a", { href: href("bulks", { page: page.nextPageToken }) }, "Older ones"));
  }, signal, 1000);
}

function item(b) {
  const [sign, word, tone] = words[b.state] ?? ["·", b.state, "over"];
  const figure = (n, label, bad) => h("span", { class: bad && Number(n) ? "bad" : "" }, h("strong", {}, Number(n).toLocaleString()), ` ${label}`);
  return h("li", { class: "panel" },
    h("h2", {}, verbs[b.verb]?.bulk ?? b.verb, " ", h("span", { class: `mark ${tone}` }, h("span", { class: "sign", "aria-hidden": "true" }, sign), word)),
    h("p", {}, h("code", {}, b.filter)),
    h("p", { class: "progress" }, figure(b.acted, "acted upon"), figure(b.skipped, "skipped, not legal"), figure(b.failed, "failed", true), `at most ${b.rate} per second`),
    b.lastError && h("p", { class: "refusal" }, b.lastError),
    h("p", { class: "quiet" }, `“${b.reason}”`, b.actor && ` · ${b.actor}`, " · started ", at(b.createTime),
      b.finishTime ? [" · finished ", at(b.finishTime)] : [" · ", age(b.createTime), " ago"]),
    !b.finishTime && may(b.verb) && h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => cancel(b) }, "Stop…")));
}

async function cancel(b) {
  const stopped = await ask({
    title: "Stop this bulk action", says: [h("p", { class: "subject" }, h("code", {}, b.filter)), "What it has done stays done. The rest is left alone."],
    fields: [reason], action: "Stop it", submit: (values) => cancelBulk(b.id, values.reason),
  });
  if (stopped) announce("The bulk action is stopped");
}
