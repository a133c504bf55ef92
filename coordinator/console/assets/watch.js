// The events of a transaction as they happen: Server-Sent Events, read with
// fetch, because an EventSource cannot send a token.

import { headers, refusal, watchPath } from "./api.js";
import { visible, wait } from "./poll.js";

// What no second attempt will change.
const final = [400, 401, 403, 404];

// watch calls onEvent with each event, in order and once, and onState with
// "live", "lost" or "ended". It goes on after the last event after a lost
// connection, and lets go of its own while nobody looks at the page.
export async function watch(gid, { signal, onEvent, onState }) {
  let seq = 0;
  for (let failures = 0; !signal.aborted; ) {
    await visible(signal);
    const stop = new AbortController();
    const hide = () => document.hidden && stop.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      const ended = await follow(gid, seq, AbortSignal.any([signal, stop.signal]), (event) => {
        failures = 0;
        seq = Number(event.seq);
        onEvent(event);
      }, onState);
      if (ended) return onState("ended");
    } catch (err) {
      if (signal.aborted) return;
      if (final.includes(err.status)) throw err;
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    if (stop.signal.aborted || signal.aborted) continue;
    onState("lost");
    await wait(Math.min(250 * 2 ** failures++, 10000), signal);
  }
}

// follow reads one connection, and tells whether the transaction has ended.
async function follow(gid, seq, signal, onEvent, onState) {
  const response = await fetch(`${watchPath(gid)}?afterSeq=${seq}`, { signal, headers: headers({ Accept: "text/event-stream" }) });
  if (!response.ok) throw await refusal(response);
  if (response.status === 204) return true;
  onState("live");
  for await (const message of messages(response.body)) {
    if (message.event === "end") return true;
    if (message.event === "failure") return false;
    if (message.data) onEvent(JSON.parse(message.data));
  }
  return false;
}

// messages splits a stream into its messages: fields by name.
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) yield fields(block);
  }
}

function fields(block) {
  const out = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) out[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
  }
  return out;
}
