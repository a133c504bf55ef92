package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/amends-dev/amends/coordinator/internal/api"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

func TestGet(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	for view, full := range map[amendsv1.TransactionView]bool{
		amendsv1.TransactionView_TRANSACTION_VIEW_UNSPECIFIED: false,
		amendsv1.TransactionView_TRANSACTION_VIEW_BASIC:       false,
		amendsv1.TransactionView_TRANSACTION_VIEW_FULL:        true,
	} {
		resp, err := h.admin.GetTransaction(t.Context(), &amendsv1.GetTransactionRequest{Gid: "g", View: view})
		noErr(t, err)
		b := resp.GetTransaction().GetBranches()
		if len(b) != 2 || b[0].GetPhase() != "DOING" || b[1].GetPhase() != "PENDING" || b[1].GetAfter()[0] != "debit" || (b[0].GetRequest() != nil) != full {
			t.Errorf("%v: %v", view, b)
		}
	}
	_, err := h.admin.GetTransaction(t.Context(), &amendsv1.GetTransactionRequest{Gid: "g", View: 9})
	wantErr(t, err, amendsv1.ErrInvalidArgument, "view 9")
	_, err = h.admin.GetTransaction(t.Context(), &amendsv1.GetTransactionRequest{Gid: "G"})
	wantErr(t, err, amendsv1.ErrNotFound, `"G"`)
}

func (h *host) pages(t *testing.T, filter string, size int32, between func(page int)) []string {
	t.Helper()
	var gids []string
	req := &amendsv1.ListTransactionsRequest{Filter: filter, PageSize: size}
	for page := 1; ; page++ {
		resp, err := h.admin.ListTransactions(t.Context(), req)
		noErr(t, err)
		if len(resp.GetTransactions()) > int(size) {
			t.Errorf("%d in a page of %d", len(resp.GetTransactions()), size)
		}
		for _, tx := range resp.GetTransactions() {
			gids = append(gids, tx.GetGid())
			if tx.GetBranches() != nil || tx.GetCreateTime() == nil {
				t.Errorf("%v", tx)
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return gids
		}
		if between != nil {
			between(page)
		}
	}
}

func TestList(t *testing.T) {
	h := newHost(t, api.Config{})
	var want []string
	for i := range 10 {
		req := transfer(fmt.Sprintf("g%d", i))
		req.Labels = map[string]string{"parity": fmt.Sprint(i % 2)}
		h.start(t, req)
		want = append(want, req.Gid)
	}
	h.moveTo(t, "g3", txn.Committed)
	h.moveTo(t, "g4", txn.RolledBack)
	slices.Reverse(want)
	for size := int32(1); size <= 11; size++ {
		if got := h.pages(t, "", size, nil); !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v", size, got)
		}
	}
	for filter, want := range map[string]string{
		`state = COMMITTED`:                              "g3",
		`unfinished = false`:                             "g4 g3",
		`unfinished = true AND labels.parity = "0"`:      "g8 g6 g2 g0",
		`create_time < "2026-11-01T00:00:03Z"`:           "g1 g0",
		`create_time > 2026-11-01T00:00:09Z`:             "g9",
		`kind = tcc`:                                     "",
		`name = transfer AND state != RUNNING`:           "g4 g3",
		`paused = true`:                                  "",
		`update_time < 2026-11-01T00:00:02Z`:             "g0",
		`labels.parity = 1 AND paused = false`:           "g9 g7 g5 g3 g1",
		`create_time <= 2026-11-01T00:00:01Z`:            "g0",
		`labels.parity = 1 AND labels.other = "nothing"`: "",
	} {
		if got := strings.Join(h.pages(t, filter, 3, nil), " "); got != want {
			t.Errorf("%s: %s, want %s", filter, got, want)
		}
	}
	got := h.pages(t, "", 3, func(page int) { h.start(t, transfer(fmt.Sprintf("new%d", page))) })
	if !slices.Equal(got, want) {
		t.Errorf("with starts between the pages: %v", got)
	}
}

func TestListRefuses(t *testing.T) {
	h := newHost(t, api.Config{})
	for i := range 3 {
		h.start(t, transfer(fmt.Sprint("g", i)))
	}
	first, err := h.admin.ListTransactions(t.Context(), &amendsv1.ListTransactionsRequest{PageSize: 1, Filter: "kind = saga"})
	noErr(t, err)
	for name, c := range map[string]struct {
		req  *amendsv1.ListTransactionsRequest
		err  *amendsv1.Error
		want string
	}{
		"corrupt token": {&amendsv1.ListTransactionsRequest{PageToken: "xyz"}, amendsv1.ErrPageToken, "not one of ours"},
		"other filter":  {&amendsv1.ListTransactionsRequest{PageToken: first.GetNextPageToken()}, amendsv1.ErrPageToken, "another list"},
		"unknown field": {&amendsv1.ListTransactionsRequest{Filter: "colour = red"}, amendsv1.ErrFilter, "state, kind, name"},
		"negative page": {&amendsv1.ListTransactionsRequest{PageSize: -1}, amendsv1.ErrInvalidArgument, "page_size is -1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.admin.ListTransactions(t.Context(), c.req)
			wantErr(t, err, c.err, c.want)
		})
	}
	_, err = h.admin.CountTransactions(t.Context(), &amendsv1.CountTransactionsRequest{Filter: "x = 1"})
	wantErr(t, err, amendsv1.ErrFilter, "unfinished")
	_, err = h.admin.ListEvents(t.Context(), &amendsv1.ListEventsRequest{Gid: "g0", PageToken: first.GetNextPageToken()})
	wantErr(t, err, amendsv1.ErrPageToken, "another list")
}

func TestPageSizes(t *testing.T) {
	h := newHost(t, api.Config{})
	for i := range 1002 {
		_, _, err := h.create(t.Context(), record(fmt.Sprintf("g%04d", i)))
		noErr(t, err)
	}
	for size, want := range map[int32]int{0: 50, 1: 1, 999: 999, 1000: 1000, 1001: 1000, 1 << 30: 1000} {
		resp, err := h.admin.ListTransactions(t.Context(), &amendsv1.ListTransactionsRequest{PageSize: size})
		noErr(t, err)
		if len(resp.GetTransactions()) != want || resp.GetNextPageToken() == "" {
			t.Errorf("page_size %d gives %d, want %d", size, len(resp.GetTransactions()), want)
		}
	}
}

// Pages of large transactions and events stay below what gRPC clients take.
func TestPagesAreBoundedInBytes(t *testing.T) {
	h := newHost(t, api.Config{})
	for i := range 3 {
		rec := record(fmt.Sprint("g", i))
		rec.Reason = strings.Repeat("x", 1500<<10)
		_, _, err := h.create(t.Context(), rec)
		noErr(t, err)
	}
	if got := h.pages(t, "", 1000, nil); !slices.Equal(got, []string{"g2", "g1", "g0"}) {
		t.Errorf("%v", got)
	}
	types := slices.Repeat([]string{strings.Repeat("t", 700<<10)}, 9)
	_, err := h.write(t.Context(), record("big"), types...)
	noErr(t, err)
	if got := h.seqs(t, "big", 1000); !slices.Equal(got, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("%v", got)
	}
}

func TestCount(t *testing.T) {
	h := newHost(t, api.Config{})
	for i, s := range []txn.State{txn.Running, txn.Running, txn.Committed, txn.Parked} {
		gid := fmt.Sprint("g", i)
		h.start(t, transfer(gid))
		if s != txn.Running {
			h.moveTo(t, gid, s)
		}
	}
	resp, err := h.admin.CountTransactions(t.Context(), &amendsv1.CountTransactionsRequest{})
	noErr(t, err)
	got := ""
	for _, c := range resp.GetCounts() {
		got += fmt.Sprintf("%v %d, ", c.GetState(), c.GetCount())
	}
	if got != "STATE_RUNNING 2, STATE_COMMITTED 1, STATE_PARKED 1, " || resp.GetTotal() != 4 {
		t.Errorf("%s in all %d", got, resp.GetTotal())
	}
	resp, err = h.admin.CountTransactions(t.Context(), &amendsv1.CountTransactionsRequest{Filter: "unfinished = true"})
	if noErr(t, err); resp.GetTotal() != 3 {
		t.Errorf("%v", resp)
	}
}

func (h *host) seqs(t *testing.T, gid string, size int32) []int64 {
	t.Helper()
	var seqs []int64
	req := &amendsv1.ListEventsRequest{Gid: gid, PageSize: size}
	for {
		resp, err := h.admin.ListEvents(t.Context(), req)
		noErr(t, err)
		for _, ev := range resp.GetEvents() {
			seqs = append(seqs, ev.GetSeq())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return seqs
		}
	}
}

func TestListEvents(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	for range 6 {
		h.moveTo(t, "g", txn.Running)
	}
	want := []int64{1, 2, 3, 4, 5, 6, 7}
	for size := int32(1); size <= 8; size++ {
		if got := h.seqs(t, "g", size); !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v", size, got)
		}
	}
	resp, err := h.admin.ListEvents(t.Context(), &amendsv1.ListEventsRequest{Gid: "g", PageSize: 1})
	noErr(t, err)
	ev := resp.GetEvents()[0]
	if ev.GetType() != "started" || ev.GetDetail().AsMap()["n"] != 1.0 || string(ev.GetData()) != `{"n":1}` || ev.GetGid() != "g" || ev.GetHash() == nil {
		t.Errorf("%v", ev)
	}
	_, err = h.admin.ListEvents(t.Context(), &amendsv1.ListEventsRequest{Gid: "other"})
	wantErr(t, err, amendsv1.ErrNotFound, `"other"`, "purged")
	_, err = h.admin.ListEvents(t.Context(), &amendsv1.ListEventsRequest{Gid: "g", PageToken: "?"})
	wantErr(t, err, amendsv1.ErrPageToken)
	h.start(t, transfer("h"))
	_, err = h.admin.ListEvents(t.Context(), &amendsv1.ListEventsRequest{Gid: "h", PageToken: resp.GetNextPageToken()})
	wantErr(t, err, amendsv1.ErrPageToken, "another list")
}
