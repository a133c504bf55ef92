package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// TestVerbs sends each verb with all that it takes.
func TestVerbs(t *testing.T) {
	f := &fake{}
	addr := f.start(t)
	file := filepath.Join(t.TempDir(), "reply")
	if err := os.WriteFile(file, []byte("\x00any bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want proto.Message
	}{
		{"retry g", &amendsv1.RetryNowRequest{Gid: "g"}},
		{"retry g b", &amendsv1.RetryNowRequest{Gid: "g", Branch: "b"}},
		{"abort g", &amendsv1.AbortRequest{Gid: "g"}},
		{"pause g", &amendsv1.PauseRequest{Gid: "g"}},
		{"resume g", &amendsv1.ResumeRequest{Gid: "g"}},
		{"skip g b", &amendsv1.SkipStepRequest{Gid: "g", Branch: "b"}},
		{"complete g", &amendsv1.CompleteStepRequest{Gid: "g"}},
		{"complete g b", &amendsv1.CompleteStepRequest{Gid: "g", Branch: "b"}},
		{`complete g b --reply {"seat":"12A"}`, &amendsv1.CompleteStepRequest{Gid: "g", Branch: "b", Reply: []byte(`{"seat":"12A"}`)}},
		{"complete g b --reply @" + file, &amendsv1.CompleteStepRequest{Gid: "g", Branch: "b", Reply: []byte("\x00any bytes")}},
		{"fail g b", &amendsv1.FailStepRequest{Gid: "g", Branch: "b"}},
		{"abandon g --yes", &amendsv1.AbandonRequest{Gid: "g"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := append([]string{"tx"}, strings.Fields(c.args)...)
			out := ok(t, append(args, "--addr", addr, "--reason", "on call: #12", "--request-id", "r1", "--etag", "7", "--dry-run")...)
			if !strings.Contains(out, "gid:       g\n") {
				t.Errorf("does not print the transaction:\n%s", out)
			}
			for name, value := range map[string]string{"reason": "on call: #12", "request_id": "r1", "etag": "7", "validate_only": "true"} {
				set(c.want, name, value)
			}
			if got := f.requests(); len(got) != 1 || !proto.Equal(got[0], c.want) {
				t.Errorf("asked %v, want %v", got, c.want)
			}
		})
	}
}

// set sets a field of a message, by its name in the .proto file.
func set(m proto.Message, field, value string) {
	r := m.ProtoReflect()
	v := protoreflect.ValueOfString(value)
	if value == "true" {
		v = protoreflect.ValueOfBool(true)
	}
	r.Set(r.Descriptor().Fields().ByName(protoreflect.Name(field)), v)
}

// TestLostAnswers sends a request again, with the same id, until it is answered,
// but not for ever, and never one that was answered.
func TestLostAnswers(t *testing.T) {
	f := &fake{}
	addr := f.start(t)
	ids := func() (ids []string) {
		for _, r := range f.requests() {
			ids = append(ids, r.(*amendsv1.PauseRequest).GetRequestId())
		}
		return ids
	}
	f.failNext(lost(), amendsv1.ErrUnavailable.With("draining"))
	ok(t, "tx", "pause", "g", "--reason", "r", "--addr", addr)
	got := ids()
	if len(got) != 3 || got[0] == "" || got[1] != got[0] || got[2] != got[0] {
		t.Errorf("asked with request ids %q, want the same one three times", got)
	}
	ok(t, "tx", "pause", "g", "--reason", "r", "--addr", addr)
	if again := ids(); len(again) != 1 || again[0] == got[0] {
		t.Errorf("another command has request ids %q, the one before had %q", again, got[0])
	}
	f.failNext(lost(), lost(), lost(), lost(), lost())
	r := amends(t, "tx", "pause", "g", "--reason", "r", "--addr", addr)
	got = ids()
	if r.code != 1 || len(got) != 4 || !strings.Contains(r.stderr, "repeat it with --request-id "+got[0]) {
		t.Errorf("exit code %d after %d requests, said %q; want 1 after 4, and how to go on", r.code, len(got), r.stderr)
	}
	draining := amendsv1.ErrUnavailable.With("draining") // it may have lost the answer of its database
	f.failNext(draining, draining, draining, draining)
	r = amends(t, "tx", "pause", "g", "--reason", "r", "--addr", addr)
	if got = ids(); r.code != 1 || len(got) != 4 || !strings.Contains(r.stderr, "draining; it was done or it was not: to make sure, repeat it with --request-id "+got[0]) {
		t.Errorf("exit code %d after %d requests, said %q", r.code, len(got), r.stderr)
	}
	f.failNext(amendsv1.ErrIllegalVerb.With("the transaction is paused already; legal now: resume"))
	r = amends(t, "tx", "pause", "g", "--reason", "r", "--addr", addr)
	if got := ids(); r.code != 1 || len(got) != 1 || r.stderr != "amends: ILLEGAL_VERB: the transaction is paused already; legal now: resume\n" {
		t.Errorf("exit code %d after %d requests, said %q", r.code, len(got), r.stderr)
	}
	r = amends(t, "tx", "pause", "g", "--reason", "r", "--addr", "127.0.0.1:1")
	if r.code != 1 || !strings.Contains(r.stderr, "no coordinator answers") || strings.Contains(r.stderr, "--request-id") {
		t.Errorf("exit code %d, said %q; want no doubt, for nothing was sent", r.code, r.stderr)
	}
	f.failNext(status.Error(codes.Unimplemented, "unknown service"))
	if r = amends(t, "tx", "pause", "g", "--reason", "r", "--addr", addr); !strings.Contains(r.stderr, "older version") {
		t.Errorf("said %q", r.stderr)
	}
}

// TestGetShowsLanes checks every line of what `tx get` prints of a transaction
// that turns back.
func TestGetShowsLanes(t *testing.T) {
	out := ok(t, "tx", "get", "g", "--addr", (&fake{}).start(t))
	for _, want := range []string{
		`^namespace: shop$`, `^state:     ROLLING_BACK \(stalled\)$`, `^waits for: accounts$`, `^etag:      7$`, `^legal now: retry, pause$`,
		`^cause:     credit: REFUSED: no such account$`,
		`^├─ debit +accounts\.debit +DONE \(2\) +UNDOING \(4\) +\S+Z \(in (1h0m0s|59m\S+)\) +skip, complete +connection refused$`,
		`^├─ credit +accounts\.credit +debit +REFUSED +UNDONE +$`,
		`^└─ mail +mail\.send +credit +PENDING +- +$`,
	} {
		if !regexp.MustCompile(`(?m)` + want).MatchString(out) {
			t.Errorf("want %s in\n%s", want, out)
		}
	}
}

func TestBulk(t *testing.T) {
	f := &fake{}
	addr := f.start(t)
	t.Run("start", func(t *testing.T) {
		f.failNext(lost())
		out := ok(t, "bulk", "start", "retry", "--participant", `a"b`, "--unfinished", "--label", "k=v w", "--filter", `name = "n"`,
			"--rate", "20", "--reason", "it is back", "--addr", addr, "-o", "json")
		got := f.requests()
		if len(got) != 2 || !proto.Equal(got[0], got[1]) {
			t.Fatalf("asked %v, want the same twice", got)
		}
		id := got[0].(*amendsv1.StartBulkRequest).GetRequestId()
		want := &amendsv1.StartBulkRequest{
			Verb: amendsv1.Verb_VERB_RETRY_NOW, Rate: 20, Reason: "it is back", RequestId: id,
			Filter: `name = "n" AND unfinished = true AND participant = "a\"b" AND labels.k = "v w"`,
		}
		var bulk struct{ ID string }
		if err := json.Unmarshal([]byte(out), &bulk); err != nil || bulk.ID != id || id == "" || !proto.Equal(got[0], want) {
			t.Errorf("%v: asked %v, want %v; printed %s", err, got[0], want, out)
		}
	})
	t.Run("dry run", func(t *testing.T) {
		r := amends(t, "bulk", "start", "abort", "--unfinished", "--dry-run", "--addr", addr)
		if got := f.requests(); r.code != 0 || len(got) != 1 || !got[0].(*amendsv1.StartBulkRequest).GetValidateOnly() ||
			!strings.Contains(r.stderr, "selects 42 transactions") {
			t.Errorf("exit code %d, said %q, asked %v", r.code, r.stderr, got)
		}
	})
	t.Run("wait", func(t *testing.T) {
		out := ok(t, "bulk", "start", "retry", "--stalled", "--reason", "r", "--wait", "--addr", addr)
		if !strings.Contains(out, "state:      done\n") || !strings.Contains(out, "done:       2 acted upon, 0 skipped, 0 failed\n") {
			t.Errorf("printed\n%s", out)
		}
		r := amends(t, "bulk", "start", "retry", "--stalled", "--reason", "r", "--wait", "--request-id", "cancelled", "--addr", addr)
		if r.code != 1 || !strings.Contains(r.stderr, "was cancelled") {
			t.Errorf("a cancelled one: exit code %d, said %q", r.code, r.stderr)
		}
		f.found()
		r = amends(t, "bulk", "start", "retry", "--stalled", "--reason", "r", "--wait", "--request-id", "failing", "--addr", addr)
		if r.code != 1 || !strings.Contains(r.stderr, "1 transactions could not be acted upon; the last because: the disk is full") {
			t.Errorf("a failing one: exit code %d, said %q", r.code, r.stderr)
		}
		f.requests()
	})
	t.Run("list", func(t *testing.T) {
		if out := ok(t, "bulk", "list", "--addr", addr); strings.Count(out, "\n") != 4 || !strings.Contains(out, "b1 ") {
			t.Errorf("want a heading and three bulks in\n%s", out)
		}
		if r := amends(t, "bulk", "list", "--limit", "2", "--addr", addr); !strings.Contains(r.stderr, "There are more") {
			t.Errorf("said %q", r.stderr)
		}
		if out := ok(t, "bulk", "get", "b9", "--addr", addr); !strings.Contains(out, "id:         b9\n") {
			t.Errorf("printed\n%s", out)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ok(t, "bulk", "cancel", "b1", "--reason", "enough", "--addr", addr)
		want := &amendsv1.CancelBulkRequest{Id: "b1", Reason: "enough"}
		if got := f.requests(); len(got) != 1 || !proto.Equal(got[0], want) {
			t.Errorf("asked %v, want %v", got, want)
		}
	})
}

func TestCluster(t *testing.T) {
	addr := (&fake{}).start(t)
	out := ok(t, "cluster", "--addr", addr)
	for _, want := range []string{
		`^12 +0 +0 +0 +3 +0 +0\.0 +99\.5 +0\.0$`, `^Oldest unfinished: old`, `longer than 1m0s$`,
		`^one \(answers\) +100 +active +- +one:7460 +v9 +20`, `^two +100 +draining +(1h0m0|59m)\S*s +- `, `^twx +50 +gone +- +- `, `^256 shards, of which nobody owns 6$`, `^accounts +0 +7 +0 +accounts\.debit$`,
	} {
		if !regexp.MustCompile(`(?m)` + want).MatchString(out) {
			t.Errorf("want %s in\n%s", want, out)
		}
	}
	var all struct {
		Overview     struct{ Stalled string }
		Members      struct{ Shards int }
		Participants struct{ Participants []struct{ Waiting int } }
	}
	if err := json.Unmarshal([]byte(ok(t, "cluster", "-o", "json", "--addr", addr)), &all); err != nil ||
		all.Overview.Stalled != "3" || all.Members.Shards != 256 || all.Participants.Participants[0].Waiting != 7 {
		t.Errorf("%v: JSON has %+v", err, all)
	}
	if out := ok(t, "cluster", "members", "-o", "json", "--addr", addr); !strings.Contains(out, `"unowned_shards": 6`) {
		t.Errorf("printed %s", out)
	}
	out = ok(t, "cluster", "whoami", "--addr", addr)
	if !regexp.MustCompile(`(?m)^alice +shop +break-glass +$`).MatchString(out) || !strings.Contains(out, "asks nobody who they are") {
		t.Errorf("printed\n%s", out)
	}
}

// TestDrain asks for the coordinator that is meant, and for no other.
func TestDrain(t *testing.T) {
	f := &fake{}
	addr := f.start(t)
	f.failNext(lost())
	out := ok(t, "cluster", "drain", "on", "--reason", "a new disk", "--addr", addr)
	want := &amendsv1.DrainMemberRequest{Name: "one", Reason: "a new disk"}
	if got := f.requests(); len(got) != 2 || !proto.Equal(got[0], want) || !proto.Equal(got[1], want) || !strings.Contains(out, "COORDINATOR") {
		t.Errorf("asked %v, printed\n%s", got, out)
	}
	ok(t, "cluster", "undrain", "two", "--dry-run", "--addr", addr)
	undrain := &amendsv1.UndrainMemberRequest{Name: "two", Reason: "dry run", ValidateOnly: true}
	if got := f.requests(); len(got) != 1 || !proto.Equal(got[0], undrain) {
		t.Errorf("asked %v, want %v", got, undrain)
	}
	for _, name := range []string{"tw", "three", ""} {
		if r := amends(t, "cluster", "drain", name, "--reason", "r", "--addr", addr); r.code != 2 || !strings.Contains(r.stderr, "one, two, twx") {
			t.Errorf("drain %q: exit code %d, said %q", name, r.code, r.stderr)
		}
	}
	if got := f.requests(); len(got) != 0 {
		t.Errorf("asked %v", got)
	}
}
