package api

import (
	"context"
	"errors"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"google.golang.org/protobuf/proto"
)

// Page sizes.
const (
	defaultTransactions = 50
	defaultEvents       = 100
	maxPage             = 1000
	maxPageBytes        = 2 << 20 // gRPC clients take 4 MiB unless told otherwise
)

// admin is AdminService.
type admin struct {
	amendsv1.UnimplementedAdminServiceServer
	*Server
}

// GetTransaction returns one transaction with its branches.
func (a *admin) GetTransaction(ctx context.Context, req *amendsv1.GetTransactionRequest) (
	*amendsv1.GetTransactionResponse, error) {
	key, err := a.key(ctx, req.GetGid())
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	view := req.GetView()
	if _, known := amendsv1.TransactionView_name[int32(view)]; !known {
		return nil, a.fail(ctx, amendsv1.ErrInvalidArgument.With("view %d is none that this coordinator knows", view))
	}
	rec, err := a.engine.Get(ctx, key)
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	tx, err := a.whole(rec, view == amendsv1.TransactionView_TRANSACTION_VIEW_FULL)
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	return &amendsv1.GetTransactionResponse{Transaction: tx}, nil
}

// whole is a record with its branches, and with what an operator can do to it.
func (a *admin) whole(rec store.Record, full bool) (*amendsv1.Transaction, error) {
	tx, err := wire.Transaction(rec, full, true)
	if err != nil {
		return nil, err
	}
	verbs, ofBranches, err := a.engine.Legal(rec)
	if err != nil {
		return nil, err
	}
	tx.Verbs = verbs
	for i := range min(len(tx.Branches), len(ofBranches)) {
		tx.Branches[i].Verbs = ofBranches[i]
	}
	return tx, nil
}

// pageSize applies default and maximum; more than the maximum gives the maximum.
func pageSize(asked int32, def int) (int, error) {
	switch {
	case asked < 0:
		return 0, amendsv1.ErrInvalidArgument.With("page_size is %d: it must not be negative", asked)
	case asked == 0:
		return def, nil
	}
	return min(int(asked), maxPage), nil
}

// fit is how many of msgs go into a page: at most size, at most maxPageBytes
// together, and one at least, so that every page gets on.
func fit[M proto.Message](msgs []M, size int) int {
	bytes := 0
	for i, m := range msgs {
		bytes += proto.Size(m)
		if i == size || i > 0 && bytes > maxPageBytes {
			return i
		}
	}
	return len(msgs)
}

// ListTransactions returns transactions, newest first.
func (a *admin) ListTransactions(ctx context.Context, req *amendsv1.ListTransactionsRequest) (
	*amendsv1.ListTransactionsResponse, error) {
	resp, err := a.listTransactions(ctx, req)
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	return resp, nil
}

func (a *admin) listTransactions(ctx context.Context, req *amendsv1.ListTransactionsRequest) (
	*amendsv1.ListTransactionsResponse, error) {
	c, err := a.caller(ctx)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize(), defaultTransactions)
	if err != nil {
		return nil, err
	}
	query, err := selected(c.Namespace, req.GetFilter())
	if err != nil {
		return nil, err
	}
	list := listID("transactions", c.Namespace, req.GetFilter())
	after, err := cursor(req.GetPageToken(), list, func(gid string) string { return wire.Key(c.Namespace, gid) })
	if err != nil {
		return nil, err
	}
	recs, err := a.store.List(ctx, query, after, size+1) // one more tells whether there is another page
	if err != nil {
		return nil, err
	}
	resp := &amendsv1.ListTransactionsResponse{}
	for _, rec := range recs {
		tx, err := wire.Transaction(rec, false, false)
		if err != nil {
			return nil, err
		}
		resp.Transactions = append(resp.Transactions, tx)
	}
	if n := fit(resp.Transactions, size); n < len(recs) {
		resp.Transactions = resp.Transactions[:n]
		_, gid := wire.Split(recs[n-1].GID)
		resp.NextPageToken, err = pageToken{Time: recs[n-1].CreatedAt, GID: gid}.encode(list)
	}
	return resp, err
}

// CountTransactions counts transactions by state.
func (a *admin) CountTransactions(ctx context.Context, req *amendsv1.CountTransactionsRequest) (
	*amendsv1.CountTransactionsResponse, error) {
	c, err := a.caller(ctx)
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	query, err := selected(c.Namespace, req.GetFilter())
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	counts, err := a.store.Count(ctx, query)
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	resp := &amendsv1.CountTransactionsResponse{Total: total(counts)}
	for s := txn.Running; s.Valid(); s++ {
		if n := counts[uint8(s)]; n > 0 {
			resp.Counts = append(resp.Counts, &amendsv1.CountTransactionsResponse_StateCount{State: wire.State(s), Count: n})
		}
	}
	return resp, nil
}

// total is how many there are in any state.
func total(counts map[uint8]int64) int64 {
	var sum int64
	for _, n := range counts {
		sum += n
	}
	return sum
}

// ListEvents returns the audit trail of one transaction, in order.
func (a *admin) ListEvents(ctx context.Context, req *amendsv1.ListEventsRequest) (*amendsv1.ListEventsResponse, error) {
	resp, err := a.listEvents(ctx, req)
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	return resp, nil
}

func (a *admin) listEvents(ctx context.Context, req *amendsv1.ListEventsRequest) (*amendsv1.ListEventsResponse, error) {
	key, err := a.key(ctx, req.GetGid())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize(), defaultEvents)
	if err != nil {
		return nil, err
	}
	list := listID("events", "", key)
	after, err := lastSeq(req.GetPageToken(), list)
	if err != nil {
		return nil, err
	}
	events, err := a.store.Events(ctx, key, after, size+1)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 { // nothing yet, or nothing any more?
		if _, err := a.load(ctx, key); err != nil {
			return nil, err
		}
	}
	resp := &amendsv1.ListEventsResponse{}
	for _, ev := range events {
		resp.Events = append(resp.Events, wire.Event(ev))
	}
	if n := fit(resp.Events, size); n < len(events) {
		resp.Events = resp.Events[:n]
		resp.NextPageToken, err = pageToken{Seq: events[n-1].Seq}.encode(list)
	}
	return resp, err
}

// load reads a transaction from the store, which any member can do, whoever
// owns the shard. What is not there may have been there: the error says so.
func (a *admin) load(ctx context.Context, key string) (store.Record, error) {
	rec, err := a.store.Load(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		_, gid := wire.Split(key)
		return rec, amendsv1.ErrNotFound.
			With("transaction %q: there is none, or it finished and was purged after the retention time", gid)
	}
	return rec, err
}
