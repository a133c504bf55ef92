package simulation

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// operator does this and that to transactions, and remembers what was
// acknowledged.
func (w *world) operator() {
	p := w.newProcess("operator")
	for i := range w.verbs {
		w.sleep(w.upTo(8*time.Second, "operator", i))
		gid := w.anyGID(i)
		if gid == "" {
			continue
		}
		verb := []string{"retry", "pause", "abort", "resume", "retry", "pause"}[w.pick(6, "verb", i)]
		w.operate(p, verb, gid, fmt.Sprintf("op-%d", i))
		if verb == "pause" && w.happens(0.7, "resume", i) {
			w.sleep(w.upTo(5*time.Second, "resume", i))
			w.operate(p, "resume", gid, fmt.Sprintf("op-%d-resume", i))
		}
	}
}

func (w *world) anyGID(i int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.gids) == 0 {
		return ""
	}
	return w.gids[w.pick(len(w.gids), "victim", i)]
}

// operate insists on a verb until it is known what became of it.
func (w *world) operate(p *process, verb, gid, request string) {
	wire := &wire{w: w, from: p}
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
		err := ask(ctx, amendsv1.NewOperatorServiceClient(wire), verb, gid, request)
		cancel()
		known := amendsv1.FromError(err)
		if status.Code(err) == codes.Unavailable || ctxError(err) {
			if w.ctx.Err() != nil || try > 200 {
				return
			}
			w.sleep(w.between(100*time.Millisecond, 2*time.Second, "again", request, try))
			continue
		}
		w.say(p.id, "%s %s of %s: %v", request, verb, gid, known)
		if err == nil {
			w.mu.Lock()
			w.acted[request] = gid
			w.mu.Unlock()
		}
		return
	}
}

func ask(ctx context.Context, c amendsv1.OperatorServiceClient, verb, gid, request string) (err error) {
	const reason = "the simulation says so"
	switch verb {
	case "retry":
		_, err = c.RetryNow(ctx, &amendsv1.RetryNowRequest{Gid: gid, Reason: reason, RequestId: request})
	case "pause":
		_, err = c.Pause(ctx, &amendsv1.PauseRequest{Gid: gid, Reason: reason, RequestId: request})
	case "resume":
		_, err = c.Resume(ctx, &amendsv1.ResumeRequest{Gid: gid, Reason: reason, RequestId: request})
	case "abort":
		_, err = c.Abort(ctx, &amendsv1.AbortRequest{Gid: gid, Reason: reason, RequestId: request})
	case "complete":
		_, err = c.CompleteStep(ctx, &amendsv1.CompleteStepRequest{Gid: gid, Reason: reason, RequestId: request, Branch: "stamp"})
	}
	return err
}

// tidy does what only a person can: it resumes what is paused, and says that
// what cannot be undone was done by hand. It reports whether all has ended.
func (w *world) tidy(round int) bool {
	p := w.newProcess("operator")
	all := true
	for _, r := range w.records() {
		state := txn.State(r.State)
		request := fmt.Sprintf("tidy-%d-%s", round, r.GID)
		switch {
		case state.Finished():
			continue
		case r.Paused:
			w.operate(p, "resume", r.GID, request)
		case state == txn.Parked:
			if r.Reason == "" {
				w.violation("%s is parked without a reason", r.GID)
			}
			w.operate(p, "complete", r.GID, request)
		}
		all = false
	}
	return all
}
