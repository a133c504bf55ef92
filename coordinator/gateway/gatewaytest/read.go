package gatewaytest

import (
	"context"
	"slices"
	"strconv"
	"strings"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// GetTransaction implements AdminService.
func (c *Coordinator) GetTransaction(_ context.Context, req *amendsv1.GetTransactionRequest) (*amendsv1.GetTransactionResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx, err := c.find(req.GetGid())
	if err != nil {
		return nil, err
	}
	out := proto.CloneOf(tx.Transaction)
	if req.GetView() != amendsv1.TransactionView_TRANSACTION_VIEW_FULL {
		for _, b := range out.GetBranches() {
			b.Request, b.Reply = nil, nil
		}
	}
	return &amendsv1.GetTransactionResponse{Transaction: out}, nil
}

func (c *Coordinator) find(gid string) (*transaction, error) {
	if tx := c.byGID[gid]; tx != nil {
		return tx, nil
	}
	return nil, amendsv1.ErrNotFound.With("there is no transaction %q", gid)
}

// selected are the transactions of a filter, newest first.
func (c *Coordinator) selected(filter string) ([]*amendsv1.Transaction, error) {
	var found []*amendsv1.Transaction
	for _, gid := range slices.Backward(c.order) {
		tx := c.byGID[gid].Transaction
		ok, err := matches(tx, filter)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, tx)
		}
	}
	return found, nil
}

func matches(tx *amendsv1.Transaction, filter string) (bool, error) {
	if strings.TrimSpace(filter) == "" {
		return true, nil
	}
	for term := range strings.SplitSeq(filter, " AND ") {
		field, value, ok := strings.Cut(term, "=")
		if !ok {
			return false, amendsv1.ErrFilter.With("%q: a term is a field, an operator and a value", term)
		}
		want := strings.Trim(strings.TrimSpace(value), `"`)
		got, ok := fieldText(tx, strings.TrimSpace(field))
		if !ok {
			return false, amendsv1.ErrFilter.With("%s: no such field", strings.TrimSpace(field))
		}
		if got != want {
			return false, nil
		}
	}
	return true, nil
}

func fieldText(tx *amendsv1.Transaction, field string) (string, bool) {
	switch field {
	case "state":
		return strings.TrimPrefix(tx.GetState().String(), "STATE_"), true
	case "kind":
		return strings.ToLower(strings.TrimPrefix(tx.GetKind().String(), "KIND_")), true
	case "name":
		return tx.GetName(), true
	case "stalled":
		return strconv.FormatBool(tx.GetStalled()), true
	case "paused":
		return strconv.FormatBool(tx.GetPaused()), true
	case "unfinished":
		return strconv.FormatBool(tx.GetFinishTime() == nil), true
	case "participant":
		return tx.GetWaitsFor(), true
	}
	key, ok := strings.CutPrefix(field, "labels.")
	return tx.GetLabels()[key], ok
}

// ListTransactions implements AdminService. A page token is a number.
func (c *Coordinator) ListTransactions(_ context.Context, req *amendsv1.ListTransactionsRequest) (*amendsv1.ListTransactionsResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, err := c.selected(req.GetFilter())
	if err != nil {
		return nil, err
	}
	from, size := 0, int(req.GetPageSize())
	if req.GetPageToken() != "" {
		if from, err = strconv.Atoi(req.GetPageToken()); err != nil || from > len(all) {
			return nil, amendsv1.ErrPageToken
		}
	}
	if size == 0 {
		size = 50
	}
	resp := &amendsv1.ListTransactionsResponse{}
	for _, tx := range all[from:min(from+size, len(all))] {
		listed := proto.CloneOf(tx)
		listed.Branches, listed.Verbs = nil, nil
		resp.Transactions = append(resp.Transactions, listed)
	}
	if from+size < len(all) {
		resp.NextPageToken = strconv.Itoa(from + size)
	}
	return resp, nil
}

// CountTransactions implements AdminService.
func (c *Coordinator) CountTransactions(_ context.Context, req *amendsv1.CountTransactionsRequest) (*amendsv1.CountTransactionsResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, err := c.selected(req.GetFilter())
	if err != nil {
		return nil, err
	}
	count := map[amendsv1.State]int64{}
	for _, tx := range all {
		count[tx.GetState()]++
	}
	resp := &amendsv1.CountTransactionsResponse{Total: int64(len(all))}
	for s := amendsv1.State_STATE_RUNNING; s <= amendsv1.State_STATE_ABANDONED; s++ {
		if count[s] > 0 {
			resp.Counts = append(resp.Counts, &amendsv1.CountTransactionsResponse_StateCount{State: s, Count: count[s]})
		}
	}
	return resp, nil
}

// ListEvents implements AdminService, in one page.
func (c *Coordinator) ListEvents(_ context.Context, req *amendsv1.ListEventsRequest) (*amendsv1.ListEventsResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx, err := c.find(req.GetGid())
	if err != nil {
		return nil, err
	}
	return &amendsv1.ListEventsResponse{Events: slices.Clone(tx.events)}, nil
}

// WatchTransaction implements AdminService.
func (c *Coordinator) WatchTransaction(req *amendsv1.WatchTransactionRequest,
	stream grpc.ServerStreamingServer[amendsv1.WatchTransactionResponse],
) error {
	sent := int(req.GetAfterSeq())
	for {
		events, ended, changed, err := c.after(req.GetGid(), sent)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if err := stream.Send(&amendsv1.WatchTransactionResponse{Event: ev}); err != nil {
				return err
			}
			sent++
		}
		if ended {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (c *Coordinator) after(gid string, seq int) (events []*amendsv1.Event, ended bool, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx, err := c.find(gid)
	if err != nil {
		return nil, false, nil, err
	}
	return slices.Clone(tx.events[min(seq, len(tx.events)):]), tx.GetFinishTime() != nil, tx.changed, nil
}

// GetOverview implements ClusterService.
func (c *Coordinator) GetOverview(context.Context, *amendsv1.GetOverviewRequest) (*amendsv1.GetOverviewResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := &amendsv1.GetOverviewResponse{}
	if c.Overview != nil {
		resp = proto.CloneOf(c.Overview)
	}
	for _, gid := range c.order {
		tx := c.byGID[gid]
		if tx.GetFinishTime() != nil {
			continue
		}
		if at := resp.GetOldestCreateTime(); at == nil || tx.GetCreateTime().AsTime().Before(at.AsTime()) {
			resp.OldestGid, resp.OldestCreateTime = gid, tx.GetCreateTime()
		}
		tally(resp, tx.Transaction)
	}
	return resp, nil
}

func tally(to *amendsv1.GetOverviewResponse, tx *amendsv1.Transaction) {
	switch tx.GetState() {
	case amendsv1.State_STATE_RUNNING:
		to.Running++
	case amendsv1.State_STATE_COMMITTING:
		to.Committing++
	case amendsv1.State_STATE_ROLLING_BACK:
		to.RollingBack++
	case amendsv1.State_STATE_PARKED:
		to.Parked++
	default: // finished
	}
	if tx.GetStalled() {
		to.Stalled++
	}
	if tx.GetPaused() {
		to.Paused++
	}
}

// GetCluster implements ClusterService.
func (c *Coordinator) GetCluster(context.Context, *amendsv1.GetClusterRequest) (*amendsv1.GetClusterResponse, error) {
	if c.Cluster == nil {
		return &amendsv1.GetClusterResponse{}, nil
	}
	return c.Cluster, nil
}

// ListParticipants implements ClusterService.
func (c *Coordinator) ListParticipants(context.Context, *amendsv1.ListParticipantsRequest) (*amendsv1.ListParticipantsResponse, error) {
	return &amendsv1.ListParticipantsResponse{Participants: c.Participants}, nil
}

// WhoAmI implements ClusterService.
func (c *Coordinator) WhoAmI(ctx context.Context, _ *amendsv1.WhoAmIRequest) (*amendsv1.WhoAmIResponse, error) {
	who, err := c.caller(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return &amendsv1.WhoAmIResponse{
		Subject: who.Subject, Roles: who.Roles, Namespaces: []string{"*"}, Authenticated: len(c.callers) > 0,
	}, nil
}
