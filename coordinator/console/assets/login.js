// Signing in: with a token that stays in this tab.

import { whoAmI } from "./api.js";
import { h } from "./dom.js";
import { setToken } from "./session.js";

// login shows the form in root, and calls next once a token is accepted.
export function login(root, why, next) {
  const input = h("input", { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "token-hint" });
  const alert = h("p", { class: "refusal", role: "alert", hidden: !why }, why);
  const enter = async (event) => {
    event.preventDefault();
    setToken(input.value.trim());
    try {
      await whoAmI();
      next();
    } catch (err) {
      setToken("");
      alert.textContent = err.message;
      alert.hidden = false;
      input.select();
    }
  };
  root.replaceChildren(h("section", { class: "panel login" }, h("h1", {}, "Sign in"),
    h("form", { onsubmit: enter }, h("label", { for: "token" }, "Bearer token"), input,
      h("small", { id: "token-hint" }, "It stays in this tab, and is forgotten when the tab is closed."), alert,
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Sign in")))));
  input.focus();
}
