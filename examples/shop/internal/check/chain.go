package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

// event is one entry of the coordinator's audit trail.
type event struct {
	gid, kind        string
	seq, at          int64 // at: microseconds since 1970
	data, prev, hash []byte
}

// auditChain: each entry of a trail holds the hash of the one before it, and
// the transaction holds the last one.
func auditChain(b *books) Invariant {
	var v verdict
	last := map[string]event{}
	for _, e := range b.events {
		before := last[e.gid] // the zero event before the first
		switch {
		case e.seq != before.seq+1:
			v.wrong("transaction %s: entry %d follows entry %d", e.gid, e.seq, before.seq)
		case !bytes.Equal(e.prev, before.hash):
			v.wrong("transaction %s: entry %d does not hold the hash of the one before", e.gid, e.seq)
		case !bytes.Equal(e.hash, e.digest()):
			v.wrong("transaction %s: entry %d is not what its hash says", e.gid, e.seq)
		}
		last[e.gid] = e
	}
	for gid, t := range b.transactions {
		if e := last[gid]; e.seq == 0 || e.seq != t.lastSeq || !bytes.Equal(e.hash, t.lastHash) {
			v.wrong("transaction %s: its trail ends at entry %d, want %d", gid, e.seq, t.lastSeq)
		}
	}
	return v.as("audit chains unbroken", "%d chains, %d entries", len(b.transactions), len(b.events))
}

// digest is SHA-256 over the entry's fields: bytes behind their length, numbers
// in 8 bytes.
func (e event) digest() []byte {
	var text []byte
	number := func(n int64) { text = binary.BigEndian.AppendUint64(text, uint64(n)) } //nolint:gosec // the bits are what counts
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
	return sum[:]
}
