package api

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
)

const defaultBulks = 50 // on a page

// StartBulk stores a bulk durably, or counts what it would do.
func (o *operator) StartBulk(ctx context.Context, req *amendsv1.StartBulkRequest) (*amendsv1.StartBulkResponse, error) {
	bulk, err := o.startBulk(ctx, req)
	if err != nil {
		return nil, o.fail(ctx, err)
	}
	return &amendsv1.StartBulkResponse{Bulk: bulk}, nil
}

func (o *operator) startBulk(ctx context.Context, req *amendsv1.StartBulkRequest) (*amendsv1.Bulk, error) {
	c, err := o.caller(ctx)
	if err != nil {
		return nil, err
	}
	b, err := newBulk(c, req)
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		counts, err := o.store.Count(ctx, b.Query)
		if err != nil {
			return nil, err
		}
		return wireBulk(b, BulkProgress{Acted: total(counts)}, store.Record{}), nil
	}
	if req.GetRequestId() == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("api: making a bulk's id: %w", err)
		}
		b.ID = wire.BulkKey(c.Namespace, id.String())
	}
	rec, _, err := o.engine.StartBulk(ctx, b)
	return o.bulk(rec, err)
}

// newBulk checks a request. Without a request_id the bulk's id is empty.
func newBulk(c Caller, req *amendsv1.StartBulkRequest) (Bulk, error) {
	for _, err := range []error{
		checkBulkVerb(req.GetVerb()), allowVerb(c, req.GetVerb()),
		checkOperatorReason(req.GetReason()), checkRequestID(req.GetRequestId()),
	} {
		if err != nil {
			return Bulk{}, err
		}
	}
	rate, err := checkRate(req.GetRate())
	if err != nil {
		return Bulk{}, err
	}
	query, err := bulkQuery(c.Namespace, req.GetFilter())
	if err != nil {
		return Bulk{}, err
	}
	b := Bulk{
		Verb: req.GetVerb(), Filter: req.GetFilter(), Query: query, Rate: rate, Reason: req.GetReason(), Actor: c.Subject,
	}
	if id := req.GetRequestId(); id != "" {
		b.ID = wire.BulkKey(c.Namespace, id)
	}
	return b, nil
}

// bulkQuery is what a filter selects and a verb can act on: a namespace's
// history is no part of it, however wide the filter.
func bulkQuery(namespace, filter string) (store.Query, error) {
	if strings.TrimSpace(filter) == "" {
		return store.Query{}, invalid("filter", "is empty: to act on everything, write unfinished = true")
	}
	query, err := selected(namespace, filter)
	if err != nil {
		return store.Query{}, err
	}
	b := queryBuilder{q: query}
	if err := b.unfinished(term{op: "=", literal: "true"}); err != nil {
		return store.Query{}, invalid("filter", "selects finished transactions only, and no verb can act on one")
	}
	return b.query(), nil
}

// bulk is a bulk's record on the wire.
func (o *operator) bulk(rec store.Record, err error) (*amendsv1.Bulk, error) {
	if err != nil {
		return nil, err
	}
	b, progress, err := o.engine.BulkOf(rec)
	if err != nil {
		return nil, err
	}
	return wireBulk(b, progress, rec), nil
}

// wireBulk is a bulk on the wire; without a record, one that is yet to start.
func wireBulk(b Bulk, p BulkProgress, rec store.Record) *amendsv1.Bulk {
	namespace, id, _ := wire.SplitBulk(b.ID)
	return &amendsv1.Bulk{
		Id:         amendsv1.ValidText(id),
		Verb:       b.Verb,
		Filter:     amendsv1.ValidText(b.Filter),
		Rate:       b.Rate,
		Reason:     amendsv1.ValidText(b.Reason),
		Actor:      amendsv1.ValidText(b.Actor),
		State:      wire.BulkState(txn.State(rec.State)),
		Acted:      p.Acted,
		Skipped:    p.Skipped,
		Failed:     p.Failed,
		LastError:  amendsv1.ValidText(wire.Plain(namespace, p.LastError)),
		CreateTime: wire.Timestamp(rec.CreatedAt),
		UpdateTime: wire.Timestamp(rec.UpdatedAt),
		FinishTime: wire.Timestamp(rec.FinishedAt),
	}
}

// GetBulk returns one bulk and how far it is.
func (o *operator) GetBulk(ctx context.Context, req *amendsv1.GetBulkRequest) (*amendsv1.GetBulkResponse, error) {
	key, _, err := o.bulkKey(ctx, req.GetId())
	if err != nil {
		return nil, o.fail(ctx, err)
	}
	rec, err := o.store.Load(ctx, key)
	bulk, err := o.bulk(rec, missingBulk(req.GetId(), err))
	if err != nil {
		return nil, o.fail(ctx, err)
	}
	return &amendsv1.GetBulkResponse{Bulk: bulk}, nil
}

// CancelBulk stops a bulk.
func (o *operator) CancelBulk(ctx context.Context, req *amendsv1.CancelBulkRequest) (
	*amendsv1.CancelBulkResponse, error) {
	key, c, err := o.bulkKey(ctx, req.GetId())
	if err == nil {
		err = checkOperatorReason(req.GetReason())
	}
	if err != nil {
		return nil, o.fail(ctx, err)
	}
	rec, err := o.engine.CancelBulk(ctx, key, c.Subject, req.GetReason())
	bulk, err := o.bulk(rec, missingBulk(req.GetId(), err))
	if err != nil {
		return nil, o.fail(ctx, err)
	}
	return &amendsv1.CancelBulkResponse{Bulk: bulk}, nil
}

// bulkKey is the key of the caller's bulk.
func (o *operator) bulkKey(ctx context.Context, id string) (string, Caller, error) {
	c, err := o.caller(ctx)
	if err != nil {
		return "", c, err
	}
	if err := txn.CheckName("id", id); err != nil {
		return "", c, amendsv1.ErrInvalidArgument.With("%v", err).WithMetadata("field", "id")
	}
	return wire.BulkKey(c.Namespace, id), c, nil
}

func missingBulk(id string, err error) error {
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, amendsv1.ErrNotFound) {
		return amendsv1.ErrNotFound.With("bulk %q: there is none, or it ended and was purged after the retention time", id)
	}
	return err
}

// ListBulks returns bulks, newest first.
func (o *operator) ListBulks(ctx context.Context, req *amendsv1.ListBulksRequest) (*amendsv1.ListBulksResponse, error) {
	resp, err := o.listBulks(ctx, req)
	if err != nil {
		return nil, o.fail(ctx, err)
	}
	return resp, nil
}

func (o *operator) listBulks(ctx context.Context, req *amendsv1.ListBulksRequest) (*amendsv1.ListBulksResponse, error) {
	c, err := o.caller(ctx)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize(), defaultBulks)
	if err != nil {
		return nil, err
	}
	list := listID("bulks", c.Namespace, "")
	after, err := cursor(req.GetPageToken(), list, func(id string) string { return wire.BulkKey(c.Namespace, id) })
	if err != nil {
		return nil, err
	}
	namespace := wire.BulkNamespace(c.Namespace)
	recs, err := o.store.List(ctx, store.Query{Namespace: &namespace}, after, size+1)
	if err != nil {
		return nil, err
	}
	return o.bulkPage(ctx, recs, size, list)
}

// bulkPage reads each bulk whole, for a list has not what is in it. One that
// was purged meanwhile is left out.
func (o *operator) bulkPage(ctx context.Context, recs []store.Record, size int, list string) (
	*amendsv1.ListBulksResponse, error) {
	resp, n := &amendsv1.ListBulksResponse{}, 0
	for bytes := 0; n < min(size, len(recs)); n++ {
		rec, err := o.store.Load(ctx, recs[n].GID)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		bulk, err := o.bulk(rec, err)
		if err != nil {
			return nil, err
		}
		if bytes += proto.Size(bulk); len(resp.Bulks) > 0 && bytes > maxPageBytes {
			break
		}
		resp.Bulks = append(resp.Bulks, bulk)
	}
	if n == len(recs) {
		return resp, nil
	}
	_, id, _ := wire.SplitBulk(recs[n-1].GID) // a list of bulks has nothing else
	var err error
	resp.NextPageToken, err = pageToken{Time: recs[n-1].CreatedAt, GID: id}.encode(list)
	return resp, err
}
