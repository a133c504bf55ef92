package outbox

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// script is a Source of partition 0 that says what the test makes it say.
type script struct {
	mode   SourceMode
	onOpen func()
	onNext func() // once for each stream

	mu     sync.Mutex
	stream *scriptStream
}

// Mode implements Source.
func (s *script) Mode() SourceMode { return s.mode }

// Run implements Source.
func (s *script) Run(ctx context.Context, _ string) error { <-ctx.Done(); return nil }

// Open implements Source.
func (s *script) Open(part int, _ string, wake func()) (SourceStream, error) {
	if part != 0 {
		return nil, errors.New("nothing here")
	}
	if s.onOpen != nil {
		s.onOpen()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream = &scriptStream{s: s, wake: wake, first: true}
	return s.stream, nil
}

func (s *script) say(rows ...SourceRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream.queue = append(s.stream.queue, SourceTx{Rows: rows, Position: "p"})
	s.stream.wake()
}

func (s *script) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream.err = err
	s.stream.wake()
}

// followed reports whether the stream was asked for more.
func (s *script) followed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream != nil && !s.stream.first
}

type scriptStream struct {
	s     *script
	wake  func()
	first bool
	queue []SourceTx
	err   error
}

// Next implements SourceStream.
func (st *scriptStream) Next() ([]SourceTx, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.first && st.s.onNext != nil {
		st.s.onNext()
	}
	st.first = false
	txs := st.queue
	st.queue = nil
	return txs, st.err
}

// Settled implements SourceStream.
func (st *scriptStream) Settled(string) {}

// Close implements SourceStream.
func (st *scriptStream) Close() {}

// scripted runs a relay with a script until the test ends.
func scripted(t *testing.T, db *sql.DB, s Source, pub Publisher) *Relay {
	t.Helper()
	r := NewRelay(New(MySQL, nil), db, pub, &RelayConfig{
		Source: s, PollMin: time.Millisecond, PollMax: 10 * time.Millisecond,
		Sweep: time.Hour, MaxBackoff: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for: %s", what)
		}
	}
}

// bodies is a Publisher that keeps them.
type bodies struct {
	mu  sync.Mutex
	got []string
}

// Publish implements Publisher.
func (b *bodies) Publish(_ context.Context, msgs []Message) []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range msgs {
		b.got = append(b.got, string(m.Body))
	}
	return nil
}

func (b *bodies) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.got, " ")
}

// insertBody puts a message of key k into partition 0 and answers its row.
func insertBody(t *testing.T, q querier, body string) SourceRow {
	t.Helper()
	res, err := q.ExecContext(t.Context(), MySQL.part[0].insert+MySQL.part[0].row, body, "t", "k", body, "", "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		t.Fatal(err)
	}
	return SourceRow{Values: []any{id, body, "t", "k", []byte(body), []byte{}, "", int64(1)}}
}

func rowsLeft(t *testing.T, db *sql.DB) int64 {
	t.Helper()
	var n int64
	if err := db.QueryRowContext(t.Context(), MySQL.part[0].count).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSourceIsSoonerThanItsRow has the stream bring a message while its
// transaction is not visible yet: the delete must not miss the row.
func TestSourceIsSoonerThanItsRow(t *testing.T) {
	db, s, log := openMySQL(t, func(*mysql.Config) {}), &script{}, &bodies{}
	scripted(t, db, s, log)
	eventually(t, "the stream", s.followed)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.say(insertBody(t, tx, "1"))
	eventually(t, "the message", func() bool { return log.String() == "1" })
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the delete", func() bool { return rowsLeft(t, db) == 0 })
	s.fail(errors.New("over")) // the table is read again
	insertBody(t, db, "2")
	eventually(t, "the next", func() bool { return strings.HasSuffix(log.String(), "2") })
	if got := log.String(); got != "1 2" {
		t.Errorf("published: %s", got)
	}
}

// TestJoining wants a commit of the relay's own between the opening of a stream
// and the pass over the table behind which it is followed; what that pass found
// is not published again.
func TestJoining(t *testing.T) {
	db, log := openMySQL(t, func(*mysql.Config) {}), &bodies{}
	lease := func() (until int64) {
		if err := db.QueryRow(`SELECT expires_at FROM amends_outbox_owner WHERE part = 0`).Scan(&until); err != nil {
			t.Error(err)
		}
		return until
	}
	var before int64
	var rows []SourceRow
	s := &script{}
	s.onOpen = func() {
		before = lease()
		rows = append(rows, insertBody(t, db, "1"), insertBody(t, db, "2")) // behind the beginning of the stream
	}
	s.onNext = func() {
		if before == lease() {
			t.Error("nothing was committed between the opening of the stream and its first use")
		}
		if got := log.String(); !strings.HasSuffix(got, "1 2") {
			t.Errorf("published before the stream is followed: %q, want what was in the table", got)
		}
	}
	scripted(t, db, s, log)
	eventually(t, "the stream", s.followed)
	rows = append(rows, insertBody(t, db, "3"))
	s.say(rows...)
	eventually(t, "the third", func() bool { return strings.HasSuffix(log.String(), "3") })
	if got := log.String(); got != "1 2 3" {
		t.Errorf("published: %s", got)
	}
	eventually(t, "the deletes", func() bool { return rowsLeft(t, db) == 0 })
}

// TestHeldKeyJoinsAgain fails a message that the stream brought: it and what comes
// behind it are read from the table, in order.
func TestHeldKeyJoinsAgain(t *testing.T) {
	db, s, log := openMySQL(t, func(*mysql.Config) {}), &script{}, &bodies{}
	var mu sync.Mutex
	down := true
	pub := PublishFunc(func(ctx context.Context, m Message) error {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return errors.New("down")
		}
		log.Publish(ctx, []Message{m})
		return nil
	})
	r := scripted(t, db, s, pub)
	eventually(t, "the stream", s.followed)
	s.say(insertBody(t, db, "1"), insertBody(t, db, "2"))
	eventually(t, "a failure", func() bool { return r.Stats().Failures > 0 })
	s.say(insertBody(t, db, "3"))
	mu.Lock()
	down = false
	mu.Unlock()
	eventually(t, "all", func() bool { return log.String() == "1 2 3" && rowsLeft(t, db) == 0 })
}

func TestSourceConfig(t *testing.T) {
	for _, tc := range []struct {
		name string
		d    *Dialect
		cfg  *Config
		mode SourceMode
		want string
	}{
		{"sqlite", SQLite, nil, SourceTable, "dialect sqlite has no log"},
		{"bounds", MySQL, nil, SourceLog, "MaxRows"},
		{"log", MySQL, &Config{MaxRows: -1}, SourceLog, ""},
		{"table", MySQL, nil, SourceTable, ""},
	} {
		err := NewRelay(New(tc.d, tc.cfg), nil, &bodies{}, &RelayConfig{Source: &script{mode: tc.mode}}).err
		ok := err == nil
		if tc.want != "" {
			ok = errors.Is(err, ErrConfig) && strings.Contains(err.Error(), tc.want)
		}
		if !ok {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestSourceColumns(t *testing.T) {
	want := []string{"id", "msg_id", "topic", "msg_key", "body", "headers", "idem_key", "created_at"}
	if got := SourceColumns(); !reflect.DeepEqual(got, want) {
		t.Errorf("columns %q, want %q", got, want)
	}
	r, err := rowFrom(SourceRow{Values: []any{int64(7), "id", "t", []byte("k"), "body", nil, "", int64(5)}})
	want7 := Message{ID: "id", Topic: "t", Key: "k", Body: []byte("body"), CreatedAt: time.UnixMicro(5)}
	if err != nil || r.id != 7 || !reflect.DeepEqual(r.msg, want7) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := rowFrom(SourceRow{Values: []any{"seven"}}); err == nil || !strings.Contains(err.Error(), "column id") {
		t.Errorf("a text for a number: %v", err)
	}
}
