// One verb for everything that a filter selects: counted, then started.

import { startBulk } from "./api.js";
import { requestKeys } from "./act.js";
import { ask, reason, typed } from "./dialog.js";
import { h } from "./dom.js";
import { actionable } from "./filter.js";
import { href, may } from "./session.js";
import { span } from "./time.js";
import { bulkVerbs, verbs } from "./verbs.js";

// bulkMenu offers the verbs for what the list shows, and for the pages behind.
export function bulkMenu(query, navigate) {
  const offered = bulkVerbs.filter(may);
  if (offered.length === 0) return "";
  return h("section", { class: "panel bulk", "aria-label": "Bulk actions" },
    h("p", {}, "Everything that this filter selects, on every page:"),
    h("div", { class: "buttons" }, offered.map((v) => h("button", {
      type: "button", class: verbs[v].danger ? "danger" : "", "data-bulk": v, onclick: () => open(v, query, navigate),
    }, verbs[v].bulk + "…"))));
}

async function open(name, query, navigate) {
  const verb = verbs[name];
  const filter = actionable(query);
  const plan = await ask({
    title: verb.bulk, action: "Count", danger: false,
    says: [h("p", { class: "subject" }, h("code", {}, filter)), verb.says(), "First it is counted. Nothing is done yet."],
    fields: [reason, { name: "rate", label: "At most, per second", type: "number", value: 50, min: 1, max: 1000, step: 1, required: true }],
    submit: async (values) => {
      const body = { verb: name, filter, reason: values.reason, rate: Number(values.rate) };
      const counted = await startBulk({ ...body, validateOnly: true });
      return { body, count: Number(counted.acted) };
    },
  });
  if (!plan) return;
  const started = await confirm(verb, plan);
  if (started) navigate(href("bulks"));
}

function confirm(verb, { body, count }) {
  const key = requestKeys();
  const many = `${count.toLocaleString()} transaction${count === 1 ? "" : "s"}`;
  return ask({
    title: `${verb.bulk}: ${many}`, action: `${verb.bulk} (${count.toLocaleString()})`, danger: verb.danger,
    says: [h("p", { class: "subject" }, h("code", {}, body.filter)),
      count === 0 ? "The filter selects nothing now; it may select some when it runs."
        : `It selects ${many} now. They are ${verb.many}, ${body.rate} per second: about ${span(Math.max(Math.ceil(count / body.rate), 1) * 1000)}.`,
      "Those for which it is not legal are skipped. It goes on when this page is closed, and can be stopped under Bulk actions."],
    fields: verb.danger ? [typed(String(count))] : [],
    submit: () => startBulk({ ...body, requestId: key(JSON.stringify(body)) }),
  });
}
