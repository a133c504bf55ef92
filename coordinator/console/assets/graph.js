// The definition of a saga as a graph: what comes after what.

import { h, s } from "./dom.js";
import { phaseSign, phaseTone, phaseWord } from "./states.js";

const box = { width: 148, height: 44, across: 40, down: 14 };

// graph draws the steps in columns: each right of all that it comes after.
export function graph(branches) {
  const places = layout(branches);
  const columns = Math.max(...[...places.values()].map((p) => p.column)) + 1;
  const rows = Math.max(...[...places.values()].map((p) => p.row)) + 1;
  const width = columns * (box.width + box.across) - box.across + 2;
  const height = rows * (box.height + box.down) - box.down + 2;
  return h("div", { class: "scroll" }, s("svg", { width, height, viewBox: `-1 -1 ${width} ${height}`, role: "img", "aria-label": words(branches), class: "graph" },
    branches.flatMap((b) => (b.after ?? []).map((name) => edge(places.get(name), places.get(b.name)))),
    branches.map((b) => step(b, places.get(b.name)))));
}

function layout(branches) {
  const places = new Map();
  const used = [];
  for (const b of branches) { // steps come after earlier ones only
    const column = 1 + Math.max(-1, ...(b.after ?? []).map((name) => places.get(name)?.column ?? -1));
    used[column] = (used[column] ?? 0) + 1;
    places.set(b.name, { column, row: used[column] - 1 });
  }
  return places;
}

const left = (p) => p.column * (box.width + box.across);
const top = (p) => p.row * (box.height + box.down);

function edge(from, to) {
  if (!from || !to) return "";
  const [x1, y1, x2, y2] = [left(from) + box.width, top(from) + box.height / 2, left(to), top(to) + box.height / 2];
  const bend = (x2 - x1) / 2;
  return s("g", { class: "edge" }, s("path", { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 2} ${y2}` }), s("path", { d: `M${x2 - 7} ${y2 - 4}l5 4-5 4` }));
}

function step(b, place) {
  const kind = { STEP_KIND_PIVOT: "pivot", STEP_KIND_RETRIABLE: "retriable" }[b.kind] ?? "";
  return s("g", { class: `step ${phaseTone(b.phase)} ${kind}`, transform: `translate(${left(place)} ${top(place)})` },
    s("title", {}, `${b.name}: ${b.action}, ${phaseWord(b.phase)}${kind && `, ${kind}`}`),
    s("rect", { width: box.width, height: box.height, rx: 6 }),
    s("text", { x: 10, y: 18, class: "title" }, cut(b.name, 18)),
    s("text", { x: 10, y: 35, class: "note" }, `${phaseSign(b.phase)} ${phaseWord(b.phase)}${kind && ` · ${kind}`}`));
}

const cut = (text, n) => (text.length > n ? text.slice(0, n - 1) + "…" : text);

const words = (branches) => branches.map((b) => `${b.name}${b.after?.length ? ` after ${b.after.join(" and ")}` : ""}`).join("; ");
