package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/google/uuid"
)

func retryAll(change func(*amendsv1.StartBulkRequest)) *amendsv1.StartBulkRequest {
	req := &amendsv1.StartBulkRequest{
		Verb: amendsv1.Verb_VERB_RETRY_NOW, Filter: "participant = accounts", Reason: "accounts is back", RequestId: "b-1",
	}
	if change != nil {
		change(req)
	}
	return req
}

func TestStartBulk(t *testing.T) {
	h := newHost(t, api.Config{Caller: func(context.Context) api.Caller { return api.Caller{Subject: "alice", Namespace: "acme"} }})
	resp, err := h.ops.StartBulk(t.Context(), retryAll(nil))
	noErr(t, err)
	b := resp.GetBulk()
	if b.GetId() != "b-1" || b.GetVerb() != amendsv1.Verb_VERB_RETRY_NOW || b.GetFilter() != "participant = accounts" || b.GetRate() != 50 ||
		b.GetReason() != "accounts is back" || b.GetActor() != "alice" || b.GetState() != amendsv1.BulkState_BULK_STATE_RUNNING ||
		b.GetCreateTime() == nil || b.GetUpdateTime() == nil || b.GetFinishTime() != nil {
		t.Errorf("%v", b)
	}
	rec, err := h.st.Load(t.Context(), "acme\x00\x02b-1")
	noErr(t, err)
	told, _, err := h.BulkOf(rec)
	noErr(t, err)
	acme := "acme"
	want := api.Bulk{
		ID: "acme\x00\x02b-1", Verb: amendsv1.Verb_VERB_RETRY_NOW, Filter: "participant = accounts", Rate: 50,
		Reason: "accounts is back", Actor: "alice", Query: store.Query{Namespace: &acme, Unfinished: true, WaitsFor: "accounts"},
	}
	if !reflect.DeepEqual(told, want) {
		t.Errorf("the engine is told\n%+v, want\n%+v", told, want)
	}
	again, err := h.ops.StartBulk(t.Context(), retryAll(nil))
	noErr(t, err)
	if again.GetBulk().GetId() != "b-1" || h.bulks != 1 {
		t.Errorf("%v, %d bulks", again, h.bulks)
	}
	for range 2 { // without an id, each is another
		own, err := h.ops.StartBulk(t.Context(), retryAll(func(r *amendsv1.StartBulkRequest) { r.RequestId, r.Rate = "", 0.5 }))
		noErr(t, err)
		if id, err := uuid.Parse(own.GetBulk().GetId()); err != nil || id.Version() != 7 || own.GetBulk().GetRate() != 0.5 {
			t.Errorf("%v: %v", own, err)
		}
	}
	if h.bulks != 3 {
		t.Errorf("%d bulks", h.bulks)
	}
}

// What a verb can act on is unfinished, whatever else the filter leaves.
func TestBulkLeavesHistoryAlone(t *testing.T) {
	for filter, want := range map[string]store.Query{
		`unfinished = true`: {Unfinished: true},
		`name = transfer`:   {Unfinished: true, Name: "transfer"},
		`state = PARKED`:    {Unfinished: true, States: []uint8{6}},
		`state != RUNNING`:  {Unfinished: true, States: []uint8{2, 3, 6}},
		`stalled = true AND participant = a AND kind = tcc`: {Unfinished: true, Stalled: new(true), WaitsFor: "a", Kind: "tcc"},
	} {
		h := newHost(t, api.Config{})
		_, err := h.ops.StartBulk(t.Context(), retryAll(func(r *amendsv1.StartBulkRequest) { r.Filter = filter }))
		noErr(t, err)
		rec, err := h.st.Load(t.Context(), wire.BulkKey("", "b-1"))
		noErr(t, err)
		got, _, err := h.BulkOf(rec)
		noErr(t, err)
		if want.Namespace = new(""); !reflect.DeepEqual(got.Query, want) {
			t.Errorf("%s selects %+v, want %+v", filter, got.Query, want)
		}
	}
}

func TestBulkVerbs(t *testing.T) {
	h := newHost(t, api.Config{})
	for n := range amendsv1.Verb_name {
		verb := amendsv1.Verb(n)
		_, err := h.ops.StartBulk(t.Context(), retryAll(func(r *amendsv1.StartBulkRequest) { r.Verb, r.RequestId = verb, "" }))
		switch verb {
		case amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_ABORT, amendsv1.Verb_VERB_PAUSE, amendsv1.Verb_VERB_RESUME,
			amendsv1.Verb_VERB_ABANDON:
			noErr(t, err)
		default:
			wantErr(t, err, amendsv1.ErrInvalidArgument, "verb is "+strings.TrimPrefix(verb.String(), "VERB_"), "RETRY_NOW, ABORT, PAUSE, RESUME, ABANDON")
		}
	}
}

func TestStartBulkRefuses(t *testing.T) {
	h := newHost(t, api.Config{})
	type change = func(*amendsv1.StartBulkRequest)
	for name, c := range map[string]struct {
		change change
		err    error
		field  string
		want   string
	}{
		"verb 99":       {func(r *amendsv1.StartBulkRequest) { r.Verb = 99 }, amendsv1.ErrInvalidArgument, "verb", "verb is 99"},
		"no reason":     {func(r *amendsv1.StartBulkRequest) { r.Reason = "" }, amendsv1.ErrInvalidArgument, "reason", "say why"},
		"long reason":   {func(r *amendsv1.StartBulkRequest) { r.Reason = strings.Repeat("x", 1025) }, amendsv1.ErrInvalidArgument, "reason", "1025"},
		"bad id":        {func(r *amendsv1.StartBulkRequest) { r.RequestId = "a b" }, amendsv1.ErrInvalidArgument, "request_id", "space"},
		"long id":       {func(r *amendsv1.StartBulkRequest) { r.RequestId = strings.Repeat("x", 129) }, amendsv1.ErrInvalidArgument, "request_id", "129"},
		"negative rate": {func(r *amendsv1.StartBulkRequest) { r.Rate = -1 }, amendsv1.ErrInvalidArgument, "rate", "rate is -1, want 0 (50)"},
		"fast":          {func(r *amendsv1.StartBulkRequest) { r.Rate = 1000.5 }, amendsv1.ErrInvalidArgument, "rate", "1000"},
		"all but none":  {func(r *amendsv1.StartBulkRequest) { r.Rate = 1e-300 }, amendsv1.ErrInvalidArgument, "rate", "0.001 to 1000"},
		"no number":     {func(r *amendsv1.StartBulkRequest) { r.Rate = math.NaN() }, amendsv1.ErrInvalidArgument, "rate", "NaN"},
		"infinite":      {func(r *amendsv1.StartBulkRequest) { r.Rate = math.Inf(-1) }, amendsv1.ErrInvalidArgument, "rate", "-Inf"},
		"no filter":     {func(r *amendsv1.StartBulkRequest) { r.Filter = "" }, amendsv1.ErrInvalidArgument, "filter", "unfinished = true"},
		"blank filter":  {func(r *amendsv1.StartBulkRequest) { r.Filter = " \n" }, amendsv1.ErrInvalidArgument, "filter", "unfinished = true"},
		"bad filter":    {func(r *amendsv1.StartBulkRequest) { r.Filter = "colour = red" }, amendsv1.ErrFilter, "colour", "the fields are"},
		"long filter":   {func(r *amendsv1.StartBulkRequest) { r.Filter = strings.Repeat("x", 4097) }, amendsv1.ErrFilter, "", "4096"},
		"only history":  {func(r *amendsv1.StartBulkRequest) { r.Filter = "state = COMMITTED" }, amendsv1.ErrInvalidArgument, "filter", "finished"},
	} {
		for _, dry := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %t", name, dry), func(t *testing.T) {
				req := retryAll(c.change)
				req.ValidateOnly = dry
				_, err := h.ops.StartBulk(t.Context(), req)
				if e := wantErr(t, err, c.err, c.want); e.Metadata["field"] != c.field {
					t.Errorf("details %v must name %q", e.Metadata, c.field)
				}
			})
		}
	}
	if h.bulks != 0 {
		t.Errorf("%d bulks were started", h.bulks)
	}
	_, err := h.ops.StartBulk(t.Context(), retryAll(func(r *amendsv1.StartBulkRequest) { r.Rate = 1000 }))
	noErr(t, err)
	h.err = amendsv1.ErrRequestConflict.With("bulk %q", wire.BulkKey("", "b-1"))
	_, err = h.ops.StartBulk(t.Context(), retryAll(nil))
	wantErr(t, err, amendsv1.ErrRequestConflict, `bulk "b-1"`)
}

// A dry run counts, and starts nothing.
func TestDryRunCounts(t *testing.T) {
	h := newHost(t, api.Config{})
	for i, s := range []txn.State{txn.Running, txn.Running, txn.Parked, txn.Committed} {
		gid := fmt.Sprint("g", i)
		h.start(t, transfer(gid))
		h.moveTo(t, gid, s)
	}
	for filter, want := range map[string]int64{"name = transfer": 3, "state = PARKED": 1, "name = other": 0} {
		for _, id := range []string{"", "b-1"} {
			resp, err := h.ops.StartBulk(t.Context(), retryAll(func(r *amendsv1.StartBulkRequest) {
				r.Filter, r.ValidateOnly, r.RequestId = filter, true, id
			}))
			noErr(t, err)
			b := resp.GetBulk()
			if b.GetActed() != want || b.GetId() != id || b.GetState() != 0 || b.GetCreateTime() != nil || b.GetRate() != 50 {
				t.Errorf("%s: %v", filter, b)
			}
		}
	}
	if h.bulks != 0 {
		t.Errorf("%d bulks were started", h.bulks)
	}
}

func TestGetAndCancelBulk(t *testing.T) {
	h := newHost(t, api.Config{})
	_, err := h.ops.StartBulk(t.Context(), retryAll(nil))
	noErr(t, err)
	key := wire.BulkKey("", "b-1")
	rec, err := h.st.Load(t.Context(), key)
	noErr(t, err)
	rec.Body, err = json.Marshal(api.BulkProgress{Acted: 1, Skipped: 2, Failed: 3, LastError: fmt.Sprintf("transaction %q: \xff", "g")})
	noErr(t, err)
	_, err = h.write(t.Context(), rec, "progress")
	noErr(t, err)
	got, err := h.ops.GetBulk(t.Context(), &amendsv1.GetBulkRequest{Id: "b-1"})
	noErr(t, err)
	if b := got.GetBulk(); b.GetActed() != 1 || b.GetSkipped() != 2 || b.GetFailed() != 3 || !strings.HasPrefix(b.GetLastError(), `transaction "g"`) {
		t.Errorf("%v", b)
	}
	cancelled, err := h.ops.CancelBulk(t.Context(), &amendsv1.CancelBulkRequest{Id: "b-1", Reason: "enough"})
	noErr(t, err)
	if b := cancelled.GetBulk(); b.GetState() != amendsv1.BulkState_BULK_STATE_CANCELLED || b.GetFinishTime() == nil || b.GetActed() != 1 {
		t.Errorf("%v", b)
	}
	for id, want := range map[string]string{"": "id is empty", "a b": "space", strings.Repeat("x", 129): "129 bytes", "\x02b-1": "control"} {
		_, err := h.ops.GetBulk(t.Context(), &amendsv1.GetBulkRequest{Id: id})
		e := wantErr(t, err, amendsv1.ErrInvalidArgument, want)
		_, err = h.ops.CancelBulk(t.Context(), &amendsv1.CancelBulkRequest{Id: id, Reason: "r"})
		wantErr(t, err, amendsv1.ErrInvalidArgument, want)
		if e.Metadata["field"] != "id" {
			t.Errorf("details %v", e.Metadata)
		}
	}
	_, err = h.ops.GetBulk(t.Context(), &amendsv1.GetBulkRequest{Id: "none"})
	wantErr(t, err, amendsv1.ErrNotFound, `bulk "none"`, "purged")
	_, err = h.ops.CancelBulk(t.Context(), &amendsv1.CancelBulkRequest{Id: "none", Reason: "r"})
	wantErr(t, err, amendsv1.ErrNotFound, `bulk "none"`)
	_, err = h.ops.CancelBulk(t.Context(), &amendsv1.CancelBulkRequest{Id: "b-1"})
	wantErr(t, err, amendsv1.ErrInvalidArgument, "reason is empty")
}

// A bulk is no transaction: nothing that is about those meets it.
func TestBulksAreNoTransactions(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	_, err := h.ops.StartBulk(t.Context(), retryAll(nil))
	noErr(t, err)
	if got := h.pages(t, "", 10, nil); !slices.Equal(got, []string{"g"}) {
		t.Errorf("listed: %q", got)
	}
	n, err := h.admin.CountTransactions(t.Context(), &amendsv1.CountTransactionsRequest{})
	if noErr(t, err); n.GetTotal() != 1 {
		t.Errorf("counted: %v", n)
	}
	o, err := h.cluster.GetOverview(t.Context(), &amendsv1.GetOverviewRequest{})
	if noErr(t, err); o.GetRunning() != 1 || o.GetOldestGid() != "g" {
		t.Errorf("%v", o)
	}
	dry, err := h.ops.StartBulk(t.Context(), retryAll(func(r *amendsv1.StartBulkRequest) { r.Filter, r.ValidateOnly = "unfinished = true", true }))
	if noErr(t, err); dry.GetBulk().GetActed() != 1 {
		t.Errorf("%v", dry)
	}
	list, err := h.ops.ListBulks(t.Context(), &amendsv1.ListBulksRequest{})
	if noErr(t, err); len(list.GetBulks()) != 1 {
		t.Errorf("%v", list)
	}
}

func (h *host) bulkPages(t *testing.T, size int32) []string {
	t.Helper()
	var ids []string
	req := &amendsv1.ListBulksRequest{PageSize: size}
	for {
		resp, err := h.ops.ListBulks(t.Context(), req)
		noErr(t, err)
		if len(resp.GetBulks()) > int(size) {
			t.Errorf("%d in a page of %d", len(resp.GetBulks()), size)
		}
		for _, b := range resp.GetBulks() {
			ids = append(ids, b.GetId())
			if b.GetFilter() != "participant = accounts" {
				t.Errorf("%v", b)
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return ids
		}
	}
}

func TestListBulks(t *testing.T) {
	h := newHost(t, api.Config{})
	var want []string
	for i := range 7 {
		id := fmt.Sprint("b", i)
		_, err := h.ops.StartBulk(t.Context(), retryAll(func(r *amendsv1.StartBulkRequest) { r.RequestId = id }))
		noErr(t, err)
		want = append(want, id)
	}
	slices.Reverse(want)
	for size := int32(1); size <= 8; size++ {
		if got := h.bulkPages(t, size); !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v", size, got)
		}
	}
	first, err := h.ops.ListBulks(t.Context(), &amendsv1.ListBulksRequest{PageSize: 1})
	noErr(t, err)
	_, err = h.admin.ListTransactions(t.Context(), &amendsv1.ListTransactionsRequest{PageToken: first.GetNextPageToken()})
	wantErr(t, err, amendsv1.ErrPageToken, "another list")
	_, err = h.ops.ListBulks(t.Context(), &amendsv1.ListBulksRequest{PageToken: "xyz"})
	wantErr(t, err, amendsv1.ErrPageToken)
	_, err = h.ops.ListBulks(t.Context(), &amendsv1.ListBulksRequest{PageSize: -1})
	wantErr(t, err, amendsv1.ErrInvalidArgument, "page_size is -1")
}

// forgetful purges what ended between a page's list and its reads.
type forgetful struct{ store.Store }

func (f forgetful) Load(ctx context.Context, gid string) (store.Record, error) {
	if _, err := f.Purge(ctx, time.Now().AddDate(10, 0, 0), 10); err != nil {
		return store.Record{}, err
	}
	return f.Store.Load(ctx, gid)
}

func TestListBulksPurgedInBetween(t *testing.T) {
	h := newHost(t, api.Config{})
	for i := range 4 {
		id := fmt.Sprint("b", i)
		_, err := h.ops.StartBulk(t.Context(), retryAll(func(r *amendsv1.StartBulkRequest) { r.RequestId = id }))
		noErr(t, err)
	}
	for _, id := range []string{"b1", "b2"} {
		_, err := h.ops.CancelBulk(t.Context(), &amendsv1.CancelBulkRequest{Id: id, Reason: "r"})
		noErr(t, err)
	}
	first, err := h.ops.ListBulks(t.Context(), &amendsv1.ListBulksRequest{PageSize: 3})
	noErr(t, err)
	srv, err := api.New(h.fakeEngine, forgetful{h.st}, nil, nil)
	noErr(t, err)
	h.ops = amendsv1.NewOperatorServiceClient(dial(t, srv))
	page, err := h.ops.ListBulks(t.Context(), &amendsv1.ListBulksRequest{PageSize: 3})
	noErr(t, err)
	if len(first.GetBulks()) != 3 || len(page.GetBulks()) != 1 || page.GetNextPageToken() == "" {
		t.Errorf("%v, then %v", first, page)
	}
	rest, err := h.ops.ListBulks(t.Context(), &amendsv1.ListBulksRequest{PageSize: 3, PageToken: page.GetNextPageToken()})
	noErr(t, err)
	if len(rest.GetBulks()) != 1 || rest.GetBulks()[0].GetId() != "b0" || rest.GetNextPageToken() != "" {
		t.Errorf("%v", rest)
	}
}
