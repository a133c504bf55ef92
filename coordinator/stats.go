package coordinator

import (
	"context"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/engine"
)

// Stats is what a coordinator did since it was made, and where it stands.
// Counts only grow; package metrics serves them to Prometheus. Kinds are
// "saga", "tcc" and "bulk", an operators' bulk being kept as a transaction is;
// states, operations and verbs have their names in lower case. Every fixed key
// is there from the start, with zero.
type Stats struct {
	Started      map[string]uint64  // by kind: became durable here
	Finished     map[StateOf]uint64 // ended here: committed, rolled_back or abandoned
	Stalled      uint64             // stalls that were noted here
	Verbs        map[string]uint64  // of operators, carried out here, bulks included: "retry_now"
	Refused      map[string]uint64  // starts and tries without room: "full", "crowded" by those that wait for one service, or "quota" of a namespace
	Bulk         map[string]uint64  // transactions that bulks met: "acted", "skipped" (not legal) or "failed"
	Calls        map[string]uint64  // by operation: handed to dispatch
	Retries      map[string]uint64  // by operation: those of Calls that were not a first attempt
	Outcomes     map[OutcomeOf]uint64
	Answers      map[string]Histogram // by operation: seconds from when an instance was given a call to its answer
	Commit       Histogram            // seconds until a batch of transitions was durable
	Batch        Histogram            // transactions in such a batch
	CommitErrors uint64               // attempts to commit that failed and were repeated
	Acquired     uint64               // shards that were taken
	Lost         uint64               // shards that another coordinator took away
	Given        uint64               // shards that were handed over to other coordinators
	Shards       int                  // of the store, whoever owns them
	Live         int                  // unfinished transactions in memory that were started here
	Owed         int                  // those that were taken over from the store
	MaxLive      int                  // the limit of Live
	Services     map[string]ServiceStats
	Quotas       map[string]QuotaStats // of namespaces that have one and have used it
	Forwarded    Forwarded
}

// Forwarded is what became of requests that belonged to another coordinator on
// the store.
type Forwarded struct {
	Sent     uint64 // to other coordinators, repetitions included
	Repeated uint64 // because their shard's owner was not known, not reached, or another one
	Failed   uint64 // found no owner in time
	Refused  uint64 // came here with a header that no coordinator of this store has made, or for another request
}

// QuotaStats is what a namespace takes of its auth.Quota.
type QuotaStats struct {
	auth.Quota
	Now     int    // unfinished transactions in memory
	Refused uint64 // starts
}

// StateOf is a kind of transaction and a state.
type StateOf struct{ Kind, State string }

// OutcomeOf is an operation ("do", "undo", "try", "confirm", "cancel") and how
// a call of it ended ("ok", "refused", "unknown").
type OutcomeOf struct{ Op, Outcome string }

// ServiceStats is what a coordinator knows of the participants of one name, in
// all namespaces together.
type ServiceStats struct {
	Instances    int // connected here
	Capacity     int // calls that they take at once
	Waiting      int // calls that no instance could take yet
	InFlight     int // calls under way
	Transactions int // in memory that wait for it, for a retry too
}

// Histogram is how many values were how large.
type Histogram struct {
	Bounds []float64 // upper bounds, inclusive, ascending
	Counts []uint64  // how many values were at most the bound of the same index
	Count  uint64    // of all values
	Sum    float64   // of all values
}

// Stats returns the counts so far. It asks nobody and is cheap.
func (c *Coordinator) Stats() Stats {
	e, d := c.engine.Stats(), c.hub.Stats()
	s := Stats{
		Started: e.Started, Finished: map[StateOf]uint64{}, Stalled: e.Stalled, Verbs: map[string]uint64{},
		Refused: e.Refused, Bulk: e.Bulk,
		Calls: map[string]uint64{}, Retries: map[string]uint64{}, Outcomes: map[OutcomeOf]uint64{}, Answers: map[string]Histogram{},
		Commit: Histogram(e.Commit), Batch: Histogram(e.Batch), CommitErrors: e.CommitErrors,
		Acquired: e.Acquired, Lost: e.Lost, Given: e.Given, Shards: e.Shards, Live: e.Live, Owed: e.Owed, MaxLive: e.Limit,
		Services: services(d.Services, e.Waiting), Quotas: map[string]QuotaStats{},
	}
	f := c.front.Stats()
	s.Forwarded = Forwarded{Sent: f.Sent, Repeated: f.Repeated, Failed: f.Failed, Refused: c.seal.Refused()}
	for namespace, u := range e.Quotas {
		s.Quotas[namespace] = QuotaStats{auth.Quota{Live: u.Live, StartsPerSecond: u.Rate, Burst: u.Burst}, u.Now, u.Refused}
	}
	for end, n := range e.Finished {
		s.Finished[stateOf(end)] = n
	}
	for verb, n := range e.Verbs {
		s.Verbs[strings.ToLower(strings.TrimPrefix(verb.String(), "VERB_"))] = n
	}
	for op, n := range d.Calls {
		s.Calls[op.String()] = n
	}
	for op, n := range d.Retries {
		s.Retries[op.String()] = n
	}
	for end, n := range d.Outcomes {
		s.Outcomes[OutcomeOf{end.Op.String(), end.Outcome.String()}] = n
	}
	for op, answers := range d.Answers {
		s.Answers[op.String()] = Histogram(answers)
	}
	return s
}

func stateOf(e engine.Ending) StateOf { return StateOf{e.Kind, strings.ToLower(e.State.String())} }

func services(all []dispatch.Service, waiting map[string]int) map[string]ServiceStats {
	out := map[string]ServiceStats{}
	for _, sv := range all {
		s := out[sv.Name]
		s.Instances += len(sv.Instances)
		s.Waiting += sv.Waiting
		s.InFlight += sv.InFlight
		for _, in := range sv.Instances {
			s.Capacity += in.Capacity
		}
		out[sv.Name] = s
	}
	for name, n := range waiting {
		s := out[name]
		s.Transactions = n
		out[name] = s
	}
	return out
}

// Backlog is what the store holds that has not ended: of all namespaces, and
// whichever coordinator drives it. The keys are those of Stats; what there is
// none of may be absent.
type Backlog struct {
	Unfinished map[StateOf]int64
	Stalled    map[string]int64     // by kind
	Paused     map[string]int64     // by kind
	Oldest     map[string]time.Time // by kind: when the oldest was started
}

// Backlog asks the store. That costs an index entry and a row for each
// unfinished transaction: ask every ten seconds, not every request. While the
// store does not answer it is an error, and nothing is known.
func (c *Coordinator) Backlog(ctx context.Context) (Backlog, error) {
	b, err := c.engine.Backlog(ctx)
	if err != nil {
		return Backlog{}, err
	}
	out := Backlog{Unfinished: map[StateOf]int64{}, Stalled: b.Stalled, Paused: b.Paused, Oldest: b.Oldest}
	for in, n := range b.Unfinished {
		out.Unfinished[stateOf(in)] = n
	}
	return out, nil
}
