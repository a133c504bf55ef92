// What an operator can do, in words that say what will happen.

const what = (branch) => (branch ? `“${branch.name}”` : "");

// What a branch owes now, by the phase that it is in.
const owes = {
  PENDING: "do", DOING: "do", UNDOING: "undo", TRYING: "try", CONFIRMING: "confirm", CANCELLING: "cancel",
};
const owed = (branch) => owes[branch.phase] ?? "call that it is stuck in";

export const verbs = {
  VERB_RETRY_NOW: {
    path: "retryNow", label: "Retry now", bulk: "Retry all", many: "retried now",
    says: (tx, b) => b
      ? `The call of ${what(b)} is sent again at once, instead of at its next time. It may have taken effect before; its participant recognises a repeated call.`
      : "Every call that waits for its next attempt is sent again at once. Of a parked transaction, the stuck branches are tried again.",
  },
  VERB_ABORT: {
    path: "abort", label: "Abort and undo", bulk: "Abort all", many: "turned back", etag: true,
    says: () => "The transaction turns back: what was done is undone, what was tried is cancelled. It cannot go forward again.",
  },
  VERB_PAUSE: {
    path: "pause", label: "Pause", bulk: "Pause all", many: "paused",
    says: () => "No more calls are sent until it is resumed. Answers to calls under way are still taken, and the deadline does not fire.",
  },
  VERB_RESUME: {
    path: "resume", label: "Resume", bulk: "Resume all", many: "resumed",
    says: () => "Calls are sent again, and the deadline counts again.",
  },
  VERB_SKIP_STEP: {
    path: "skip", label: "Skip", ofBranch: true, etag: true,
    says: (tx, b) => `The ${owed(b)} of ${what(b)} is taken as needless, and is not called again. What it would have changed stays as it is.`,
  },
  VERB_COMPLETE_STEP: {
    path: "complete", label: "Complete by hand", ofBranch: true, etag: true, reply: true,
    says: (tx, b) => `You declare that the ${owed(b)} of ${what(b)} was done by hand. It is not called again, and the transaction goes on from there.`,
  },
  VERB_FAIL_STEP: {
    path: "fail", label: "Fail", ofBranch: true, etag: true,
    says: (tx, b) => `The ${owed(b)} of ${what(b)} counts as refused by its participant. The transaction turns back, or is parked where it cannot.`,
  },
  VERB_ABANDON: {
    path: "abandon", label: "Abandon", bulk: "Abandon all", many: "abandoned, with nothing undone", etag: true, danger: true,
    says: () => "The transaction ends as it stands. Nothing more is called and nothing is undone: money, stock and messages may stay as they are now. It cannot be taken back.",
  },
};

// takesReply tells whether completing a branch gives later steps a reply.
export const takesReply = (branch) => ["do", "try"].includes(owes[branch.phase]) || branch.phase === "STUCK";

export const bulkVerbs = Object.keys(verbs).filter((v) => verbs[v].bulk);
