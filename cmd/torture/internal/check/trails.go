package check

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
	"sort"
	"time"
)

// event is one entry of the audit trail.
type event struct {
	gid, kind        string
	shard            int
	seq, at          int64 // at: microseconds since 1970
	data, prev, hash []byte
}

// Struck is a coordinator that was killed, and what it owned.
type Struck struct {
	At     time.Time
	Shards []int
}

// link is the last entry of a trail.
type link struct {
	seq  int64
	hash string
}

// act is an operator's verb.
type act struct{ gid, verb string }

// trails reads the audit trails once, without keeping them.
type trails struct {
	verdict verdict
	n       int
	last    map[string]link
	acts    map[string]act // by request
	again   map[string]int // requests that stand there more than once

	struck []Struck
	owned  []map[int]bool // of each Struck
	first  []int64        // of each Struck: when a call of its shards was answered next; 0: never
}

func newTrails(struck []Struck) *trails {
	t := &trails{last: map[string]link{}, acts: map[string]act{}, again: map[string]int{}, struck: struck}
	for _, s := range struck {
		owned := map[int]bool{}
		for _, shard := range s.Shards {
			owned[shard] = true
		}
		t.owned = append(t.owned, owned)
	}
	t.first = make([]int64, len(struck))
	return t
}

// add takes the entries of all trails, each in its order.
func (t *trails) add(e event) {
	t.n++
	before := t.last[e.gid] // the zero link before the first
	switch {
	case e.seq != before.seq+1:
		t.verdict.wrong("%s: entry %d follows entry %d", e.gid, e.seq, before.seq)
	case string(e.prev) != before.hash:
		t.verdict.wrong("%s: entry %d does not hold the hash of the one before", e.gid, e.seq)
	case string(e.hash) != e.digest():
		t.verdict.wrong("%s: entry %d is not what its hash says", e.gid, e.seq)
	}
	t.last[e.gid] = link{e.seq, string(e.hash)}
	var said struct {
		Request string `json:"request_id"`
	}
	if json.Unmarshal(e.data, &said) == nil && said.Request != "" {
		if _, twice := t.acts[said.Request]; twice {
			t.again[said.Request]++
		}
		t.acts[said.Request] = act{e.gid, e.kind}
	}
	if e.kind == "replied" {
		t.resumed(e)
	}
}

// resumed notes the first call of a killed coordinator's shards that was answered
// after the kill: whoever killed it and whoever wrote the entry share a clock.
func (t *trails) resumed(e event) {
	for i, s := range t.struck {
		if t.owned[i][e.shard] && e.at > s.At.UnixMicro() && (t.first[i] == 0 || e.at < t.first[i]) {
			t.first[i] = e.at
		}
	}
}

// Pause is how long shards stood still after kills, in seconds.
type Pause struct {
	Kills  int     `json:"kills"` // of coordinators that owned shards
	Median float64 `json:"median_s"`
	Max    float64 `json:"max_s"`
	Never  int     `json:"never"` // kills after which no call of those shards was answered: there was no more to do
}

func (t *trails) pause() Pause {
	var p Pause
	var took []float64
	for i, s := range t.struck {
		switch {
		case len(s.Shards) == 0:
		case t.first[i] == 0:
			p.Kills++
			p.Never++
		default:
			p.Kills++
			took = append(took, float64(t.first[i]-s.At.UnixMicro())/1e6)
		}
	}
	if len(took) == 0 {
		return p
	}
	sort.Float64s(took)
	p.Median, p.Max = took[len(took)/2], slices.Max(took)
	return p
}

// digest is SHA-256 over the entry's fields: bytes behind their length, numbers
// in 8 bytes.
func (e event) digest() string {
	var text []byte
	number := func(n int64) { text = binary.BigEndian.AppendUint64(text, uint64(n)) }
	field := func(b []byte) {
		number(int64(len(b)))
		text = append(text, b...)
	}
	field(e.prev)
	field([]byte(e.gid))
	number(e.seq)
	number(e.at)
	field([]byte(e.kind))
	field(e.data)
	sum := sha256.Sum256(text)
	return string(sum[:])
}
