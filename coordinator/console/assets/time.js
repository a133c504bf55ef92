// Times: local to read, exact UTC in the title. Ages and countdowns go on by
// themselves.

import { h } from "./dom.js";

// Year first and 24 hours: the same for everybody who reads it aloud to another.
const pad = (n, width = 2) => String(n).padStart(width, "0");
const day = (d) => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
const clock = (d) => `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
const local = (ts) => `${day(new Date(ts))} ${clock(new Date(ts))}`;
const fine = (d) => `${clock(d)}.${pad(d.getMilliseconds(), 3)}`;

// at is a point in time; clockAt is only its time of the day.
export const at = (ts) => ts && h("time", { datetime: ts, title: exact(ts) }, local(ts));
export const clockAt = (ts) => ts && h("time", { datetime: ts, title: exact(ts) }, fine(new Date(ts)));

// age is how long ago something was; until is when it will be: "in 42s", "now".
export const age = (ts) => ts && ticking(ts, "age");
export const until = (ts) => ts && ticking(ts, "until");

const exact = (ts) => `${local(ts)} local\n${ts} UTC`;

function ticking(ts, kind) {
  const node = h("time", { datetime: ts, title: exact(ts), "data-tick": kind });
  node.textContent = words(kind, ts);
  return node;
}

function words(kind, ts) {
  const ms = Date.now() - Date.parse(ts);
  if (kind === "age") return span(Math.max(ms, 0));
  return ms >= 0 ? "now" : `in ${span(-ms)}`;
}

// tick brings every age and countdown of the page up to date.
export function tick() {
  for (const node of document.querySelectorAll("time[data-tick]")) {
    const text = words(node.dataset.tick, node.dateTime);
    if (node.textContent !== text) node.textContent = text;
  }
}

// offset writes a distance on an axis, of which tenths of seconds matter.
export const offset = (ms) => (ms >= 1000 && ms < 60000 ? `+${Number((ms / 1000).toFixed(1))}s` : `+${span(ms)}`);

const units = [["d", 86400000], ["h", 3600000], ["m", 60000], ["s", 1000]];

// span writes milliseconds with their two greatest units: 3h 12m.
export function span(ms) {
  if (ms < 1000) return `${Math.floor(ms)} ms`;
  const first = units.findIndex(([, n]) => ms >= n);
  const [[name, size], next] = [units[first], units[first + 1]];
  const rest = next ? Math.floor((ms % size) / next[1]) : 0;
  return `${Math.floor(ms / size)}${name}` + (rest ? ` ${rest}${next[0]}` : "");
}
