// Keys for those who have no time to aim.

import { h } from "./dom.js";
import { href, outboxNames } from "./session.js";

const help = [
  ["/", "to the search field"], ["j k", "next and previous row"], ["Enter", "open the row"],
  ["g o", "overview"], ["g t", "transactions"], ["g b", "bulk actions"],
  ...(outboxNames.length > 0 ? [["g x", "outboxes"], ["g d", "dead letters"]] : []), ["Esc", "leave a dialog or a field"], ["?", "this help"],
];
const places = { o: "", t: "transactions", b: "bulks", ...(outboxNames.length > 0 && { x: "outbox", d: "deadletters" }) };

// listenToKeys leaves alone what is typed into a field or a dialog.
export function listenToKeys(navigate) {
  let before = "";
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (target.matches("input, textarea, select")) {
      if (key === "Escape") target.blur();
      return;
    }
    if (before === "g" && key in places) navigate(href(places[key]));
    else if (key === "/") document.querySelector("[data-search]")?.focus();
    else if (key === "j") step(1);
    else if (key === "k") step(-1);
    else if (key === "?") showHelp();
    else return void (before = key);
    before = "";
    event.preventDefault();
  });
}

function step(by) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const here = rows.indexOf(document.activeElement);
  const next = here < 0 ? (by > 0 ? 0 : rows.length - 1) : here + by;
  rows[next]?.focus();
}

function showHelp() {
  const dialog = h("dialog", { "aria-labelledby": "help", onclose: () => dialog.remove() }, h("form", { method: "dialog" },
    h("h2", { id: "help" }, "Keys"),
    h("dl", { class: "keys" }, help.map(([k, text]) => [h("dt", {}, k.split(" ").map((c) => h("kbd", {}, c))), h("dd", {}, text)])),
    h("div", { class: "buttons" }, h("button", { type: "button", class: "primary", autofocus: true, onclick: () => dialog.close() }, "Close"))));
  document.body.append(dialog);
  dialog.showModal();
}
