package sdk

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// an undo that is owed finds its do's claim purged: "nothing ran", answers OK, and the do stands.
func TestPurgeKeepsGuardClaims(t *testing.T) {
	b := newBench(t)
	want(t, b.call(t, opDo, debitName), codeOK, firstReply, "")
	if _, err := inbox.New(outbox.SQLite, "orders").Once(t.Context(), b.db, "m1", func(*sql.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	n, err := inbox.Purge(t.Context(), b.db, outbox.SQLite, time.Now().Add(time.Hour), 100)
	if err != nil || n != 1 {
		t.Errorf("purged %d claims (%v), want only the message's", n, err)
	}
	b.call(t, opUndo, debitName)
	b.stands(t, "do alice 5", "undo alice 5 balance 1")
}

// text over 4 KiB whose cut falls into a character grows past the coordinator's limit of 4096 for a reason.
func TestCleanTextLimit(t *testing.T) {
	for _, s := range []string{"x" + strings.Repeat("é", 3000), strings.Repeat("a\xff", 2000), strings.Repeat("世", 2000)} {
		if got := cleanText(s); len(got) > maxText {
			t.Errorf("%d bytes, at most %d are taken: a TCC with this error cannot be aborted", len(got), maxText)
		}
	}
}

// the first attempt began the saga and its answer was lost; the second is turned away at the door.
func TestStartRejectedAfterLostAnswer(t *testing.T) {
	for _, door := range []*amendsv1.Error{ErrOverloaded, ErrUnknownAction} {
		n := 0
		c := client(t, &fakeCoordinator{start: func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
			if n++; n == 1 {
				return nil, ErrUnavailable.With("connection reset") // after the commit
			}
			return nil, door.With("not now")
		}})
		_, err := Start(t.Context(), c, transfer, debitReq{}, nil)
		var u *UnknownError
		if !errors.As(err, &u) || u.GID == "" || !errors.Is(err, door) {
			t.Errorf("%v: want an *UnknownError with the gid: the saga may have begun", err)
		}
	}
}

// a name taken by TryNamed is given to the next Try as well: one reservation instead of two.
func TestTryAfterTryNamed(t *testing.T) {
	f := newFakeTCC()
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(ctx context.Context, tc *TCC) error {
		_, err := TryNamed(ctx, tc, "seat", seat, debitReq{Cents: 1})
		_, err2 := Try(ctx, tc, seat, debitReq{Cents: 1})
		return errors.Join(err, err2)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.was(t, openTrip, firstSeat, secondSeat, "commit")
}

// the doc of ReplyOf says that an undecodable reply fails the call, whatever the handler returns.
func TestRefusalOverUndecodableReply(t *testing.T) {
	b := newBench(t)
	b.meet = func(ctx context.Context, _ *sql.Tx, _ debitReq) error {
		if _, ok := ReplyOf(ctx, debit); !ok {
			return Refuse(errors.New("no debit"))
		}
		return nil
	}
	m := msg(opDo, debitName)
	m.Replies = []*amendsv1.StepReply{{Branch: "a", Action: debitName, Body: []byte("{")}}
	out := b.answer(t.Context(), b.newCall(m))
	want(t, out, codeUnk, "", "cannot be decoded")
}

// Run returned, and a handler that heeds its context still runs, its transaction open.
func TestDrainCancelsHandlers(t *testing.T) {
	f := &fakeCoordinator{}
	conn := serve(t, f)
	started, ended := make(chan struct{}), make(chan struct{})
	p := NewParticipant("accounts", database(t), outbox.SQLite, &ParticipantConfig{DrainTimeout: 50 * time.Millisecond, Logger: quiet()})
	HandleSaga(p, debit, func(ctx context.Context, _ *sql.Tx, _ debitReq) (debitRep, error) {
		defer close(ended)
		close(started)
		<-ctx.Done()
		return debitRep{}, ctx.Err()
	}, nil)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, conn) }()
	s := receive(t, "the stream", f.streams)
	s.call(t, numbered(1)) // with a call timeout of 10 s
	receive(t, "the handler", started)
	stop()
	err := receive(t, "the end of Run", done)
	select {
	case <-ended:
	default:
		t.Errorf("Run returned (%v) while a handler that heeds its context runs in an open transaction", err)
	}
	if err != nil {
		t.Errorf("error %v", err)
	}
	p.calls.Wait()
}

// deafConn answers the first question never, as a connection that died without a word, and the others at once.
type deafConn struct {
	grpc.ClientConnInterface
	asked atomic.Int32
	last  error
}

func (c *deafConn) Invoke(ctx context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	if c.asked.Add(1) == 1 {
		if c.last != nil {
			return c.last
		}
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	if r, ok := reply.(*amendsv1.WaitTransactionResponse); ok {
		r.Transaction = tx(committed, nil)
	}
	return nil
}

// the coordinator answers a wait within 30 s, so silence for longer is a dead connection; Wait and Start sit on it.
func TestDeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		conn := &deafConn{}
		err := NewClient(conn, &ClientConfig{Logger: quiet()}).Run("g").Wait(ctx)
		t.Logf("Wait: %v after %v, asked %d times", err, time.Since(began), conn.asked.Load())
		if err != nil {
			t.Error("Wait never asked again")
		}
	})
}

// a proxy (or a dying server) ended the RPC, not the caller.
func TestServersOwnDeadline(t *testing.T) {
	for _, code := range []codes.Code{codes.DeadlineExceeded, codes.Canceled} {
		conn := &deafConn{last: status.Error(code, "upstream request timeout")}
		if err := NewClient(conn, &ClientConfig{Logger: quiet()}).Run("g").Wait(t.Context()); err != nil {
			t.Errorf("%v although ctx lives and the transaction committed", err)
		}
	}
}

// a rollback that the driver could not do leaves the handler's transaction open in the pool.
type lameConnector struct {
	driver.Connector
	dsn  string
	d    driver.Driver
	lame *atomic.Bool
}

func (c *lameConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.d.Open(c.dsn)
	return &lameConn{conn, c.lame}, err
}
func (c *lameConnector) Driver() driver.Driver { return c.d }

type lameConn struct {
	driver.Conn
	lame *atomic.Bool
}

func (c *lameConn) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, q, args)
}

func (c *lameConn) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, q, args)
}

func (c *lameConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, o)
	return &lameTx{tx, c.lame}, err
}

type lameTx struct {
	driver.Tx
	lame *atomic.Bool
}

func (t *lameTx) Rollback() error {
	if t.lame.Swap(false) {
		return errors.New("disk I/O error")
	}
	return t.Tx.Rollback()
}

func TestFailedRollback(t *testing.T) {
	b := newBench(t)
	var lame atomic.Bool
	var dsn string
	var seq int
	var name string
	if err := b.db.QueryRow("PRAGMA database_list").Scan(&seq, &name, &dsn); err != nil {
		t.Fatal(err)
	}
	b.db = sql.OpenDB(&lameConnector{dsn: outbox.SQLiteDSN(dsn), d: b.db.Driver(), lame: &lame})
	b.db.SetMaxOpenConns(1)
	t.Cleanup(func() { b.db.Close() })
	b.guard.db = b.db
	lame.Store(true)
	b.meet = func(context.Context, *sql.Tx, debitReq) error { return errOut }
	want(t, b.call(t, opDo, debitName), codeUnk, "", "roll back: disk I/O error")
	b.stands(t) // read through the same pool
	b.meet = nil
	want(t, b.call(t, opDo, debitName), codeOK, `{"Balance":2}`, "")
	b.stands(t, "do alice 5")
}

var _ = txn.OK
