package engine

import (
	"context"
	"maps"
	"sync/atomic"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/meter"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// Why a start or a try is refused for want of room, and what becomes of a
// transaction that a bulk meets.
const (
	refusedFull    = "full"
	refusedCrowded = "crowded"
	refusedQuota   = "quota"

	bulkActed   = "acted"
	bulkSkipped = "skipped"
	bulkFailed  = "failed"
)

// kinds are those of all records.
var kinds = []string{KindSaga, KindTCC, KindBulk}

// Ending is how a transaction of a kind ended.
type Ending struct {
	Kind  string
	State txn.State
}

// meters counts what an engine does.
type meters struct {
	started  *meter.Tally[string] // by kind
	finished *meter.Tally[Ending]
	verbs    *meter.Tally[amendsv1.Verb]
	refused  *meter.Tally[string]
	bulk     *meter.Tally[string]

	commit *meter.Histogram // seconds
	batch  *meter.Histogram // transactions

	stalled, commitErrors, acquired, lost, given atomic.Uint64
}

func newMeters() *meters {
	var endings []Ending
	for _, kind := range kinds {
		for s := txn.Running; s.Valid(); s++ {
			if s.Finished() {
				endings = append(endings, Ending{kind, s})
			}
		}
	}
	var verbs []amendsv1.Verb
	for v := range amendsv1.Verb_name {
		if v != 0 {
			verbs = append(verbs, amendsv1.Verb(v))
		}
	}
	return &meters{
		started: meter.NewTally(kinds...), finished: meter.NewTally(endings...), verbs: meter.NewTally(verbs...),
		refused: meter.NewTally(refusedFull, refusedCrowded, refusedQuota),
		bulk:    meter.NewTally(bulkActed, bulkSkipped, bulkFailed),
		commit:  meter.NewHistogram(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10),
		batch:   meter.NewHistogram(1, 2, 4, 8, 16, 32, 64, 128, 256, maxBatch),
	}
}

// note counts a version that became durable, with its audit events.
func (m *meters) note(rec *store.Record, events []store.Event) {
	if rec.Version == 1 {
		m.started.Add(rec.Kind)
	}
	if s := txn.State(rec.State); s.Finished() {
		m.finished.Add(Ending{rec.Kind, s})
	}
	for i := range events {
		if events[i].Type == "stalled" {
			m.stalled.Add(1)
		}
	}
}

// committed counts a batch that took so long, the attempts that failed
// included.
func (m *meters) committed(b *batch, took time.Duration) {
	m.commit.Observe(took.Seconds())
	m.batch.Observe(float64(len(b.items)))
}

// loses counts a shard that was taken away, if it was owned.
func (m *meters) loses(s *shard) {
	if s != nil {
		m.lost.Add(1)
	}
}

// Stats is what an engine did since it was made, and where it stands.
type Stats struct {
	Started      map[string]uint64        // transactions and bulks that became durable here, by kind
	Finished     map[Ending]uint64        // those that ended here
	Stalled      uint64                   // stalls that were noted here
	Verbs        map[amendsv1.Verb]uint64 // operators' verbs that were carried out here, those of bulks included
	Refused      map[string]uint64        // starts and tries for which there was no room
	Bulk         map[string]uint64        // transactions that bulks met here
	Commit       meter.Snapshot           // seconds that batches took to become durable
	Batch        meter.Snapshot           // transactions in them
	CommitErrors uint64                   // attempts that failed and were repeated
	Acquired     uint64                   // shards that were taken
	Lost         uint64                   // shards that others took away
	Given        uint64                   // shards that were handed over to others
	Shards       int                      // of the store, whoever owns them
	Live, Owed   int                      // in memory: started here, taken over from the store
	Limit        int                      // of Live
	Waiting      map[string]int           // transactions in memory that wait for a service, by its name
	Quotas       map[string]QuotaUse      // by namespace
}

// Stats returns the counts so far. It asks nobody.
func (e *Engine) Stats() Stats {
	m := e.meters
	return Stats{
		Started: m.started.All(), Finished: m.finished.All(), Stalled: m.stalled.Load(), Verbs: m.verbs.All(),
		Refused: m.refused.All(), Bulk: m.bulk.All(),
		Commit: m.commit.Snapshot(), Batch: m.batch.Snapshot(), CommitErrors: m.commitErrors.Load(),
		Acquired: m.acquired.Load(), Lost: m.lost.Load(), Given: m.given.Load(), Shards: e.shardCount,
		Live: e.started.count(), Owed: e.owed.count(), Limit: e.cfg.MaxLive, Waiting: e.waitingFor(),
		Quotas: e.quotas.all(),
	}
}

// waitingFor adds up both rooms.
func (e *Engine) waitingFor() map[string]int {
	all := e.started.waitingFor()
	for service, n := range e.owed.waitingFor() {
		all[service] += n
	}
	return all
}

func (r *room) waitingFor() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.waiting)
}

// Backlog is what a store holds that has not ended, of all namespaces and
// whoever owns it.
type Backlog struct {
	Unfinished map[Ending]int64 // by kind and the state that it is in
	Stalled    map[string]int64 // by kind
	Paused     map[string]int64 // by kind
	Oldest     map[string]time.Time
}

// Backlog asks the store. It looks at an index entry and a row for each
// unfinished transaction: don't ask often.
func (e *Engine) Backlog(ctx context.Context) (Backlog, error) {
	b := Backlog{Unfinished: map[Ending]int64{}, Stalled: map[string]int64{}, Paused: map[string]int64{}, Oldest: map[string]time.Time{}}
	yes := true
	for _, kind := range kinds {
		unfinished := store.Query{Kind: kind, Unfinished: true}
		states, err := e.store.Count(ctx, unfinished)
		if err != nil {
			return Backlog{}, unavailable(err)
		}
		for s, n := range states {
			b.Unfinished[Ending{kind, txn.State(s)}] = n
		}
		stalled, paused := unfinished, unfinished
		stalled.Stalled, paused.Paused = &yes, &yes
		if b.Stalled[kind], err = e.count(ctx, stalled); err != nil {
			return Backlog{}, err
		}
		if b.Paused[kind], err = e.count(ctx, paused); err != nil {
			return Backlog{}, err
		}
		unfinished.OldestFirst = true
		first, err := e.store.List(ctx, unfinished, nil, 1)
		if err != nil {
			return Backlog{}, unavailable(err)
		}
		if len(first) > 0 {
			b.Oldest[kind] = first[0].CreatedAt
		}
	}
	return b, nil
}

func (e *Engine) count(ctx context.Context, q store.Query) (n int64, err error) {
	states, err := e.store.Count(ctx, q)
	if err != nil {
		return 0, unavailable(err)
	}
	for _, c := range states {
		n += c
	}
	return n, nil
}
