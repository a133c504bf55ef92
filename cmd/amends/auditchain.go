package main

import (
	"bytes"
	"fmt"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// entry is one event of an audit trail.
type entry struct {
	gid              string
	seq              int64
	at               time.Time
	kind             string
	data, prev, hash []byte
}

// trail is the audit trail of one transaction, and the head that the
// transaction itself names: the number and hash of its last event.
type trail struct {
	namespace, gid string
	headSeq        int64
	headHash       []byte
	entries        []entry
}

// brokenLink is the first place at which a trail is not what was written.
type brokenLink struct {
	Namespace string `json:"namespace"`
	GID       string `json:"gid"`
	Seq       int64  `json:"seq"` // of the event, or of the one that should stand there
	Problem   string `json:"problem"`
}

func trailOf(tx *amendsv1.Transaction, events []*amendsv1.Event) *trail {
	t := &trail{namespace: tx.GetNamespace(), gid: tx.GetGid(), headSeq: tx.GetEventSeq(), headHash: tx.GetEventHash()}
	for _, e := range events {
		t.entries = append(t.entries, entry{
			gid: e.GetGid(), seq: e.GetSeq(), at: e.GetTime().AsTime(), kind: e.GetType(),
			data: e.GetData(), prev: e.GetPrevHash(), hash: e.GetHash(),
		})
	}
	return t
}

// complete reports whether the last event is the head.
func (t *trail) complete() bool {
	n := len(t.entries)
	if n == 0 {
		return t.headSeq == 0
	}
	last := t.entries[n-1]
	return last.seq == t.headSeq && bytes.Equal(last.hash, t.headHash)
}

// verify finds the first broken link; nil: there is none. Every hash is computed
// anew over the exact bytes of its event.
func (t *trail) verify() *brokenLink {
	var prev []byte
	for i, e := range t.entries {
		if problem := t.problem(e, int64(i)+1, prev); problem != "" {
			return t.broken(min(e.seq, int64(i)+1), problem)
		}
		prev = e.hash
	}
	n := int64(len(t.entries))
	switch {
	case n < t.headSeq:
		return t.broken(n+1, fmt.Sprintf("missing: the trail ends with event %d, and should with %d", n, t.headSeq))
	case n > t.headSeq:
		return t.broken(t.headSeq+1, fmt.Sprintf("put in: the trail should end with event %d", t.headSeq))
	case !bytes.Equal(prev, t.headHash):
		return t.broken(n, "changed: its hash is not the one that the transaction has for its last event")
	}
	return nil
}

// problem says what is wrong with the event that should have number want and
// follow one with the hash prev; empty: nothing.
func (t *trail) problem(e entry, want int64, prev []byte) string {
	computed := amendsv1.AuditHash(e.prev, t.namespace, t.gid, e.seq, e.at, e.kind, e.data)
	switch {
	case e.gid != t.gid:
		return fmt.Sprintf("belongs to transaction %q", e.gid)
	case e.seq > want:
		return fmt.Sprintf("missing: event %d comes next", e.seq)
	case e.seq < want:
		return fmt.Sprintf("out of order: event %d should come next", want)
	case !bytes.Equal(computed, e.hash):
		return "changed: its content does not match its hash"
	case !bytes.Equal(e.prev, prev) && want == 1:
		return "does not begin the trail: something stood before it"
	case !bytes.Equal(e.prev, prev):
		return fmt.Sprintf("does not follow event %d as that one is now: one of them was changed, removed or put in", want-1)
	}
	return ""
}

func (t *trail) broken(seq int64, problem string) *brokenLink {
	return &brokenLink{Namespace: t.namespace, GID: t.gid, Seq: seq, Problem: problem}
}
