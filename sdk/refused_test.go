package sdk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/outbox"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func TestRefusalsAreSaidOnce(t *testing.T) {
	var r refusals
	start := time.Now()
	no, never := status.Error(codes.Unauthenticated, "no"), status.Error(codes.PermissionDenied, "never")
	for i, step := range []struct {
		after time.Duration
		err   error
		want  slog.Level
	}{
		{0, no, slog.LevelError},
		{time.Second, no, slog.LevelDebug},
		{2 * time.Second, io.EOF, slog.LevelWarn},
		{3 * time.Second, no, slog.LevelDebug},
		{4 * time.Second, never, slog.LevelError},
		{5 * time.Second, no, slog.LevelError},
		{remindAfter, no, slog.LevelDebug},
		{remindAfter + 5*time.Second, no, slog.LevelError},
		{remindAfter + 6*time.Second, no, slog.LevelDebug},
	} {
		if got := r.level(step.err, start.Add(step.after)); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	r.over()
	if got := r.level(no, start.Add(remindAfter+7*time.Second)); got != slog.LevelError {
		t.Errorf("after it was let in: %v", got)
	}
}

// journal is a log to look at.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.buf.String(), text)
}

// TestRefusedParticipantGoesOn: it is let in once its credentials are believed,
// and its log has the reasons, each once.
func TestRefusedParticipantGoesOn(t *testing.T) {
	n := 0
	f := &fakeCoordinator{reject: func(*amendsv1.Hello) error {
		switch n++; {
		case n <= 3:
			return ErrUnauthenticated.With("the token is not known")
		case n <= 5:
			return ErrPermission.With("not its service")
		}
		return nil
	}}
	conn := serve(t, f)
	log := &journal{}
	p := NewParticipant("accounts", database(t), outbox.SQLite,
		&ParticipantConfig{Logger: slog.New(slog.NewTextHandler(log, nil))})
	b := bench{}
	HandleSaga(p, debit, b.do("do"), b.end("undo"))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, conn) }()
	receive(t, "the stream", f.streams)
	stop()
	if err := receive(t, "the end of Run", done); err != nil {
		t.Fatal(err)
	}
	for _, reason := range []string{"the token is not known", "not its service"} {
		if got := log.count(reason); got != 1 || log.count("level=ERROR") != 2 {
			t.Errorf("%q is logged %d times:\n%s", reason, got, log.buf.String())
		}
	}
}

func TestKeys(t *testing.T) {
	in := CallInfo{GID: "g", Branch: "debit", Op: opOf(opDo)}
	if got := in.IdempotencyKey(); got != "g debit do" {
		t.Errorf("%q: claims of earlier releases would not be found", got)
	}
	in.Namespace = "shop"
	if got := in.IdempotencyKey(); got != "shop g debit do" {
		t.Errorf("%q", got)
	}
}

func TestTokensAreHidden(t *testing.T) {
	c := BearerToken("s3cret", true)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, c); strings.Contains(s, "s3cret") {
			t.Errorf("%s: %s", verb, s)
		}
	}
}
