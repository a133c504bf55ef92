package api_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// verbs are the RPCs of OperatorService that act on one transaction, by their
// verb. branch: 'n' takes none, 'o' may have one, 'r' must.
var verbs = map[amendsv1.Verb]struct {
	rpc    string
	branch byte
	req    func() proto.Message
}{
	amendsv1.Verb_VERB_RETRY_NOW:     {"RetryNow", 'o', func() proto.Message { return &amendsv1.RetryNowRequest{} }},
	amendsv1.Verb_VERB_ABORT:         {"Abort", 'n', func() proto.Message { return &amendsv1.AbortRequest{} }},
	amendsv1.Verb_VERB_PAUSE:         {"Pause", 'n', func() proto.Message { return &amendsv1.PauseRequest{} }},
	amendsv1.Verb_VERB_RESUME:        {"Resume", 'n', func() proto.Message { return &amendsv1.ResumeRequest{} }},
	amendsv1.Verb_VERB_SKIP_STEP:     {"SkipStep", 'r', func() proto.Message { return &amendsv1.SkipStepRequest{} }},
	amendsv1.Verb_VERB_COMPLETE_STEP: {"CompleteStep", 'o', func() proto.Message { return &amendsv1.CompleteStepRequest{} }},
	amendsv1.Verb_VERB_FAIL_STEP:     {"FailStep", 'r', func() proto.Message { return &amendsv1.FailStepRequest{} }},
	amendsv1.Verb_VERB_ABANDON:       {"Abandon", 'n', func() proto.Message { return &amendsv1.AbandonRequest{} }},
}

// request fills a verb's request by field names. Names that it has not are left
// out: each verb has a branch or a reply or not.
func request(req proto.Message, fields map[string]any) proto.Message {
	m := req.ProtoReflect()
	for name, value := range fields {
		if f := m.Descriptor().Fields().ByName(protoreflect.Name(name)); f != nil {
			m.Set(f, protoreflect.ValueOf(value))
		}
	}
	return req
}

// call sends a request to the RPC of a verb and returns its transaction.
func (h *host) call(ctx context.Context, rpc string, req proto.Message) (*amendsv1.Transaction, error) {
	out := reflect.ValueOf(h.ops).MethodByName(rpc).Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(req)})
	if err, _ := reflect.TypeAssert[error](out[1]); err != nil {
		return nil, err
	}
	return out[0].Interface().(interface{ GetTransaction() *amendsv1.Transaction }).GetTransaction(), nil
}

// good is a request that every verb takes.
func good(change ...any) map[string]any {
	fields := map[string]any{
		"gid": "g", "reason": "ticket 17: stuck", "request_id": "r-1", "etag": "1", "branch": "debit", "reply": []byte("r"),
	}
	for i := 0; i < len(change); i += 2 {
		fields[change[i].(string)] = change[i+1]
	}
	return fields
}

func TestEveryVerbHasAnRPC(t *testing.T) {
	if n := amendsv1.Verb_VERB_UNSPECIFIED.Descriptor().Values().Len() - 1; n != len(verbs) {
		t.Errorf("%d verbs, %d are tested", n, len(verbs))
	}
}

func TestVerbs(t *testing.T) {
	for verb, v := range verbs {
		t.Run(v.rpc, func(t *testing.T) {
			h := newHost(t, api.Config{Caller: func(ctx context.Context) api.Caller {
				return api.Caller{Subject: "alice@example.com", Namespace: "acme", Roles: []amendsv1.Role{amendsv1.Role_ROLE_BREAK_GLASS}}
			}})
			h.start(t, transfer("g"))
			want := api.Command{
				Verb: verb, GID: "acme\x00g", Reason: "ticket 17: stuck", Actor: "alice@example.com", RequestID: "r-1", ETag: "1",
			}
			if v.branch != 'n' {
				want.Branch = "debit"
			}
			if verb == amendsv1.Verb_VERB_COMPLETE_STEP {
				want.Reply = []byte("r")
			}
			tx, err := h.call(t.Context(), v.rpc, request(v.req(), good()))
			noErr(t, err)
			if !reflect.DeepEqual(h.cmd, want) {
				t.Errorf("the engine is told\n%+v, want\n%+v", h.cmd, want)
			}
			if tx.GetGid() != "g" || tx.GetNamespace() != "acme" || tx.GetEtag() != "2" || tx.GetEventSeq() != 2 || len(tx.GetEventHash()) == 0 {
				t.Errorf("%v", tx)
			}
			_, err = h.call(t.Context(), v.rpc, request(v.req(), good("validate_only", true, "etag", "")))
			noErr(t, err)
			if !h.cmd.ValidateOnly {
				t.Error("validate_only is lost")
			}
			_, err = h.call(t.Context(), v.rpc, request(v.req(), good("request_id", "", "reason", strings.Repeat("é", 512), "etag", "")))
			noErr(t, err)
			_, err = h.call(t.Context(), v.rpc, request(v.req(), good("branch", "", "etag", "")))
			if v.branch != 'r' {
				noErr(t, err)
			}
		})
	}
}

func TestVerbsRefuse(t *testing.T) {
	h := newHost(t, api.Config{MaxPayload: 100})
	h.start(t, transfer("g"))
	for verb, v := range verbs {
		for name, c := range map[string]struct {
			change []any
			err    error
			field  string
			want   string
		}{
			"no gid":            {[]any{"gid", ""}, amendsv1.ErrInvalidGID, "gid", "empty"},
			"long gid":          {[]any{"gid", strings.Repeat("x", 129)}, amendsv1.ErrInvalidGID, "gid", "129 bytes"},
			"a key as gid":      {[]any{"gid", "acme\x00g"}, amendsv1.ErrInvalidGID, "gid", "control"},
			"a bulk as gid":     {[]any{"gid", "\x02b"}, amendsv1.ErrInvalidGID, "gid", "control"},
			"no reason":         {[]any{"reason", ""}, amendsv1.ErrInvalidArgument, "reason", "say why"},
			"blank reason":      {[]any{"reason", " \n\t"}, amendsv1.ErrInvalidArgument, "reason", "say why"},
			"long reason":       {[]any{"reason", strings.Repeat("x", 1025)}, amendsv1.ErrInvalidArgument, "reason", "1025 bytes, at most 1024"},
			"spaced request_id": {[]any{"request_id", "a b"}, amendsv1.ErrInvalidArgument, "request_id", "space"},
			"long request_id":   {[]any{"request_id", strings.Repeat("x", 129)}, amendsv1.ErrInvalidArgument, "request_id", "129 bytes"},
			"stale etag":        {[]any{"etag", "7"}, amendsv1.ErrETag, "", `"g"`},
			"no branch":         {[]any{"branch", ""}, amendsv1.ErrInvalidArgument, "branch", "name it"},
			"spaced branch":     {[]any{"branch", "a b"}, amendsv1.ErrInvalidArgument, "branch", "space"},
			"large reply":       {[]any{"reply", make([]byte, 101)}, amendsv1.ErrTooLarge, "reply", "101 bytes, the limit is 100"},
			"unknown gid":       {[]any{"gid", "none"}, amendsv1.ErrNotFound, "", `"none"`},
		} {
			switch {
			case strings.Contains(name, "branch") && v.branch == 'n', name == "no branch" && v.branch != 'r',
				name == "large reply" && verb != amendsv1.Verb_VERB_COMPLETE_STEP:
				continue
			}
			t.Run(v.rpc+" "+name, func(t *testing.T) {
				_, err := h.call(t.Context(), v.rpc, request(v.req(), good(c.change...)))
				e := wantErr(t, err, c.err, c.want)
				if e.Metadata["field"] != c.field || !strings.Contains(e.Message, c.field) {
					t.Errorf("%q with %v must name %q", e.Message, e.Metadata, c.field)
				}
			})
		}
	}
	rec, err := h.Get(t.Context(), "g")
	if noErr(t, err); rec.Version != 1 {
		t.Errorf("something was done: version %d", rec.Version)
	}
}

// What the engine says reaches the client with its reason and its code.
func TestVerbErrorsCrossTheWire(t *testing.T) {
	for _, c := range []struct {
		err  *amendsv1.Error
		code codes.Code
	}{
		{amendsv1.ErrNotFound, codes.NotFound},
		{amendsv1.ErrIllegalVerb, codes.FailedPrecondition},
		{amendsv1.ErrETag, codes.Aborted},
		{amendsv1.ErrRequestConflict, codes.AlreadyExists},
		{amendsv1.ErrInvalidArgument, codes.InvalidArgument},
		{amendsv1.ErrUnavailable, codes.Unavailable},
		{amendsv1.ErrPermission, codes.PermissionDenied},
	} {
		h := newHost(t, api.Config{})
		h.err = c.err.With("transaction %q, or %q: legal now: RETRY_NOW", wire.Key("acme", "g"), wire.BulkKey("acme", "b")).
			WithMetadata("gid", wire.Key("acme", "g")).WithMetadata("legal", "RETRY_NOW")
		for _, v := range verbs {
			_, err := h.call(as(t, "acme"), v.rpc, request(v.req(), good()))
			e := wantErr(t, err, c.err, `transaction "g", or "b": legal now: RETRY_NOW`)
			if status.Code(err) != c.code || e.Metadata["legal"] != "RETRY_NOW" || e.Metadata["gid"] != "g" {
				t.Errorf("%s: %v, details %v", v.rpc, status.Code(err), e.Metadata)
			}
		}
		if h.err.Error() != c.err.With("transaction %q, or %q: legal now: RETRY_NOW", "acme\x00g", "acme\x00\x02b").Error() {
			t.Errorf("the engine's own error was changed to %v", h.err)
		}
	}
}

func TestAbandonNeedsBreakGlass(t *testing.T) {
	var roles []amendsv1.Role
	h := newHost(t, api.Config{Caller: func(context.Context) api.Caller { return api.Caller{Roles: roles} }})
	h.start(t, transfer("g"))
	for _, role := range []amendsv1.Role{0, 1, 2, 3, 4} {
		roles = []amendsv1.Role{role}
		_, one := h.ops.Abandon(t.Context(), &amendsv1.AbandonRequest{Gid: "g", Reason: "r"})
		_, many := h.ops.StartBulk(t.Context(), &amendsv1.StartBulkRequest{
			Verb: amendsv1.Verb_VERB_ABANDON, Filter: "stalled = true", Reason: "r", ValidateOnly: true,
		})
		for rpc, err := range map[string]error{"Abandon": one, "StartBulk": many} {
			if role == amendsv1.Role_ROLE_BREAK_GLASS {
				noErr(t, err)
			} else if e := wantErr(t, err, amendsv1.ErrPermission, "ABANDON needs the break-glass role"); e.Metadata["role"] != "break-glass" {
				t.Errorf("%s: details %v", rpc, e.Metadata)
			}
		}
	}
}

// Without credentials the trail has the address, which is all that is known.
func TestActorIsTheSubjectOrTheAddress(t *testing.T) {
	for _, subject := range []string{"", "bob@example.com"} {
		h := newHost(t, api.Config{Caller: func(context.Context) api.Caller { return api.Caller{Subject: subject} }})
		h.start(t, transfer("g"))
		_, err := h.ops.Pause(t.Context(), &amendsv1.PauseRequest{Gid: "g", Reason: "r"})
		noErr(t, err)
		_, err = h.tx.AbortTransaction(t.Context(), &amendsv1.AbortTransactionRequest{Gid: "g"})
		noErr(t, err)
		who, err := h.cluster.WhoAmI(t.Context(), &amendsv1.WhoAmIRequest{})
		noErr(t, err)
		got := []string{h.cmd.Actor, h.actor, who.GetSubject()}
		if slices.Contains(got, "") || slices.Contains(got, "unknown") || len(slices.Compact(slices.Clone(got))) != 1 ||
			subject != "" && got[0] != subject {
			t.Errorf("%q acts as %q", subject, got)
		}
	}
}

// GetTransaction says what can be done; lists and answers to verbs do not.
func TestGetTellsVerbs(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	resp, err := h.admin.GetTransaction(t.Context(), &amendsv1.GetTransactionRequest{Gid: "g"})
	noErr(t, err)
	tx := resp.GetTransaction()
	if got := fmt.Sprint(tx.GetVerbs(), tx.GetBranches()[0].GetVerbs(), tx.GetBranches()[1].GetVerbs()); got !=
		"[VERB_PAUSE] [VERB_RETRY_NOW VERB_SKIP_STEP] [VERB_RETRY_NOW VERB_SKIP_STEP]" {
		t.Errorf("%s", got)
	}
	h.moveTo(t, "g", 4)
	resp, err = h.admin.GetTransaction(t.Context(), &amendsv1.GetTransactionRequest{Gid: "g"})
	noErr(t, err)
	if tx := resp.GetTransaction(); len(tx.GetVerbs()) != 0 || len(tx.GetBranches()) != 2 || len(tx.GetBranches()[0].GetVerbs()) != 0 {
		t.Errorf("%v", tx)
	}
}
