// Requests and replies, which are read only when somebody asks for them.

import { transaction } from "./api.js";
import { h } from "./dom.js";

export function payloads(gid, signal) {
  const body = h("div", { class: "payloads" });
  const node = h("details", { class: "panel" }, h("summary", {}, h("h2", {}, "Requests and replies")), body);
  node.addEventListener("toggle", async () => {
    if (!node.open) return;
    body.replaceChildren(h("p", { class: "quiet" }, "Loading…"));
    try {
      const tx = await transaction(gid, signal, true);
      body.replaceChildren(...tx.branches.map((b) => h("div", {}, h("h3", {}, b.name), one("request", b.request), one("reply", b.reply))));
    } catch (err) {
      if (!signal.aborted) body.replaceChildren(h("p", { class: "refusal", role: "alert" }, err.message));
    }
  });
  return node;
}

const one = (label, base64) => h("figure", {}, h("figcaption", {}, label), base64 ? h("pre", { tabindex: "0" }, readable(base64)) : " none");

// readable shows JSON indented, other text as it is, and bytes as hex. Numbers
// are not read: they may be longer than JavaScript can hold.
export function readable(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    try {
      return JSON.stringify(JSON.parse(text, (_, v, at) => (typeof v === "number" && at?.source && JSON.rawJSON ? JSON.rawJSON(at.source) : v)), null, 2);
    } catch {
      return text;
    }
  } catch {
    return [...bytes].map((b) => b.toString(16).padStart(2, "0")).join(" ");
  }
}
