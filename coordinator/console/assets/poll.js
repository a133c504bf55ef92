// Asking again and again, while somebody looks.

import { banner } from "./dom.js";

// wait resolves after some milliseconds, or at once when the signal ends it.
export function wait(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

// visible resolves as soon as the page is seen.
export function visible(signal) {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) return resolve();
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
  });
}

// poll runs ask now and every so many milliseconds until the signal ends it.
// What fails for a while is told in the banner; what will never work is thrown.
export async function poll(ask, signal, every = 2000) {
  while (!signal.aborted) {
    await visible(signal);
    try {
      await ask();
      if (!signal.aborted) banner();
    } catch (err) {
      if (signal.aborted) return;
      if (err.status >= 400 && err.status < 500 && err.status !== 429) throw err;
      banner(`Out of date: ${err.message}. Trying again.`);
    }
    await wait(every, signal);
  }
}
