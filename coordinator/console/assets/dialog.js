// Dialogs: each says what will happen, asks what it needs, and shows a refusal
// in the server's words.

import { h } from "./dom.js";

// ask opens a dialog. submit(values) does the work; when it throws, the dialog
// stays and says why. It resolves to what submit returned, or to undefined when
// the dialog was left.
export function ask({ title, says, fields = [], action, danger, submit }) {
  return new Promise((resolve) => {
    const alert = h("p", { class: "refusal", role: "alert", hidden: true });
    const act = h("button", { type: "submit", class: danger ? "danger" : "primary" }, action);
    const form = h("form", { method: "dialog" },
      h("h2", { id: "dialog-title" }, title), says.map((line) => (typeof line === "string" ? h("p", {}, line) : line)),
      fields.map(field), alert,
      h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Leave it"), act));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    let result;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (act.disabled) return;
      act.disabled = true;
      alert.hidden = true;
      try {
        result = await submit(Object.fromEntries(fields.map((f) => [f.name, form.elements[f.name].value.trim()])));
        dialog.close();
      } catch (err) {
        alert.textContent = err.reason ? `${err.message} (${err.reason})` : err.message;
        alert.hidden = false;
      } finally {
        act.disabled = false;
      }
    });
    dialog.addEventListener("close", () => (dialog.remove(), resolve(result)));
    document.body.append(dialog);
    dialog.showModal();
  });
}

function field(f) {
  const id = `field-${f.name}`;
  const input = h(f.rows ? "textarea" : "input", {
    id, name: f.name, required: f.required, rows: f.rows, type: f.rows ? null : f.type ?? "text", value: f.value,
    min: f.min, max: f.max, step: f.step, pattern: f.pattern, maxlength: f.max ? null : f.limit, autocomplete: "off", spellcheck: f.rows ? "true" : "false",
    title: f.hint, "aria-describedby": f.hint && `${id}-hint`, autofocus: f.autofocus,
  });
  return h("div", { class: "field" }, h("label", { for: id }, f.label), input, f.hint && h("small", { id: `${id}-hint` }, f.hint));
}

// reason is the field that every verb has.
export const reason = {
  name: "reason", label: "Reason", rows: 2, required: true, limit: 1024, autofocus: true, hint: "Kept in the audit trail, under your name.",
};

// typed is a field that must be given a certain text.
export function typed(text) {
  const pattern = text.replace(/[\\^$.*+?()[\]{}|/\-&~!#%,:;<=>@`]/g, (c) => "\\x" + c.charCodeAt(0).toString(16).padStart(2, "0"));
  return { name: "typed", label: "To be sure, type what stands below", required: true, pattern, hint: text };
}
