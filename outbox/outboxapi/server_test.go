package outboxapi_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxapi"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// scene is an outbox with its API, over gRPC and without.
type scene struct {
	*testing.T
	ctx context.Context
	db  *sql.DB
	box *outbox.Outbox
	api amendsv1.OutboxServiceClient
}

func onScenes(t *testing.T, test func(s *scene)) {
	t.Run("grpc", func(t *testing.T) {
		test(newScene(t, func(api *outboxapi.Server) amendsv1.OutboxServiceClient {
			srv, lis := grpc.NewServer(), bufconn.Listen(1<<16)
			amendsv1.RegisterOutboxServiceServer(srv, api)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(lis) }()
			conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close(); srv.Stop(); <-served })
			return amendsv1.NewOutboxServiceClient(conn)
		}))
	})
	t.Run("local", func(t *testing.T) {
		test(newScene(t, func(api *outboxapi.Server) amendsv1.OutboxServiceClient { return api.Client() }))
	})
}

func newScene(t *testing.T, client func(*outboxapi.Server) amendsv1.OutboxServiceClient) *scene {
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "app.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := outbox.Migrate(t.Context(), db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, ctx: t.Context(), db: db, box: outbox.New(outbox.SQLite, nil)}
	s.api = client(outboxapi.New(s.box.Operator(db), &outboxapi.Config{
		Actor: func(context.Context) string { return "alice" }, Logger: slog.New(slog.DiscardHandler),
	}))
	return s
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) write(msgs ...outbox.Message) {
	s.Helper()
	s.must(s.box.Tx(s.ctx, s.db, func(tx *sql.Tx) error { return s.box.Write(s.ctx, tx, msgs...) }))
}

// is checks what an error is to a caller.
func (s *scene) is(err error, want *amendsv1.Error, code codes.Code) {
	s.Helper()
	if !errors.Is(amendsv1.FromError(err), want) || status.Code(err) != code {
		s.Errorf("%v, want %v and %v", err, want.Reason, code)
	}
}

// TestActs takes messages from the outbox to the dead letters and back.
func TestActs(t *testing.T) {
	onScenes(t, func(s *scene) {
		for i := range 5 {
			s.write(outbox.Message{Topic: "orders", Key: "a", Body: fmt.Append(nil, i), Headers: map[string]string{"h": "\xff"}})
		}
		s.write(outbox.Message{Topic: "bills", Key: "\xfe"})
		st, err := s.api.GetOutbox(s.ctx, &amendsv1.GetOutboxRequest{})
		s.must(err)
		if st.GetMessages() != 6 || len(st.GetTopics()) != 2 || len(st.GetPartitions()) != outbox.Partitions || st.GetOldestAge() == nil {
			s.Errorf("outbox: %v", st)
		}
		bill, err := s.api.ListMessages(s.ctx, &amendsv1.ListMessagesRequest{Topic: "bills"})
		s.must(err)
		if m := bill.GetMessages()[0]; m.GetKey() != `\xfe` {
			s.Errorf("a key that is no UTF-8 is shown as %q", m.GetKey())
		}
		dry := &amendsv1.ParkKeyRequest{Position: bill.GetMessages()[0].GetPosition(), Reason: "r", ValidateOnly: true}
		parked, err := s.api.ParkKey(s.ctx, dry)
		s.must(err)
		if a := parked.GetAct(); a.GetMessages() != 1 || a.GetNumber() != 0 {
			s.Errorf("validated: %v", a)
		}
		list, err := s.api.ListMessages(s.ctx, &amendsv1.ListMessagesRequest{Key: "a", PageSize: 1})
		s.must(err)
		first := list.GetMessages()[0]
		skip := &amendsv1.SkipMessageRequest{Position: first.GetPosition(), Reason: "r", RequestId: "1"}
		skipped, err := s.api.SkipMessage(s.ctx, skip)
		s.must(err)
		if a := skipped.GetAct(); a.GetActor() != "alice" || a.GetVerb() != amendsv1.OutboxVerb_OUTBOX_VERB_SKIP || a.GetMessageIds()[0] != first.GetId() {
			s.Errorf("skipped: %v", a)
		}
		again, err := s.api.SkipMessage(s.ctx, skip)
		s.must(err)
		if again.GetAct().GetNumber() != skipped.GetAct().GetNumber() {
			s.Errorf("again: %v", again)
		}
		_, err = s.api.ParkKey(s.ctx, &amendsv1.ParkKeyRequest{Key: "a", Reason: "r", RequestId: "1"})
		s.is(err, amendsv1.ErrRequestConflict, codes.AlreadyExists)
		if parked, err = s.api.ParkKey(s.ctx, &amendsv1.ParkKeyRequest{Key: "a", Reason: "r"}); err != nil || parked.GetAct().GetMessages() != 4 {
			s.Errorf("parked: %v, %v", parked, err)
		}
		dead, err := s.api.GetDeadLetter(s.ctx, &amendsv1.GetDeadLetterRequest{Number: 1})
		s.must(err)
		if d := dead.GetDeadLetter(); string(d.GetBody()) != "0" || d.GetHeaders()["h"] != `\xff` || d.GetError() != "skip by alice: r" {
			s.Errorf("dead letter: %v", d)
		}
		replayed, err := s.api.ReplayDeadLetters(s.ctx, &amendsv1.ReplayDeadLettersRequest{Numbers: []int64{1, 2}, Reason: "r"})
		if err != nil || replayed.GetAct().GetMessages() != 2 {
			s.Errorf("replayed: %v, %v", replayed, err)
		}
		gone, err := s.api.DiscardDeadLetters(s.ctx, &amendsv1.DiscardDeadLettersRequest{Topic: "orders", Reason: "r"})
		if err != nil || gone.GetAct().GetMessages() != 3 {
			s.Errorf("discarded: %v, %v", gone, err)
		}
		if st, err = s.api.GetOutbox(s.ctx, &amendsv1.GetOutboxRequest{}); err != nil || st.GetMessages() != 3 || st.GetDeadLetters() != 0 {
			s.Errorf("in the end: %v, %v", st, err)
		}
	})
}

// TestPages reads every list one entry at a time.
func TestPages(t *testing.T) {
	onScenes(t, func(s *scene) {
		for i := range 7 {
			s.write(outbox.Message{Topic: "t", Key: fmt.Sprint(i)})
		}
		walk := func(what string, page func(token string) (int, string, error)) {
			s.Helper()
			seen := 0
			for token := ""; ; {
				n, next, err := page(token)
				s.must(err)
				if seen += n; next == "" || seen > 100 {
					break
				}
				token = next
			}
			if seen != 7 {
				s.Errorf("%s: %d, want 7", what, seen)
			}
			_, _, err := page("nonsense")
			s.is(err, amendsv1.ErrPageToken, codes.InvalidArgument)
		}
		walk("messages", func(token string) (int, string, error) {
			r, err := s.api.ListMessages(s.ctx, &amendsv1.ListMessagesRequest{PageSize: 1, PageToken: token})
			return len(r.GetMessages()), r.GetNextPageToken(), err
		})
		for i := range 7 {
			_, err := s.api.ParkKey(s.ctx, &amendsv1.ParkKeyRequest{Key: fmt.Sprint(i), Reason: "r"})
			s.must(err)
		}
		walk("dead letters", func(token string) (int, string, error) {
			r, err := s.api.ListDeadLetters(s.ctx, &amendsv1.ListDeadLettersRequest{PageSize: 2, PageToken: token})
			return len(r.GetDeadLetters()), r.GetNextPageToken(), err
		})
		walk("acts", func(token string) (int, string, error) {
			r, err := s.api.ListOutboxActs(s.ctx, &amendsv1.ListOutboxActsRequest{PageSize: 3, PageToken: token})
			return len(r.GetActs()), r.GetNextPageToken(), err
		})
		_, err := s.api.ListBlockedKeys(s.ctx, &amendsv1.ListBlockedKeysRequest{PageToken: "x"})
		s.is(err, amendsv1.ErrPageToken, codes.InvalidArgument)
		_, err = s.api.ListBlockedKeys(s.ctx, &amendsv1.ListBlockedKeysRequest{PageSize: 1001})
		s.is(err, amendsv1.ErrInvalidArgument, codes.InvalidArgument)
	})
}

func TestErrors(t *testing.T) {
	onScenes(t, func(s *scene) {
		_, err := s.api.GetDeadLetter(s.ctx, &amendsv1.GetDeadLetterRequest{Number: 9})
		s.is(err, amendsv1.ErrNotFound, codes.NotFound)
		_, err = s.api.SkipMessage(s.ctx, &amendsv1.SkipMessageRequest{Position: "1-9", Reason: "r"})
		s.is(err, amendsv1.ErrNotFound, codes.NotFound)
		_, err = s.api.SkipMessage(s.ctx, &amendsv1.SkipMessageRequest{Position: "nine", Reason: "r"})
		s.is(err, amendsv1.ErrInvalidArgument, codes.InvalidArgument)
		_, err = s.api.ParkKey(s.ctx, &amendsv1.ParkKeyRequest{Key: "k"})
		s.is(err, amendsv1.ErrInvalidArgument, codes.InvalidArgument)
		_, err = s.api.ParkKey(s.ctx, &amendsv1.ParkKeyRequest{Reason: "r"})
		s.is(err, amendsv1.ErrInvalidArgument, codes.InvalidArgument)
		_, err = s.api.ReplayDeadLetters(s.ctx, &amendsv1.ReplayDeadLettersRequest{Reason: "r"})
		s.is(err, amendsv1.ErrInvalidArgument, codes.InvalidArgument)
		s.must(s.db.Close())
		_, err = s.api.GetOutbox(s.ctx, &amendsv1.GetOutboxRequest{})
		s.is(err, amendsv1.ErrUnavailable, codes.Unavailable)
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		if _, err = s.api.GetOutbox(ctx, &amendsv1.GetOutboxRequest{}); status.Code(err) != codes.Canceled {
			s.Errorf("cancelled: %v", err)
		}
	})
}
