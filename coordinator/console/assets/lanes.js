// Lanes: do and undo of each branch side by side on one axis of time.

import { buttons } from "./act.js";
import { h, s, swap } from "./dom.js";
import { phaseMark } from "./states.js";
import { offset, until } from "./time.js";
import { deeds, lanes, scale } from "./trail.js";

const answers = {
  ok: "took effect", refused: "refused", unknown: "outcome unknown", skipped: "skipped by hand", completed: "completed by hand", failed: "failed by hand",
};
const aside = 288; // the words beside a track, with their gap
const pad = 7; // a mark's room at either end
const line = 22; // height of an operation

// lanesView keeps the lanes up to date: draw(tx, events) shows them.
export function lanesView(now, done) {
  const list = h("ol", { class: "lanes" });
  const order = h("input", { type: "checkbox", id: "by-order" });
  const node = h("section", { class: "panel" },
    h("div", { class: "head" }, h("h2", {}, "Branches"), h("label", { for: "by-order" }, order, " space events evenly")), list, legend());
  let last = null;
  const draw = (tx, events) => {
    last = [tx, events];
    const ends = tx.finishTime ? Date.parse(tx.finishTime) : Date.now();
    const axis = scale([Date.parse(tx.createTime), ...events.map((e) => Date.parse(e.time))], ends, order.checked);
    const beside = matchMedia("(min-width: 701px)").matches;
    const width = Math.max(list.clientWidth - (beside ? aside : 0), 120);
    const rows = lanes(tx, events);
    const people = deeds(events).filter((e) => e.type !== "started");
    rows.forEach((row, i) => {
      const old = list.children[i];
      const look = JSON.stringify(row.branch);
      let item = old;
      if (old?.look !== look) {
        item = Object.assign(h("li", { class: "lane" }, about(row.branch, now, done), h("div", { class: "track" })), { look });
        if (old) swap(old, item);
        else list.append(item);
      }
      const [words, room] = item.children;
      room.replaceChildren(track(row, { axis, width, first: i === 0, people, least: beside ? words.offsetHeight : 0 }));
    });
    while (list.children.length > rows.length) list.lastElementChild.remove();
  };
  const again = () => last && draw(...last);
  order.addEventListener("change", again);
  const watcher = new ResizeObserver(again);
  watcher.observe(list);
  return { node, draw, again };
}

function about(b, now, done) {
  return h("div", { class: "about" },
    h("div", { class: "name" }, h("strong", {}, b.name), " ", phaseMark(b.phase)),
    h("div", { class: "quiet" }, b.action, kindWord(b.kind), b.attempt > 1 && ` · attempt ${b.attempt}`),
    b.nextTime && h("div", {}, "next try ", h("strong", {}, until(b.nextTime))),
    b.error && h("div", { class: "error" }, b.error),
    h("div", { class: "buttons small" }, buttons(now, b, b.verbs, done)));
}

const kindWord = (kind) => ({ STEP_KIND_PIVOT: " · pivot", STEP_KIND_RETRIABLE: " · retriable" })[kind] ?? "";

function track(row, { axis, width, first, people, least }) {
  const top = first ? 18 : 2;
  const ops = row.ops.filter((op) => op.marks.length || op.open || op.owed || op === row.ops[0]);
  const height = Math.max(top + ops.length * line + 2, least);
  const label = ops.map((op) => summary(op)).join("; ");
  const x = (t) => pad + 46 + axis.place(t) * (width - 46 - 2 * pad);
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    axis.ticks.map((t) => tick(t, x(t), axis, height, first, width)),
    people.map((e) => deed(e, x(Date.parse(e.time)), height)),
    ops.map((op, i) => operation(op, x, top + i * line + line / 2, axis)));
}

// deed is a line at the time when a person did something.
function deed(e, at, height) {
  const told = [e.detail.actor || "somebody", e.type, e.detail.branch, e.detail.reason || e.detail.message].filter(Boolean).join(" · ");
  return s("g", { class: "deed" }, s("title", {}, told), s("line", { x1: at, x2: at, y1: 0, y2: height }));
}

function summary(op) {
  const last = op.marks.at(-1);
  if (!last) return `${op.op}: ${op.open ? "under way" : "not begun"}`;
  return `${op.op}: ${op.marks.length} answers, the last one ${answers[last.outcome] ?? last.outcome}`;
}

function tick(t, at, axis, height, first, width) {
  const text = first && at < width - 30 && s("text", { x: at, y: 11, class: "tick", "text-anchor": at < 60 ? "start" : "middle" },
    t === axis.from ? "start" : offset(t - axis.from));
  return s("g", {}, s("line", { x1: at, x2: at, y1: first ? 15 : 0, y2: height, class: "grid" }), text);
}

function operation(op, x, y, axis) {
  const parts = [s("text", { x: 0, y: y + 4, class: "op" }, op.op)];
  if (op.from !== null && op.from !== undefined) {
    const end = op.open ? x(axis.to) : x(op.to);
    parts.push(s("line", { x1: x(op.from), x2: end, y1: y, y2: y, class: op.open ? "bar open" : "bar" }));
    if (op.open) parts.push(s("path", { d: `M${end - 4} ${y - 4}l5 4-5 4`, class: "arrow" }));
  }
  let drawn = -Infinity, look = "";
  for (const m of op.marks) {
    const at = x(m.time);
    if (at - drawn < 2 && look === m.outcome) continue; // it would lie upon the one before
    drawn = at;
    look = m.outcome;
    parts.push(mark(m, at, y, axis));
  }
  return s("g", {}, parts);
}

// Each outcome has a shape of its own.
const shapes = {
  ok: "M-5 0l3.5 4L5-4", refused: "M-4-4L4 4M4-4L-4 4", unknown: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
  skipped: "M0-5L5 0L0 5L-5 0z", completed: "M0-5L5 0L0 5L-5 0z", failed: "M0-5L5 0L0 5L-5 0z",
};

function mark(m, at, y, axis) {
  const told = [offset(m.time - axis.from), m.attempt && `attempt ${m.attempt}`, answers[m.outcome] ?? m.outcome, m.actor && `by ${m.actor}`, m.message];
  return s("g", { class: `dot ${m.outcome}`, transform: `translate(${at} ${y})` }, s("title", {}, told.filter(Boolean).join(" · ")),
    s("path", { d: shapes[m.outcome] ?? shapes.unknown }));
}

function legend() {
  const one = (outcome, text) => h("span", {}, s("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", class: `dot ${outcome}`, "aria-hidden": "true" },
    s("path", { d: shapes[outcome] })), " ", text);
  return h("p", { class: "legend quiet" }, one("ok", "took effect"), one("refused", "refused"), one("unknown", "unknown: may have run"), one("skipped", "answered by hand"),
    h("span", {}, s("svg", { width: 8, height: 14, viewBox: "0 0 8 14", class: "deed", "aria-hidden": "true" }, s("line", { x1: 4, x2: 4, y1: 0, y2: 14 })), " somebody acted"));
}
