package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/cmd/torture/internal/bank"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// recent are the transactions that began last.
type recent struct {
	mu   sync.Mutex
	ring [48]begun
	n    int
}

type begun struct{ gid, name string }

func (r *recent) add(gid, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.n%len(r.ring)] = begun{gid, name}
	r.n++
}

// pick draws one; ok is false while there is none.
func (r *recent) pick(rnd *rand.Rand) (b begun, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == 0 {
		return b, false
	}
	return r.ring[rnd.IntN(min(r.n, len(r.ring)))], true
}

// verb is something that an operator does to a transaction.
type verb func(ctx context.Context, a amendsv1.OperatorServiceClient, gid, branch, request string) error

const why = "torture"

// harmless are the verbs after which every promise still holds; the others put
// an operator's word in place of what a participant says.
var (
	harmless = map[string]verb{
		"retry": func(ctx context.Context, a amendsv1.OperatorServiceClient, gid, _, request string) error {
			_, err := a.RetryNow(ctx, &amendsv1.RetryNowRequest{Gid: gid, Reason: why, RequestId: request})
			return err
		},
		"pause": func(ctx context.Context, a amendsv1.OperatorServiceClient, gid, _, request string) error {
			_, err := a.Pause(ctx, &amendsv1.PauseRequest{Gid: gid, Reason: why, RequestId: request})
			return err
		},
		"abort": func(ctx context.Context, a amendsv1.OperatorServiceClient, gid, _, request string) error {
			_, err := a.Abort(ctx, &amendsv1.AbortRequest{Gid: gid, Reason: why, RequestId: request})
			return err
		},
	}
	forcing = map[string]verb{
		"skip": func(ctx context.Context, a amendsv1.OperatorServiceClient, gid, branch, request string) error {
			_, err := a.SkipStep(ctx, &amendsv1.SkipStepRequest{Gid: gid, Branch: branch, Reason: why, RequestId: request})
			return err
		},
		"complete": func(ctx context.Context, a amendsv1.OperatorServiceClient, gid, branch, request string) error {
			_, err := a.CompleteStep(ctx, &amendsv1.CompleteStepRequest{Gid: gid, Branch: branch, Reason: why, RequestId: request})
			return err
		},
		"fail": func(ctx context.Context, a amendsv1.OperatorServiceClient, gid, branch, request string) error {
			_, err := a.FailStep(ctx, &amendsv1.FailStepRequest{Gid: gid, Branch: branch, Reason: why, RequestId: request})
			return err
		},
		"abandon": func(ctx context.Context, a amendsv1.OperatorServiceClient, gid, _, request string) error {
			_, err := a.Abandon(ctx, &amendsv1.AbandonRequest{Gid: gid, Reason: why, RequestId: request})
			return err
		},
	}
)

func resume(ctx context.Context, a amendsv1.OperatorServiceClient, gid, _, request string) error {
	_, err := a.Resume(ctx, &amendsv1.ResumeRequest{Gid: gid, Reason: why, RequestId: request})
	return err
}

// Names in an order, so that a seed draws the same.
var (
	harmlessNames = []string{"retry", "pause", "abort"}
	forcingNames  = []string{"skip", "complete", "fail", "abandon"}
	steps         = []string{"one", "two", "three"}
)

// operator acts on what goes on, whatever it may be.
type operator struct {
	*Load

	id     int
	n      int
	rnd    *rand.Rand
	paused []string
}

const (
	actEvery  = 100 * time.Millisecond
	maxPaused = 8
)

func (o *operator) run(ctx context.Context) error {
	for sleep(ctx, actEvery) {
		if len(o.paused) > 0 && (len(o.paused) >= maxPaused || o.rnd.IntN(3) == 0) {
			gid := o.paused[0]
			o.paused = o.paused[1:]
			o.act(ctx, "resume", resume, gid, "")
			continue
		}
		b, ok := o.recent.pick(o.rnd)
		if !ok {
			continue
		}
		name, of, branch := harmlessNames[o.rnd.IntN(len(harmlessNames))], harmless, ""
		if b.name == bank.OperatedName && o.rnd.IntN(2) == 0 {
			name, of, branch = forcingNames[o.rnd.IntN(len(forcingNames))], forcing, steps[o.rnd.IntN(len(steps))]
		}
		if o.act(ctx, name, of[name], b.gid, branch) && name == "pause" {
			o.paused = append(o.paused, b.gid)
		}
	}
	for _, gid := range o.paused {
		o.act(ctx, "resume", resume, gid, "")
	}
	return nil
}

// act carries out one verb, and reports whether that was acknowledged. The
// request's id makes one that is repeated count once.
func (o *operator) act(ctx context.Context, name string, v verb, gid, branch string) bool {
	o.n++
	request := fmt.Sprintf("act-%d-%d", o.id, o.n)
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Patience)
	defer cancel()
	err := Repeat(asking, func(ctx context.Context) error { return v(ctx, o.admin, gid, branch, request) })
	switch {
	case err == nil:
		o.count.add(func(f *Figures) { f.Verbs[name]++; f.Requests++ })
		o.Journal.Add(Line{What: Acted, ID: request, Name: name, GID: gid})
		return true
	case errors.Is(amendsv1.FromError(err), amendsv1.ErrIllegalVerb), status.Code(err) == codes.InvalidArgument:
		o.count.add(func(f *Figures) { f.Refused++; f.Requests++ })
	default:
		o.count.failed(name+" "+gid, err)
	}
	return false
}

// Repeat calls fn until its answer is not that the coordinators cannot be asked,
// or ctx ends.
func Repeat(ctx context.Context, fn func(ctx context.Context) error) error {
	for {
		err := fn(ctx)
		if status.Code(err) != codes.Unavailable || !sleep(ctx, 50*time.Millisecond) {
			return err
		}
	}
}

// Resume lets a paused transaction go on, and Abandon ends one that waits for a
// person. Request is the id by which a repetition counts once.
func (l *Load) Resume(ctx context.Context, gid, request string) error {
	return Repeat(ctx, func(ctx context.Context) error { return resume(ctx, l.admin, gid, "", request) })
}

// Abandon is described at Resume.
func (l *Load) Abandon(ctx context.Context, gid, request string) error {
	return Repeat(ctx, func(ctx context.Context) error { return forcing["abandon"](ctx, l.admin, gid, "", request) })
}
