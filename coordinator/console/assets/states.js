// The states, each with a sign and a word: never a colour alone.

import { h } from "./dom.js";

const states = {
  RUNNING: ["▸", "Running", "busy"],
  COMMITTING: ["»", "Committing", "busy"],
  ROLLING_BACK: ["↩", "Rolling back", "back"],
  COMMITTED: ["✓", "Committed", "good"],
  ROLLED_BACK: ["↺", "Rolled back", "over"],
  PARKED: ["!", "Parked", "bad"],
  ABANDONED: ["✕", "Abandoned", "over"],
};

export const stateNames = Object.keys(states);
export const finished = ["COMMITTED", "ROLLED_BACK", "ABANDONED"];
export const stateOf = (tx) => tx.state.replace("STATE_", "");
export const isOver = (tx) => finished.includes(stateOf(tx));
export const wordOf = (state) => states[state]?.[1] ?? state;

const mark = (sign, word, tone, title) =>
  h("span", { class: `mark ${tone}`, title }, h("span", { class: "sign", "aria-hidden": "true" }, sign), word);

// stateMark shows the state of a transaction.
export function stateMark(state) {
  return mark(...(states[state] ?? ["·", state, "over"]));
}

// marks shows the state with what stands beside it.
export function marks(tx) {
  return h("span", { class: "marks" }, stateMark(stateOf(tx)),
    tx.paused && mark("‖", "Paused", "held"),
    tx.stalled && mark("⚠", "Stalled", "bad", tx.waitsFor && `waits for ${tx.waitsFor}`));
}

// Where a step or branch stands, by tone; what is missing here has not begun.
const phases = {
  DOING: "busy", TRYING: "busy", CONFIRMING: "busy", UNDOING: "back", CANCELLING: "back",
  DONE: "good", TRIED: "good", CONFIRMED: "good", REFUSED: "bad", STUCK: "bad", UNDONE: "over", CANCELLED: "over",
};
const signs = { busy: "▸", back: "↩", good: "✓", bad: "!", over: "↺", idle: "·" };

export const phaseTone = (phase) => phases[phase] ?? (phase.includes("SKIPPED") ? "over" : "idle");
export const phaseSign = (phase) => (phase.includes("SKIPPED") ? "⤼" : signs[phaseTone(phase)]);
export const phaseWord = (phase) => (phase.charAt(0) + phase.slice(1).toLowerCase()).replaceAll("_", " ");
export const phaseMark = (phase) => mark(phaseSign(phase), phaseWord(phase), phaseTone(phase));

// causeText says why a transaction turned back or is parked.
export function causeText(cause) {
  if (!cause) return "";
  return [cause.branch && `${cause.branch}:`, cause.code, cause.message && `· ${cause.message}`].filter(Boolean).join(" ");
}
