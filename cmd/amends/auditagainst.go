package main

import (
	"bytes"
	"fmt"
)

// witness is what an earlier export says about the heads of trails: somebody who
// writes a trail anew, with every hash right, cannot make it end up at those.
type witness struct {
	heads map[[2]string]*entry // by namespace and gid; seq and hash count
	seen  int
}

// newWitness reads an export, which must be whole itself.
func newWitness(path string) (*witness, error) {
	if path == "" {
		return &witness{}, nil
	}
	w := &witness{heads: map[[2]string]*entry{}}
	err := readExport(path, func(t *trail) error {
		if b := t.verify(); b != nil {
			return fmt.Errorf("is broken itself: transaction %s, event %d: %s", printable(b.GID), b.Seq, b.Problem)
		}
		w.heads[[2]string{t.namespace, t.gid}] = &entry{seq: t.headSeq, hash: t.headHash}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("--against %s: %w", path, err)
	}
	return w, nil
}

// check finds the first broken link of a trail: in itself, or where it is not the
// one that was exported.
func (w *witness) check(t *trail) *brokenLink {
	was := w.heads[[2]string{t.namespace, t.gid}]
	if was != nil {
		w.seen++
	}
	if b := t.verify(); b != nil || was == nil {
		return b
	}
	switch n := int64(len(t.entries)); {
	case n < was.seq:
		return t.broken(n+1, fmt.Sprintf("missing: the export has %d events", was.seq))
	case !bytes.Equal(t.entries[was.seq-1].hash, was.hash):
		return t.broken(was.seq, "is not the one in the export: the trail was written anew")
	}
	return nil
}

// gone is how many exported transactions were not met again.
func (w *witness) gone() int { return len(w.heads) - w.seen }
