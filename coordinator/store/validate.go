package store

import (
	"errors"
	"fmt"
)

// The longest texts that a store keeps, in bytes.
const (
	MaxGID       = 192
	MaxNamespace = 63
	MaxWaitsFor  = 128
	MaxMember    = 255 // each of a member's texts
)

// SecretSize is the length of Store.Secret, in bytes.
const SecretSize = 32

// Validate reports what makes a member illegal, all of it: a name that is empty,
// a text over MaxMember bytes. Stores call it before they write.
func (m Member) Validate() error {
	var errs []error
	if m.Name == "" {
		errs = append(errs, errors.New("store: member: its name is empty: give the coordinator's name"))
	}
	for _, text := range []struct{ field, value string }{
		{"name", m.Name}, {"address", m.Address}, {"version", m.Version},
	} {
		if len(text.value) > MaxMember {
			errs = append(errs, fmt.Errorf("store: member %.32q: %s %.32q... is %d bytes long, at most %d are kept",
				m.Name, text.field, text.value, len(text.value), MaxMember))
		}
	}
	return errors.Join(errs...)
}

// Validate reports what makes a batch illegal, all of it: a lease or a
// transaction given twice, a write to a shard without its lease, a version
// below 1, a gid that is empty or over MaxGID bytes, a Namespace or WaitsFor
// over its bound, an event of another transaction or without a number. Stores
// call it before they write.
func (b Batch) Validate() error {
	var errs []error
	leased := make(map[int]bool, len(b.Leases))
	for _, l := range b.Leases {
		if leased[l.Shard] {
			errs = append(errs, fmt.Errorf("store: batch: shard %d is leased twice", l.Shard))
		}
		leased[l.Shard] = true
	}
	seen := make(map[string]bool, len(b.Writes))
	for i := range b.Writes {
		w := &b.Writes[i]
		if seen[w.Record.GID] {
			errs = append(errs, fmt.Errorf("store: batch: transaction %q is written twice", w.Record.GID))
		}
		seen[w.Record.GID] = true
		if !leased[w.Record.Shard] {
			errs = append(errs, fmt.Errorf("store: batch: transaction %q: no lease of its shard %d in the batch",
				w.Record.GID, w.Record.Shard))
		}
		errs = append(errs, w.validate())
	}
	return errors.Join(errs...)
}

func (w *Write) validate() error {
	gid := w.Record.GID
	switch {
	case gid == "":
		return errors.New("store: batch: a transaction has no gid")
	case len(gid) > MaxGID:
		return fmt.Errorf("store: batch: gid %.32q... is %d bytes long, at most %d are kept", gid, len(gid), MaxGID)
	case len(w.Record.Namespace) > MaxNamespace:
		return fmt.Errorf("store: batch: transaction %q: namespace %.32q... is %d bytes long, at most %d are kept",
			gid, w.Record.Namespace, len(w.Record.Namespace), MaxNamespace)
	case len(w.Record.WaitsFor) > MaxWaitsFor:
		return fmt.Errorf("store: batch: transaction %q: waits for %.32q..., %d bytes long, at most %d are kept",
			gid, w.Record.WaitsFor, len(w.Record.WaitsFor), MaxWaitsFor)
	case w.Record.Version < 1:
		return fmt.Errorf("store: batch: transaction %q: version is %d, the first is 1", gid, w.Record.Version)
	}
	for i := range w.Events {
		switch ev := &w.Events[i]; {
		case ev.GID != gid:
			return fmt.Errorf("store: batch: transaction %q: event %d is of transaction %q", gid, ev.Seq, ev.GID)
		case ev.Seq < 1:
			return fmt.Errorf("store: batch: transaction %q: event number is %d, the first is 1", gid, ev.Seq)
		}
	}
	return nil
}
