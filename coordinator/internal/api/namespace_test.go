package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// as is a context of a caller in a namespace.
func as(t *testing.T, namespace string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	if namespace == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, amendsv1.NamespaceHeader, namespace)
}

// tenants is a host where namespace acme has a saga g that waits for accounts,
// a TCC transaction t, a bulk b and a participant.
func tenants(t *testing.T) *host {
	h := newHost(t, api.Config{WatchPoll: time.Millisecond, Services: func(namespace string) []dispatch.Service {
		if namespace != "acme" {
			return nil
		}
		return []dispatch.Service{{Name: "accounts"}}
	}})
	ctx := as(t, "acme")
	_, err := h.tx.StartSaga(ctx, transfer("g"))
	noErr(t, err)
	rec, err := h.Get(ctx, "acme\x00g")
	noErr(t, err)
	rec.State, rec.Stalled, rec.WaitsFor = uint8(txn.Parked), true, "accounts" // parked: a wait ends at once
	_, err = h.write(ctx, rec)
	noErr(t, err)
	_, err = h.tx.BeginTcc(ctx, &amendsv1.BeginTccRequest{Gid: "t", Name: "trip"})
	noErr(t, err)
	_, err = h.ops.StartBulk(ctx, retryAll(func(r *amendsv1.StartBulkRequest) { r.RequestId = "b" }))
	noErr(t, err)
	h.try = func(context.Context, string, tcc.Branch) ([]byte, error) { return nil, nil }
	return h
}

// absent turns ErrNotFound into "not seen".
func absent(err error) (bool, error) {
	if errors.Is(amendsv1.FromError(err), amendsv1.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func pick[R any](_ R, err error) (bool, error) { return absent(err) }

// sights are whether a caller sees what namespace acme has, by RPC: all that
// there are, but for those that are about no namespace.
func sights(h *host) map[string]func(ctx context.Context) (seen bool, err error) {
	all := map[string]func(ctx context.Context) (bool, error){
		"StartSaga": func(ctx context.Context) (bool, error) {
			resp, err := h.tx.StartSaga(ctx, transfer("g"))
			return err == nil && !resp.GetCreated(), err
		},
		"BeginTcc": func(ctx context.Context) (bool, error) {
			resp, err := h.tx.BeginTcc(ctx, &amendsv1.BeginTccRequest{Gid: "t", Name: "trip"})
			return err == nil && !resp.GetCreated(), err
		},
		"TryBranch": func(ctx context.Context) (bool, error) {
			return pick(h.tx.TryBranch(ctx, &amendsv1.TryBranchRequest{Gid: "t", Branch: "b", Action: "a.b"}))
		},
		"CommitTcc": func(ctx context.Context) (bool, error) {
			return pick(h.tx.CommitTcc(ctx, &amendsv1.CommitTccRequest{Gid: "t"}))
		},
		"AbortTransaction": func(ctx context.Context) (bool, error) {
			return pick(h.tx.AbortTransaction(ctx, &amendsv1.AbortTransactionRequest{Gid: "g"}))
		},
		"WaitTransaction": func(ctx context.Context) (bool, error) {
			return pick(h.tx.WaitTransaction(ctx, &amendsv1.WaitTransactionRequest{Gid: "g"}))
		},
		"FindEnded": func(ctx context.Context) (bool, error) {
			resp, err := h.tx.FindEnded(ctx, &amendsv1.FindEndedRequest{Gids: []string{"g"}})
			return err == nil && len(resp.GetUnknown()) == 0, err
		},
		"GetTransaction": func(ctx context.Context) (bool, error) {
			return pick(h.admin.GetTransaction(ctx, &amendsv1.GetTransactionRequest{Gid: "g"}))
		},
		"ListTransactions": func(ctx context.Context) (bool, error) {
			seen := 0
			for _, filter := range []string{"", "name = transfer", "stalled = true", "participant = accounts", "unfinished = true", "kind = saga"} {
				resp, err := h.admin.ListTransactions(ctx, &amendsv1.ListTransactionsRequest{Filter: filter})
				if err != nil {
					return false, err
				}
				for _, tx := range resp.GetTransactions() {
					if tx.GetNamespace() != "acme" || strings.Contains(tx.GetGid(), "\x00") {
						return true, fmt.Errorf("listed: %v", tx)
					}
					seen++
				}
			}
			return seen > 0, nil
		},
		"CountTransactions": func(ctx context.Context) (bool, error) {
			resp, err := h.admin.CountTransactions(ctx, &amendsv1.CountTransactionsRequest{})
			return resp.GetTotal() > 0, err
		},
		"ListEvents": func(ctx context.Context) (bool, error) {
			return pick(h.admin.ListEvents(ctx, &amendsv1.ListEventsRequest{Gid: "g"}))
		},
		"WatchTransaction": func(ctx context.Context) (bool, error) {
			stream, err := h.admin.WatchTransaction(ctx, &amendsv1.WatchTransactionRequest{Gid: "g"})
			if err != nil {
				return false, err
			}
			ev, err := stream.Recv()
			if err == nil && ev.GetEvent().GetGid() != "g" || errors.Is(err, io.EOF) {
				return true, fmt.Errorf("watched: %v, %w", ev, err)
			}
			return absent(err)
		},
		"StartBulk": func(ctx context.Context) (bool, error) { // the same id, counting its transactions
			resp, err := h.ops.StartBulk(ctx, retryAll(func(r *amendsv1.StartBulkRequest) {
				r.RequestId, r.ValidateOnly = "b", true
			}))
			if err != nil || resp.GetBulk().GetActed() > 0 {
				return err == nil, err
			}
			started := h.bulks
			_, err = h.ops.StartBulk(ctx, retryAll(func(r *amendsv1.StartBulkRequest) { r.RequestId = "b" }))
			return h.bulks == started, err
		},
		"GetBulk": func(ctx context.Context) (bool, error) {
			return pick(h.ops.GetBulk(ctx, &amendsv1.GetBulkRequest{Id: "b"}))
		},
		"ListBulks": func(ctx context.Context) (bool, error) {
			resp, err := h.ops.ListBulks(ctx, &amendsv1.ListBulksRequest{})
			return len(resp.GetBulks()) > 0, err
		},
		"CancelBulk": func(ctx context.Context) (bool, error) {
			return pick(h.ops.CancelBulk(ctx, &amendsv1.CancelBulkRequest{Id: "b", Reason: "r"}))
		},
		"GetOverview": func(ctx context.Context) (bool, error) {
			resp, err := h.cluster.GetOverview(ctx, &amendsv1.GetOverviewRequest{})
			return resp.GetRunning()+resp.GetParked()+resp.GetStalled() > 0 || resp.GetOldestGid() != "" || resp.GetStartedRate() == 4, err
		},
		"ListParticipants": func(ctx context.Context) (bool, error) {
			resp, err := h.cluster.ListParticipants(ctx, &amendsv1.ListParticipantsRequest{})
			return len(resp.GetParticipants()) > 0, err
		},
	}
	for _, v := range verbs {
		all[v.rpc] = func(ctx context.Context) (bool, error) {
			return pick(h.call(ctx, v.rpc, request(v.req(), good("etag", ""))))
		}
	}
	return all
}

// Every RPC sees what is in the caller's namespace, and nothing else.
func TestNamespacesSeeNothingOfEachOther(t *testing.T) {
	for rpc := range sights(nil) {
		t.Run(rpc, func(t *testing.T) {
			h := tenants(t)
			for _, namespace := range []string{"other", "", "acme-2", "acme"} {
				seen, err := sights(h)[rpc](as(t, namespace))
				if noErr(t, err); seen != (namespace == "acme") {
					t.Errorf("in namespace %q: seen is %t", namespace, seen)
				}
			}
		})
	}
}

// Each RPC that there is was asked.
func TestEveryRPCKnowsNamespaces(t *testing.T) {
	about := sights(nil)
	for _, svc := range []grpc.ServiceDesc{
		amendsv1.TransactionService_ServiceDesc, amendsv1.AdminService_ServiceDesc, amendsv1.OperatorService_ServiceDesc,
		amendsv1.ClusterService_ServiceDesc,
	} {
		var names []string
		for _, m := range svc.Methods {
			names = append(names, m.MethodName)
		}
		for _, s := range svc.Streams {
			names = append(names, s.StreamName)
		}
		for _, name := range names {
			aboutMembers := name == "GetCluster" || name == "WhoAmI" || strings.HasSuffix(name, "Member") || name == "ListMembers"
			carries := name == "Converse" // the requests of the others, and is not served here
			if about[name] == nil && !aboutMembers && !carries {
				t.Errorf("%s.%s is not tested", svc.ServiceName, name)
			}
		}
	}
}

// One gid is another transaction in each namespace, up to its full length, and
// pages, errors and events show it as the caller knows it.
func TestSameGIDInEachNamespace(t *testing.T) {
	h := newHost(t, api.Config{})
	gid, long := strings.Repeat("x", 128), "n"+strings.Repeat("0", 61)
	for _, namespace := range []string{"", "a", long} {
		ctx := as(t, namespace)
		for i := range 3 {
			resp, err := h.tx.StartSaga(ctx, transfer(gid[i:]))
			noErr(t, err)
			if tx := resp.GetTransaction(); !resp.GetCreated() || tx.GetGid() != gid[i:] || tx.GetNamespace() != namespace {
				t.Errorf("%v", resp)
			}
		}
		id := strings.Repeat("b", 128)
		b, err := h.ops.StartBulk(ctx, retryAll(func(r *amendsv1.StartBulkRequest) { r.RequestId = id }))
		noErr(t, err)
		if b.GetBulk().GetId() != id {
			t.Errorf("%v", b)
		}
		first, err := h.admin.ListTransactions(ctx, &amendsv1.ListTransactionsRequest{PageSize: 2})
		noErr(t, err)
		next := &amendsv1.ListTransactionsRequest{PageSize: 2, PageToken: first.GetNextPageToken()}
		rest, err := h.admin.ListTransactions(ctx, next)
		noErr(t, err)
		if all := append(first.GetTransactions(), rest.GetTransactions()...); len(all) != 3 || all[2].GetGid() != gid {
			t.Errorf("%v", all)
		}
		_, err = h.admin.ListTransactions(as(t, "else"), next)
		wantErr(t, err, amendsv1.ErrPageToken, "namespace")
		events, err := h.admin.ListEvents(ctx, &amendsv1.ListEventsRequest{Gid: gid})
		noErr(t, err)
		if events.GetEvents()[0].GetGid() != gid {
			t.Errorf("%v", events)
		}
		_, err = h.admin.ListEvents(ctx, &amendsv1.ListEventsRequest{Gid: "none"})
		wantErr(t, err, amendsv1.ErrNotFound, `transaction "none"`)
		_, err = h.tx.CommitTcc(ctx, &amendsv1.CommitTccRequest{Gid: "none"})
		if e := wantErr(t, err, amendsv1.ErrNotFound, `"none"`); strings.Contains(e.Message, `\x00`) {
			t.Errorf("%q shows a key", e.Message)
		}
	}
}

func TestIllegalNamespaces(t *testing.T) {
	for name, about := range map[string]string{
		"upper": "Acme", "digit": "1a", "dash": "-a", "dot": "a.b", "long": "n" + strings.Repeat("0", 62), "space": "a b", "star": "*",
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, api.Config{})
			for rpc, see := range sights(h) {
				_, err := see(as(t, about))
				if e := wantErr(t, err, amendsv1.ErrInvalidArgument, "amends-namespace", "begins with a letter"); e.Metadata["field"] != amendsv1.NamespaceHeader {
					t.Errorf("%s: details %v", rpc, e.Metadata)
				}
			}
			_, err := h.cluster.GetCluster(as(t, about), &amendsv1.GetClusterRequest{})
			wantErr(t, err, amendsv1.ErrInvalidArgument)
			_, err = h.cluster.WhoAmI(as(t, about), &amendsv1.WhoAmIRequest{})
			wantErr(t, err, amendsv1.ErrInvalidArgument)
		})
	}
	ctx := metadata.AppendToOutgoingContext(as(t, "a"), amendsv1.NamespaceHeader, "b")
	_, err := newHost(t, api.Config{}).cluster.WhoAmI(ctx, &amendsv1.WhoAmIRequest{})
	wantErr(t, err, amendsv1.ErrInvalidArgument, `begins with a letter`)
}
