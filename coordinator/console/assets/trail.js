// What the audit trail tells of each branch: its operations, each from when it
// became due to its last answer, with its attempts. No drawing here.

import { isOver } from "./states.js";

const open = { DOING: "do", UNDOING: "undo", TRYING: "try", CONFIRMING: "confirm", CANCELLING: "cancel" };
const ms = (ts) => Date.parse(ts);

// lanes makes one lane per branch: [{branch, ops: [{op, from, to, marks}]}].
export function lanes(tx, events) {
  const story = read(events);
  const saga = tx.kind === "KIND_SAGA";
  return (tx.branches ?? []).map((branch) => {
    const first = saga ? "do" : "try";
    const answers = story.marks.get(branch.name) ?? [];
    const seconds = saga ? ["undo"] : ["confirm", "cancel"];
    const second = seconds.find((op) => answers.some((m) => m.op === op) || open[branch.phase] === op) ?? seconds[0];
    const dueSecond = saga ? dueUndo(tx, branch, story) : story.decided;
    return { branch, ops: [
      lane(tx, branch, first, saga ? dueDo(branch, story) : story.tried.get(branch.name), answers),
      lane(tx, branch, second, dueSecond, answers)] };
  });
}

function lane(tx, branch, op, due, answers) {
  const marks = answers.filter((m) => m.op === op);
  const last = marks.at(-1);
  const current = !isOver(tx) && (open[branch.phase] === op || (branch.phase === "STUCK" && last?.outcome === "refused"));
  if (marks.length === 0 && !current) return { op, marks, owed: owes(tx, branch, op) };
  const from = Math.min(due ?? Infinity, marks[0]?.time ?? Infinity);
  const next = current && branch.nextTime ? ms(branch.nextTime) : null;
  return { op, marks, from: Number.isFinite(from) ? from : null, to: current ? null : last.time, open: current, next };
}

// owes tells whether an undo will come, whose turn has not come yet.
const owes = (tx, branch, op) => op === "undo" && tx.state === "STATE_ROLLING_BACK" && branch.phase === "DONE";

// read goes through the events once.
function read(events) {
  const story = { marks: new Map(), tried: new Map(), done: new Map(), undone: new Map(), started: null, decided: null };
  for (const e of events) {
    const d = e.detail ?? {};
    const time = ms(e.time);
    story.started ??= time;
    if (d.branch && e.type === "try") story.tried.set(d.branch, time);
    if (["COMMITTING", "ROLLING_BACK"].includes(d.state)) story.decided ??= time;
    if (!d.branch || !(d.op || byHand[e.type])) continue;
    const mark = { time, seq: e.seq, op: d.op ?? null, attempt: d.attempt, outcome: d.outcome ?? byHand[e.type], message: d.message, actor: d.actor };
    const all = story.marks.get(d.branch) ?? [];
    mark.op ??= all.at(-1)?.op ?? (story.tried.has(d.branch) ? "try" : "do");
    all.push(mark);
    story.marks.set(d.branch, all);
    const ends = ["do", "undo"].includes(mark.op) && ["ok", "skipped", "completed"].includes(mark.outcome);
    if (ends) (mark.op === "do" ? story.done : story.undone).set(d.branch, time);
  }
  return story;
}

// An operator's answers in a participant's place.
const byHand = { skip: "skipped", complete: "completed", fail: "failed" };

const latest = (times, otherwise) => times.reduce((a, b) => Math.max(a, b ?? -Infinity), otherwise ?? -Infinity);

const dueDo = (branch, story) => latest((branch.after ?? []).map((name) => story.done.get(name)), story.started);

// An undo waits for the decision, and for the undos of what came after it.
function dueUndo(tx, branch, story) {
  const later = tx.branches.filter((b) => b.after?.includes(branch.name));
  return story.decided && latest(later.map((b) => story.undone.get(b.name)), story.decided);
}

// deeds are the events that a person or service asked for, with their words.
export const deeds = (events) => events.filter((e) => e.detail?.actor || byHand[e.type] || ["retry", "pause", "resume", "abort", "abandon"].includes(e.type));

// scale places times (numbers) between 0 and 1: evenly by time, or evenly by event, which
// shows what happened within the same moment.
export function scale(events, now, byOrder) {
  const times = [...new Set([...events, now])].sort((a, b) => a - b);
  const [from, to] = [times[0], times.at(-1)];
  const whole = Math.max(to - from, 1);
  const place = (t) => {
    if (!byOrder) return Math.min(Math.max((t - from) / whole, 0), 1);
    const i = times.findIndex((x) => x >= t);
    if (i <= 0) return i === 0 ? 0 : 1;
    const part = (t - times[i - 1]) / (times[i] - times[i - 1]);
    return (i - 1 + part) / (times.length - 1);
  };
  return { from, to, place, ticks: byOrder ? evenTicks(times) : roundTicks(from, to) };
}

// evenTicks takes about six of the events' own times.
function evenTicks(times) {
  const every = Math.ceil(times.length / 6);
  return times.filter((_, i) => i % every === 0);
}

const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5];

function roundTicks(from, to) {
  const step = steps.find((s) => (to - from) / s <= 6) ?? (to - from) / 6;
  return Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step);
}
