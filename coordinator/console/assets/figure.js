// A figure with its name; a link to what it counts, where there is that.

import { h } from "./dom.js";

export function figure(label, value, to, tone = "", note = "") {
  const number = /^\d+$/.test(value) ? Number(value).toLocaleString() : value;
  return h(to ? "a" : "div", { class: `figure ${tone}`, href: to }, h("span", { class: "label" }, label),
    h("span", { class: "value" }, tone === "bad" && h("span", { "aria-hidden": "true" }, "! "), number), note && h("span", { class: "note" }, note));
}
