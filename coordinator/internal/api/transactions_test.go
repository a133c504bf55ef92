package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/tcc"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestBadConfig(t *testing.T) {
	_, err := api.New(nil, nil, nil, &api.Config{MaxPayload: -1, WatchPoll: -1})
	if err == nil || !strings.Contains(err.Error(), "MaxPayload") || !strings.Contains(err.Error(), "WatchPoll") {
		t.Errorf("%v must name both fields", err)
	}
}

func TestStartSaga(t *testing.T) {
	h := newHost(t, api.Config{})
	req := transfer("A-17")
	req.Labels = map[string]string{"order_id": "A-17"}
	resp, err := h.tx.StartSaga(t.Context(), req)
	noErr(t, err)
	tx := resp.GetTransaction()
	if !resp.GetCreated() || tx.GetGid() != "A-17" || tx.GetName() != "transfer" || tx.GetKind() != amendsv1.Kind_KIND_SAGA ||
		tx.GetState() != amendsv1.State_STATE_RUNNING || tx.GetEtag() != "1" || tx.GetLabels()["order_id"] != "A-17" || tx.GetBranches() != nil {
		t.Errorf("%v", resp)
	}
	again, err := h.tx.StartSaga(t.Context(), req)
	noErr(t, err)
	if again.GetCreated() || again.GetTransaction().GetEtag() != "1" {
		t.Errorf("the same start again: %v", again)
	}
	req.Steps[0].Payload = []byte("other")
	_, err = h.tx.StartSaga(t.Context(), req)
	wantErr(t, err, amendsv1.ErrGIDConflict, `"A-17"`)
}

// TestFull: a start for which there is no room is refused before anything else is
// looked at.
func TestFull(t *testing.T) {
	h := newHost(t, api.Config{})
	h.full = map[string]bool{"A-17": true}
	_, err := h.tx.StartSaga(t.Context(), &amendsv1.StartSagaRequest{Gid: "A-17"})
	_, err2 := h.tx.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{Gid: "A-17"})
	for _, err := range []error{err, err2} {
		if e := wantErr(t, err, amendsv1.ErrOverloaded, "try again"); e.RetryAfter != time.Second {
			t.Errorf("%v says to try again after %v", e, e.RetryAfter)
		}
	}
	_, err = h.tx.StartSaga(t.Context(), &amendsv1.StartSagaRequest{Gid: "A-18"})
	wantErr(t, err, amendsv1.ErrInvalidDefinition)
}

func TestServerMakesGID(t *testing.T) {
	h := newHost(t, api.Config{})
	one, two := h.start(t, transfer("")), h.start(t, transfer(""))
	for _, tx := range []*amendsv1.Transaction{one, two} {
		if id, err := uuid.Parse(tx.GetGid()); err != nil || id.Version() != 7 {
			t.Errorf("gid %q: %v", tx.GetGid(), err)
		}
	}
	if one.GetGid() == two.GetGid() {
		t.Error("two transactions have one gid")
	}
	tx, err := h.tx.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{Name: "trip"})
	noErr(t, err)
	if _, err := uuid.Parse(tx.GetTransaction().GetGid()); err != nil {
		t.Error(err)
	}
}

// Every RPC that takes a gid refuses an illegal one.
func TestIllegalGIDs(t *testing.T) {
	h := newHost(t, api.Config{})
	calls := map[string]func(gid string) error{
		"StartSaga": func(g string) error { _, err := h.tx.StartSaga(t.Context(), transfer(g)); return err },
		"BeginTcc": func(g string) error {
			_, err := h.tx.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{Gid: g, Name: "t"})
			return err
		},
		"TryBranch": func(g string) error {
			_, err := h.tx.TryBranch(t.Context(), &amendsv1.TryBranchRequest{Gid: g})
			return err
		},
		"CommitTcc": func(g string) error {
			_, err := h.tx.CommitTcc(t.Context(), &amendsv1.CommitTccRequest{Gid: g})
			return err
		},
		"Abort": func(g string) error {
			_, err := h.tx.AbortTransaction(t.Context(), &amendsv1.AbortTransactionRequest{Gid: g})
			return err
		},
		"Wait": func(g string) error {
			_, err := h.tx.WaitTransaction(t.Context(), &amendsv1.WaitTransactionRequest{Gid: g})
			return err
		},
		"Get": func(g string) error {
			_, err := h.admin.GetTransaction(t.Context(), &amendsv1.GetTransactionRequest{Gid: g})
			return err
		},
		"ListEvents": func(g string) error {
			_, err := h.admin.ListEvents(t.Context(), &amendsv1.ListEventsRequest{Gid: g})
			return err
		},
		"Watch": func(g string) error {
			s, err := h.admin.WatchTransaction(t.Context(), &amendsv1.WatchTransactionRequest{Gid: g})
			noErr(t, err)
			_, err = s.Recv()
			return err
		},
	}
	for rpc, call := range calls {
		for gid, want := range map[string]string{
			strings.Repeat("x", 129): "129 bytes", "a b": "space", "a\x00b": "control", "a\u2028b": "space", "": "empty",
		} {
			if gid == "" && (rpc == "StartSaga" || rpc == "BeginTcc") {
				continue
			}
			t.Run(fmt.Sprintf("%s %.9q", rpc, gid), func(t *testing.T) {
				wantErr(t, call(gid), amendsv1.ErrInvalidGID, want)
			})
		}
	}
	h.start(t, transfer(strings.Repeat("é", 64))) // 128 bytes
}

func TestPayloadLimit(t *testing.T) {
	for name, cfg := range map[string]api.Config{"default": {}, "small": {MaxPayload: 100}} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, cfg)
			limit := max(cfg.MaxPayload, 100)
			if name == "default" {
				limit = 1 << 20
			}
			req := transfer("just")
			req.Steps[1].Payload = make([]byte, limit)
			h.start(t, req)
			req = transfer("over")
			req.Steps[1].Payload = make([]byte, limit+1)
			_, err := h.tx.StartSaga(t.Context(), req)
			wantTooLarge(t, err, `steps[1].payload (step "credit")`, limit+1, limit)
			_, err = h.tx.TryBranch(t.Context(), &amendsv1.TryBranchRequest{
				Gid: "g", Branch: "seat", Action: "flights.seat", Payload: make([]byte, limit+1)})
			wantTooLarge(t, err, `payload (branch "seat")`, limit+1, limit)
			req = &amendsv1.StartSagaRequest{Name: "many"}
			for i := range 5 {
				req.Steps = append(req.Steps, &amendsv1.SagaStep{Name: fmt.Sprint(i), Action: "a.b", Payload: make([]byte, limit)})
			}
			_, err = h.tx.StartSaga(t.Context(), req)
			wantTooLarge(t, err, "the steps' payloads together", 5*limit, 4*limit)
		})
	}
}

func wantTooLarge(t *testing.T, err error, field string, size, limit int) {
	t.Helper()
	e := wantErr(t, err, amendsv1.ErrTooLarge, field, fmt.Sprint(size), fmt.Sprint(limit), "MaxPayload")
	if m := e.Metadata; m["field"] != field || m["size"] != fmt.Sprint(size) || m["limit"] != fmt.Sprint(limit) {
		t.Errorf("details %v", m)
	}
}

func TestUnknownAction(t *testing.T) {
	h := newHost(t, api.Config{})
	req := transfer("g")
	req.Steps[1].Action = "accounts.crdit"
	_, err := h.tx.StartSaga(t.Context(), req)
	e := wantErr(t, err, amendsv1.ErrUnknownAction, `"credit"`, `service "accounts"`, `"accounts.crdit"`)
	if e.Metadata["branch"] != "credit" || e.Metadata["action"] != "accounts.crdit" {
		t.Errorf("details %v", e.Metadata)
	}
	_, err = h.tx.TryBranch(t.Context(), &amendsv1.TryBranchRequest{Gid: "g", Branch: "b", Action: "accounts.crdit"})
	wantErr(t, err, amendsv1.ErrUnknownAction, `"b"`)
	req.Steps[1].Action = "nobody.is.here.yet" // may come later
	h.start(t, req)
}

// What a repeated start is told does not depend on who is connected now: the
// saga runs, and "invalid" would be taken for "never started".
func TestRepeatedStartWithActionThatIsGone(t *testing.T) {
	h := newHost(t, api.Config{})
	req := transfer("g")
	req.Steps[0].Action = "accounts.gone"
	_, err := h.tx.StartSaga(t.Context(), req)
	wantErr(t, err, amendsv1.ErrUnknownAction)
	startedBefore(t, h, req)
	resp, err := h.tx.StartSaga(t.Context(), req)
	noErr(t, err)
	if resp.GetCreated() {
		t.Error("started twice")
	}
}

// startedBefore starts req through a server that knows no participants.
func startedBefore(t *testing.T, h *host, req *amendsv1.StartSagaRequest) {
	t.Helper()
	srv, err := api.New(h.fakeEngine, h.st, nil, nil)
	noErr(t, err)
	_, err = amendsv1.NewTransactionServiceClient(dial(t, srv)).StartSaga(t.Context(), req)
	noErr(t, err)
}

func TestLabels(t *testing.T) {
	h := newHost(t, api.Config{})
	many := map[string]string{}
	for i := range 16 {
		many[fmt.Sprintf("k%d", i)] = strings.Repeat("v", 256)
	}
	req := transfer("ok")
	req.Labels = many
	h.start(t, req)
	for name, c := range map[string]struct {
		labels map[string]string
		want   []string
	}{
		"seventeen":  {with(many, "one_more", ""), []string{"there are 17, at most 16"}},
		"upper case": {map[string]string{"Order": "x"}, []string{`"Order"`}},
		"digit":      {map[string]string{"1a": "x"}, []string{`"1a"`}},
		"empty":      {map[string]string{"": "x"}, []string{`key ""`}},
		"line end":   {map[string]string{"a\n": "x"}, []string{`"a\n"`}},
		"long key":   {map[string]string{strings.Repeat("k", 64): "x"}, []string{"at most 63"}},
		"long value": {map[string]string{"k": strings.Repeat("v", 257)}, []string{`"k" has 257 bytes, at most 256`}},
		"all":        {map[string]string{"A": "x", "k": strings.Repeat("v", 300)}, []string{`"A"`, "300 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			req := transfer("bad")
			req.Labels = c.labels
			_, err := h.tx.StartSaga(t.Context(), req)
			wantErr(t, err, amendsv1.ErrInvalidArgument, append(c.want, "labels")...)
			_, err = h.tx.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{Name: "t", Labels: c.labels})
			wantErr(t, err, amendsv1.ErrInvalidArgument, c.want...)
		})
	}
}

func with(m map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range m {
		out[k] = v
	}
	return out
}

func TestInvalidDefinitions(t *testing.T) {
	h := newHost(t, api.Config{})
	req := transfer("g")
	req.Steps[0].After = []string{"credit"}
	_, err := h.tx.StartSaga(t.Context(), req)
	wantErr(t, err, amendsv1.ErrInvalidDefinition, `"debit"`, `"credit"`, "cycle")
	_, err = h.tx.StartSaga(t.Context(), &amendsv1.StartSagaRequest{Name: "none"})
	wantErr(t, err, amendsv1.ErrInvalidDefinition, "at least one step")
	_, err = h.tx.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{Name: "t", Timeout: durationpb.New(-time.Second)})
	wantErr(t, err, amendsv1.ErrInvalidDefinition, "timeout")
	_, err = h.tx.TryBranch(t.Context(), &amendsv1.TryBranchRequest{Gid: "g", Branch: "b", Action: "seat"})
	wantErr(t, err, amendsv1.ErrInvalidArgument, "action")
}

func TestTCC(t *testing.T) {
	h := newHost(t, api.Config{})
	resp, err := h.tx.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{Gid: "trip-1", Name: "trip"})
	noErr(t, err)
	if !resp.GetCreated() || resp.GetTransaction().GetKind() != amendsv1.Kind_KIND_TCC {
		t.Errorf("%v", resp)
	}
	h.try = func(_ context.Context, gid string, b tcc.Branch) ([]byte, error) {
		return []byte(gid + "/" + b.Name + "/" + b.Action + "/" + string(b.Payload)), nil
	}
	req := &amendsv1.TryBranchRequest{Gid: "trip-1", Branch: "seat", Action: "flights.seat", Payload: []byte("p")}
	reply, err := h.tx.TryBranch(t.Context(), req)
	if noErr(t, err); string(reply.GetReply()) != "trip-1/seat/flights.seat/p" {
		t.Errorf("%q", reply.GetReply())
	}
	h.try = func(context.Context, string, tcc.Branch) ([]byte, error) {
		return nil, amendsv1.ErrRefused.With("full \xff").WithMetadata("branch", "seat")
	}
	_, err = h.tx.TryBranch(t.Context(), req)
	if e := wantErr(t, err, amendsv1.ErrRefused, `full \xff`); e.Metadata["branch"] != "seat" {
		t.Errorf("%+v", e)
	}
	done, err := h.tx.CommitTcc(t.Context(), &amendsv1.CommitTccRequest{Gid: "trip-1"})
	if noErr(t, err); done.GetTransaction().GetState() != amendsv1.State_STATE_COMMITTING {
		t.Errorf("%v", done)
	}
}

func TestAbort(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	resp, err := h.tx.AbortTransaction(t.Context(), &amendsv1.AbortTransactionRequest{Gid: "g", Reason: "customer: called"})
	noErr(t, err)
	tx := resp.GetTransaction()
	if tx.GetState() != amendsv1.State_STATE_ROLLING_BACK || tx.GetCause().GetCode() != "ABORTED" || tx.GetCause().GetMessage() != "customer: called" {
		t.Errorf("%v", tx)
	}
	if h.actor == "" || h.actor == "unknown" {
		t.Errorf("actor %q: the caller's address is known", h.actor)
	}
	_, err = h.tx.AbortTransaction(t.Context(), &amendsv1.AbortTransactionRequest{Gid: "g", Reason: strings.Repeat("x", 4097)})
	wantErr(t, err, amendsv1.ErrInvalidArgument, "reason has 4097 bytes")
	_, err = h.tx.AbortTransaction(t.Context(), &amendsv1.AbortTransactionRequest{Gid: "other"})
	wantErr(t, err, amendsv1.ErrNotFound, `"other"`)
}
