package engine

import (
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
)

// maxStarting is how many starts may be on their way into the store. More would
// only wait for those before them: four commits, at least.
const maxStarting = 4 * maxBatch

var errFull = amendsv1.ErrOverloaded.With("as much is under way as can be done; try again in %v", overloadFor).
	WithRetryAfter(overloadFor)

// Full reports whether a start of gid (a key) is to be refused as overloaded
// before anything else is looked at: as many transactions are in memory as may
// be, or as many starts wait to be stored. It asks neither the store nor a worker,
// and counts what it refuses.
//
// A transaction that is in memory is known: its start is a repetition, which
// StartSaga and BeginTCC tell the truth. One that has ended is not, nor one that
// another engine has just begun: so a refusal says that this start began nothing,
// and nothing of another one with the same gid whose answer was lost.
func (e *Engine) Full(gid string) bool { return e.refuses(gid, e.starting.Load() >= maxStarting) }

func (e *Engine) refuses(gid string, waiting bool) bool {
	if !waiting && !e.started.full() {
		return false
	}
	if _, known := e.live.Load(gid); known {
		return false
	}
	e.meters.refused.Add(refusedFull)
	return true
}

// turnsAway refuses what the worker would, before the store is asked: for want of
// room, because as many are waiting as may, or because a service has its share.
// What is live is let through, and so is a bulk, which takes no room.
func (e *Engine) turnsAway(rec *store.Record, m machine, waiting bool) error {
	if rec.Kind == KindBulk {
		return nil
	}
	if e.refuses(rec.GID, waiting) {
		return errFull
	}
	if e.started.calm() {
		return nil
	}
	if _, known := e.live.Load(rec.GID); known {
		return nil
	}
	return e.notCrowded(e.started, inNamespace(rec.Namespace, m.services()))
}
