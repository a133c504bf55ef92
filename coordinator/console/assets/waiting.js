// The messages that wait in an outbox. The filter is the page's address.

import { h, keyed, say } from "./dom.js";
import { onWaiting } from "./outboxacts.js";
import { byTopicAndKey, selected, size } from "./parts.js";
import { href } from "./session.js";
import { age, until } from "./time.js";

const pageSize = 25;

export function waiting({ api, name, query, navigate, allowed, done }) {
  const rows = h("tbody", {});
  const foot = h("p", { class: "foot", role: "status" });
  const heads = ["Topic and key", "Written", "Size", "Position", allowed && "Act"].filter(Boolean);
  const node = h("section", { class: "panel list waiting" }, h("h2", {}, "Waiting messages"), byTopicAndKey("outbox", name, query, navigate),
    h("table", { class: "cards" }, h("thead", {}, h("tr", {}, heads.map((t) => h("th", { scope: "col" }, t)))), rows), foot);
  const load = async (signal) => {
    const page = await api.messages({ ...selected(query), pageSize, pageToken: query.get("page") }, signal);
    if (signal.aborted) return;
    keyed(rows, page.messages, (m) => m.position, (m) => row(api, name, m, allowed, done));
    say(foot, footer(page, name, query));
  };
  return { node, load };
}

function row(api, name, m, allowed, done) {
  return h("tr", {},
    h("td", { class: "id" }, h("a", { href: href("outbox", { name, topic: m.topic }) }, m.topic),
      m.key ? h("a", { href: href("outbox", { name, key: m.key }) }, m.key) : h("span", { class: "quiet" }, "no key")),
    h("td", { class: "n", "data-head": "written" }, age(m.createTime), " ago",
      m.notBefore && h("span", { class: "quiet" }, " · due ", until(m.notBefore))), h("td", { class: "n" }, size(m.size)),
    h("td", { class: "n", "data-head": "position" }, h("code", { title: m.id }, m.position)), allowed && h("td", {}, onWaiting(api, m, done)));
}

function footer(page, name, query) {
  const some = query.get("topic") || query.get("key");
  return [page.messages.length === 0 && (some ? "No waiting message matches." : "Nothing waits."),
    query.get("page") && h("a", { href: href("outbox", { name, ...selected(query) }) }, "First page"), " ",
    page.nextPageToken && h("a", { href: href("outbox", { name, ...selected(query), page: page.nextPageToken }), rel: "next" }, "Next page")].filter(Boolean);
}
