// The dead letters of an outbox. The filter is the page's address.

import { outbox } from "./api.js";
import { h, keyed, say } from "./dom.js";
import { awayPanel, isAway, mayAct, nameOf, names } from "./outboxes.js";
import { onDead } from "./outboxacts.js";
import { byTopicAndKey, plural, selected, size } from "./parts.js";
import { poll } from "./poll.js";
import { holdsLetters, href } from "./session.js";
import { age } from "./time.js";

const pageSize = 50;

export async function show({ root, query, signal, navigate, title }) {
  const name = nameOf(query);
  title(`Dead letters of ${name}`);
  const api = outbox(name);
  const rows = h("tbody", {});
  const foot = h("p", { class: "foot", role: "status" }, "Loading…");
  const allowed = await mayAct(name, signal);
  const heads = ["Message", "Why it was given up", "When", "Size"].map((t) => h("th", { scope: "col" }, t));
  const list = h("section", { class: "panel list dead" }, h("table", { class: "cards" },
    h("thead", {}, h("tr", {}, allowed && h("td", { class: "choose" }, chooseAll(rows)), heads)), rows), foot);
  const away = h("div", { hidden: true });
  const chosen = new Set();
  const soon = () => load().catch(() => {}); // the next poll says what is wrong
  const menu = allowed ? menuOf(api, name, query, chosen, soon) : { node: "", draw() {} };
  root.replaceChildren(h("h1", {}, "Dead letters of ", h("a", { href: href("outbox", { name }) }, h("code", {}, name))), names("deadletters", name),
    byTopicAndKey("deadletters", name, query, navigate), away, list, menu.node);

  async function load() {
    try {
      const page = await api.deadLetters({ ...selected(query), pageSize, pageToken: query.get("page") }, signal);
      if (signal.aborted) return;
      keyed(rows, page.deadLetters, (d) => d.number, (d) => row(name, d, allowed && ((on) => (chosen[on ? "add" : "delete"](d.number), menu.draw()))));
      say(foot, footer(page, name, query));
      for (const n of chosen) if (!page.deadLetters.some((d) => d.number === n)) chosen.delete(n);
      menu.draw();
      away.hidden = true;
    } catch (err) {
      if (signal.aborted || !isAway(err)) throw err;
      away.replaceChildren(awayPanel(err, name));
      away.hidden = false;
    }
    list.hidden = !away.hidden;
  }
  await poll(load, signal, 3000);
}

function row(name, d, choose) {
  const letter = href("deadletter", { name, number: d.number });
  return h("tr", {},
    choose && h("td", { class: "choose" }, h("input", { type: "checkbox", "aria-label": `choose ${d.number}`, onchange: (event) => choose(event.target.checked) })),
    h("td", { class: "id" }, h("a", { href: letter, "data-row": true }, `#${d.number}`), h("a", { class: "quiet", href: href("deadletters", { name, topic: d.topic }) }, d.topic),
      d.key ? h("a", { class: "quiet", href: href("deadletters", { name, key: d.key }) }, d.key) : h("span", { class: "quiet" }, "no key")),
    h("td", { class: "why" }, h("span", { class: "error" }, d.error || "behind another one of its key"),
      d.parked && h("span", {}, "its key is parked"), d.attempts > 0 && h("span", { class: "quiet" }, plural(d.attempts, "attempt"))),
    h("td", { class: "n" }, age(d.failTime ?? d.createTime), " ago"), h("td", { class: "n" }, size(d.size)));
}

// chooseAll chooses all that the page shows, or none.
const chooseAll = (rows) => h("input", { type: "checkbox", "aria-label": "choose all shown", onchange: (event) => {
  for (const box of rows.querySelectorAll(".choose input")) if (box.checked !== event.target.checked) box.click();
} });

// menuOf offers what can be done with those that are chosen, or with all that
// the filter selects.
function menuOf(api, name, query, chosen, done) {
  const offer = (which, subject) => onDead(api, which, subject, done, holdsLetters(name));
  const node = h("section", { class: "panel bulk", "aria-label": "Act on dead letters" });
  let seen = null;
  const draw = () => {
    const numbers = [...chosen];
    if (seen === numbers.join()) return;
    seen = numbers.join();
    const which = selected(query);
    const subject = (text) => h("span", {}, text);
    const filter = Object.entries(which).map(([k, v]) => `${k} ${v}`).join(", ");
    if (numbers.length > 0) {
      const text = numbers.length === 1 ? `Number ${numbers[0]}` : `${numbers.length} dead letters: numbers ${numbers.join(", ")}`;
      node.replaceChildren(h("p", {}, numbers.length === 1 ? "The chosen one:" : `The ${numbers.length} chosen:`), offer({ numbers }, subject(text)));
    } else if (filter) {
      node.replaceChildren(h("p", {}, `Everything of ${filter}, on every page:`), offer(which, subject(filter)));
    } else {
      node.replaceChildren(h("p", { class: "quiet" }, `Choose some, or filter by topic or key, to ${holdsLetters(name) ? "requeue" : "replay or discard"} them.`));
    }
  };
  return { node, draw };
}

function footer(page, name, query) {
  const n = page.deadLetters.length;
  const some = query.get("topic") || query.get("key");
  return [n > 0 ? `${n} shown, oldest first.` : some ? "No dead letter matches." : "There are none: nothing was given up.", " ",
    query.get("page") && h("a", { href: href("deadletters", { name, ...selected(query) }) }, "First page"), " ",
    page.nextPageToken && h("a", { href: href("deadletters", { name, ...selected(query), page: page.nextPageToken }), rel: "next" }, "Next page")].filter(Boolean);
}
