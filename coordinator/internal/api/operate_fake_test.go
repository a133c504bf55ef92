package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// Act remembers the command, and writes one event.
func (e *fakeEngine) Act(ctx context.Context, cmd api.Command) (store.Record, error) {
	e.mu.Lock()
	e.cmd = cmd
	e.mu.Unlock()
	rec, err := e.Get(ctx, cmd.GID)
	if err != nil || cmd.ValidateOnly {
		return rec, err
	}
	if now := strconv.FormatInt(rec.Version, 10); cmd.ETag != "" && cmd.ETag != now {
		return rec, amendsv1.ErrETag.With("transaction %q is at %s", cmd.GID, now)
	}
	return e.write(ctx, rec, "acted")
}

// Legal says that whatever runs can be paused and its branches retried.
func (e *fakeEngine) Legal(rec store.Record) (whole []amendsv1.Verb, branches [][]amendsv1.Verb, err error) {
	if txn.State(rec.State).Finished() {
		return nil, nil, nil
	}
	d, err := saga.DecodeDefinition(rec.Definition)
	if err != nil {
		return nil, nil, err
	}
	for range d.Steps {
		branches = append(branches, []amendsv1.Verb{amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_SKIP_STEP})
	}
	return []amendsv1.Verb{amendsv1.Verb_VERB_PAUSE}, branches, nil
}

func (e *fakeEngine) StartBulk(ctx context.Context, b api.Bulk) (store.Record, bool, error) {
	def, err := json.Marshal(b)
	if err != nil {
		return store.Record{}, false, err
	}
	namespace, _, ok := wire.SplitBulk(b.ID)
	if !ok {
		return store.Record{}, false, fmt.Errorf("%q is no key of a bulk", b.ID)
	}
	rec, created, err := e.create(ctx, store.Record{
		GID: b.ID, Namespace: wire.BulkNamespace(namespace), Kind: wire.KindBulk, Name: "bulk", Definition: def, Body: []byte(`{}`),
	})
	if created {
		e.mu.Lock()
		e.bulks++
		e.mu.Unlock()
	}
	return rec, created, err
}

func (e *fakeEngine) CancelBulk(ctx context.Context, id, actor, reason string) (store.Record, error) {
	rec, err := e.Get(ctx, id)
	if err != nil {
		return rec, err
	}
	e.mu.Lock()
	e.actor = actor
	e.mu.Unlock()
	rec.State, rec.Reason = uint8(txn.RolledBack), reason
	return e.write(ctx, rec, "cancelled")
}

func (e *fakeEngine) BulkOf(rec store.Record) (b api.Bulk, p api.BulkProgress, err error) {
	if err := json.Unmarshal(rec.Definition, &b); err != nil {
		return b, p, err
	}
	b.ID = rec.GID
	return b, p, json.Unmarshal(rec.Body, &p)
}

func (e *fakeEngine) Rates(namespace string) (started, committed, rolledBack float64) {
	return float64(len(namespace)), 2, 3
}

func (e *fakeEngine) StallAfter() time.Duration { return time.Minute }
