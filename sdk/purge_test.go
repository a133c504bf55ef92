package sdk

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const day = 24 * time.Hour

// oracle is a coordinator that says how transactions stand, and calls nobody.
// What is not in fates it does not know.
type oracle struct {
	mu        sync.Mutex
	fates     map[string]fate
	err       error
	asked     []*amendsv1.FindEndedRequest
	namespace []string // of the last request
}

func (o *oracle) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	if method != amendsv1.TransactionService_FindEnded_FullMethodName {
		return status.Error(codes.Unimplemented, method)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	req := args.(*amendsv1.FindEndedRequest)
	o.asked = append(o.asked, req)
	md, _ := metadata.FromOutgoingContext(ctx)
	if o.namespace = md.Get(amendsv1.NamespaceHeader); o.err != nil {
		return o.err
	}
	resp := &amendsv1.FindEndedResponse{}
	for _, gid := range req.GetGids() {
		switch o.fates[gid] {
		case fateEnded:
			resp.Ended = append(resp.Ended, gid)
		case fateUnknown:
			resp.Unknown = append(resp.Unknown, gid)
		}
	}
	proto.Merge(reply.(proto.Message), resp)
	return nil
}

func (o *oracle) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unavailable, "an oracle calls nobody")
}

func (o *oracle) know(f fate, gids ...string) *oracle {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fates == nil {
		o.fates = map[string]fate{}
	}
	for _, gid := range gids {
		o.fates[gid] = f
	}
	return o
}

// ledger is a bench whose claims a test makes old, and purges.
type ledger struct {
	*bench
	t    *testing.T
	log  *bytes.Buffer
	asks *purge
}

// onLedgers runs a test on each kind of database.
func onLedgers(t *testing.T, fn func(t *testing.T, l *ledger)) {
	t.Run("sqlite", func(t *testing.T) { fn(t, newLedger(t, database(t), outbox.SQLite, "")) })
	t.Run("mysql", func(t *testing.T) {
		db, err := sql.Open("mysql", servicestest.MySQL(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		if err := outbox.Migrate(t.Context(), db, outbox.MySQL); err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE effects (id BIGINT AUTO_INCREMENT PRIMARY KEY, what TEXT)"); err != nil {
			t.Fatal(err)
		}
		fn(t, newLedger(t, db, outbox.MySQL, ""))
	})
}

func newLedger(t *testing.T, db *sql.DB, d *outbox.Dialect, namespace string) *ledger {
	log := &bytes.Buffer{}
	p := NewParticipant("accounts", db, d, &ParticipantConfig{
		Namespace: namespace, Logger: slog.New(slog.NewTextHandler(log, nil))})
	b := &bench{db: db, Participant: p}
	HandleSaga(p, debit, b.do("do"), b.end("undo"))
	HandleTCC(p, seat, b.do("try"), b.end("confirm"), b.end("cancel"))
	return &ledger{bench: b, t: t, log: log}
}

func (l *ledger) op(gid string, op amendsv1.Op) *amendsv1.Outcome {
	l.t.Helper()
	m := msg(op, debitName)
	if op != opDo && op != opUndo {
		m = msg(op, seatName)
	}
	m.Gid = gid
	return l.answer(l.t.Context(), l.newCall(m))
}

// did performs operations of each of some transactions.
func (l *ledger) did(gids []string, ops ...amendsv1.Op) {
	l.t.Helper()
	for _, gid := range gids {
		for _, op := range ops {
			if out := l.op(gid, op); out.GetCode() != codeOK {
				l.t.Fatalf("%v of %s: %v", op, gid, out)
			}
		}
	}
}

// age makes the claims whose keys begin so older than they are.
func (l *ledger) age(by time.Duration, prefixes ...string) {
	l.t.Helper()
	for _, prefix := range prefixes {
		if _, err := l.db.ExecContext(l.t.Context(), "UPDATE amends_inbox SET claimed_at = claimed_at - ? WHERE substr(claim_key, 1, ?) = ?",
			by.Microseconds(), len(prefix), []byte(prefix)); err != nil {
			l.t.Fatal(err)
		}
	}
}

// left are the keys of the claims that there are, each with | for its end.
func (l *ledger) left() []string {
	l.t.Helper()
	claims, err := inbox.OldClaims(l.t.Context(), l.db, l.guard.dialect, -day, inbox.OldClaim{}, 10_000)
	if err != nil {
		l.t.Fatal(err)
	}
	var keys []string
	for _, c := range claims {
		keys = append(keys, c.Key)
	}
	return slices.Sorted(slices.Values(keys))
}

func (l *ledger) wantLeft(keys ...string) {
	l.t.Helper()
	slices.Sort(keys)
	if got := l.left(); !slices.Equal(got, keys) {
		l.t.Errorf("left are %q, want %q", got, keys)
	}
}

// ask lets further rounds ask these.
func (l *ledger) ask(all ...*oracle) {
	var conns []grpc.ClientConnInterface
	for _, o := range all {
		conns = append(conns, o)
	}
	l.asks = l.newPurge(conns)
}

func (l *ledger) round(ended, unknown int) {
	l.t.Helper()
	n, err := l.asks.round(l.t.Context())
	if l.asks.report(l.t.Context(), n, err); err != nil || n != (purged{ended, unknown}) {
		l.t.Errorf("purged %+v (%v), want %d and %d", n, err, ended, unknown)
	}
}

// TestPurge: the claims of what has ended go. What lives finds its own, as an
// undo that comes after months must; and nobody else's claims are touched.
func TestPurge(t *testing.T) {
	onLedgers(t, func(t *testing.T, l *ledger) {
		l.did([]string{"ended", "live", "parked", "fresh", "lost", "forgotten"}, opDo)
		l.did([]string{"undone"}, opDo, opUndo)
		l.did([]string{"tomb"}, opUndo)
		l.did([]string{"seat"}, opTry, opConfirm)
		others := newLedger(t, l.db, l.guard.dialect, "acme")
		others.did([]string{"ended"}, opDo)
		source := inbox.New(l.guard.dialect, "ended")
		if _, err := source.Once(t.Context(), l.db, "x b do", func(tx *sql.Tx) error {
			for _, key := range []string{"ended b undo", "ended b do ", "ended  do", " b do", "ended b c do", "plain"} {
				if _, err := inbox.Claim(t.Context(), tx, l.guard.dialect, key); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		notOurs := []string{"ended\x00x b do", "ended b undo", "ended b do ", "ended  do", " b do", "ended b c do", "plain", "acme ended b do"}
		l.age(100*time.Hour, "ended", "live", "parked", "lost", "undone", "tomb", "seat", "acme", "plain", " ")
		l.age(31*day, "forgotten")
		said := (&oracle{}).know(fateEnded, "ended", "fresh", "undone", "tomb", "seat").know(fateLive, "live", "parked")
		l.ask(said)
		l.round(6, 1)
		l.wantLeft(append(notOurs, "live b do", "parked b do", "fresh b do", "lost b do")...)
		l.round(0, 0)
		if len(said.namespace) > 0 || said.asked[0].GetEndedFor().AsDuration() != 72*time.Hour {
			t.Errorf("asked of namespace %q: %v", said.namespace, said.asked[0])
		}

		want(t, l.op("parked", opDo), codeOK, `{"Balance":3}`, "")
		l.did([]string{"live"}, opUndo)
		if all := effects(t, l.db); all[len(all)-1] != "undo alice 5 balance 2" || len(all) != 12 {
			t.Errorf("effects %q", all)
		}

		said.know(fateEnded, "live", "parked")
		others.ask(said)
		others.round(1, 0)
		if !slices.Equal(said.namespace, []string{"acme"}) || slices.Contains(l.left(), "acme ended b do") {
			t.Errorf("asked of namespace %q, left %q", said.namespace, l.left())
		}
	})
}

// fill makes claims of a great many transactions, all of one moment or each
// younger than the one before.
func (l *ledger) fill(age time.Duration, step int, keys ...string) {
	l.t.Helper()
	err := outbox.InTx(l.t.Context(), l.db, nil, func(tx *sql.Tx) error {
		for i, key := range keys {
			if _, err := inbox.Claim(l.t.Context(), tx, l.guard.dialect, key); err != nil {
				return err
			}
			if _, err := tx.ExecContext(l.t.Context(), "UPDATE amends_inbox SET claimed_at = ? WHERE claim_key = ?",
				time.Now().Add(-age).UnixMicro()+int64(i*step), []byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestPurgeOfMany: a round takes page after page, a later one only what has
// become old since, and once in a day all that was kept.
func TestPurgeOfMany(t *testing.T) {
	onLedgers(t, func(t *testing.T, l *ledger) {
		said := &oracle{}
		var claims []string
		for i := range 400 {
			gid := fmt.Sprint("g", i)
			claims = append(claims, gid+" b try", gid+" b end", "orders\x00"+gid)
			if i%3 != 0 {
				said.know(fateEnded, gid)
			} else {
				said.know(fateLive, gid)
			}
		}
		l.fill(100*time.Hour, 1, claims[:600]...)
		l.fill(100*time.Hour, 0, claims[600:]...)
		l.ask(said)
		l.round(2*266, 0)
		if got := len(l.left()); got != 400+2*134 {
			t.Errorf("%d claims are left", got)
		}
		asked := len(said.asked)
		for _, req := range said.asked {
			if n := len(req.GetGids()); n > purgePage+1 {
				t.Errorf("asked about %d at once", n)
			}
		}
		l.fill(99*time.Hour, 1, "late b do")
		said.know(fateEnded, "late", "g0")
		if l.round(1, 0); len(said.asked) != asked+1 || len(said.asked[asked].GetGids()) != 2 {
			t.Errorf("asked about what it had asked about before: %v", said.asked[asked:])
		}
		for range purgeAgain - 2 {
			l.round(0, 0)
		}
		l.round(2, 0)
	})
}

// TestPurgeOfTheUnknown: a coordinator that knows nothing of what the guard did
// may be another one than before, from the start or all of a sudden.
func TestPurgeOfTheUnknown(t *testing.T) {
	l := newLedger(t, database(t), outbox.SQLite, "")
	said := &oracle{}
	l.ask(said)
	l.fill(50*day, 1, "a b do", "b b do", "c b do")
	l.fill(10*day, 1, "d b do")
	l.round(0, 0)
	if l.round(0, 0); strings.Count(l.log.String(), "knows none") != 1 {
		t.Errorf("says %s", l.log)
	}
	said.know(fateLive, "e") // the only one that was not purged there
	l.fill(9*day, 1, "e b do")
	l.round(0, 0) // it looks at e for the first time, behind the others
	l.round(0, 3)
	l.wantLeft("d b do", "e b do")

	l.fill(50*day, 1, "f b do", "g b do")
	stranger := &oracle{}
	l.asks.ask[0].rpc = amendsv1.NewTransactionServiceClient(stranger)
	for range 2 * purgeAgain {
		l.round(0, 0)
	}
	l.asks.ask[0].rpc = amendsv1.NewTransactionServiceClient(said)
	for range purgeAgain {
		n, err := l.asks.round(t.Context())
		if err != nil || n.ended > 0 {
			t.Error(n, err)
		}
	}
	l.wantLeft("d b do", "e b do")

	l.asks.cfg.UnknownAfter = -1
	l.fill(500*day, 1, "h b do")
	for range purgeAgain {
		l.round(0, 0)
	}
}

// TestPurgeAsksEverybody: of several coordinators each knows its own.
func TestPurgeAsksEverybody(t *testing.T) {
	l := newLedger(t, database(t), outbox.SQLite, "")
	one := (&oracle{}).know(fateEnded, "ended", "both").know(fateLive, "one")
	other := (&oracle{}).know(fateLive, "two", "both")
	claims := []string{"ended b do", "both b do", "one b do", "two b do", "none b do"}
	l.fill(50*day, 1, claims...)
	for _, failing := range []*oracle{one, other} {
		failing.err = ErrUnavailable.With("it restarts")
		l.ask(one, other)
		if n, err := l.asks.round(t.Context()); !errors.Is(err, ErrUnavailable) || n != (purged{}) {
			t.Errorf("purged %v (%v) without asking everybody", n, err)
		}
		failing.err = nil
	}
	l.wantLeft(claims...)
	l.round(1, 1)
	l.wantLeft("both b do", "one b do", "two b do")

	l.fill(50*day, 1, "none b do")
	l.ask(one, &oracle{}) // who has never known anything
	l.round(1, 0)
	l.wantLeft("one b do", "two b do", "none b do")
}

// TestPurgeOfAnOldCoordinator: whoever does not know the question keeps all
// claims, until it is upgraded.
func TestPurgeOfAnOldCoordinator(t *testing.T) {
	l := newLedger(t, database(t), outbox.SQLite, "")
	l.fill(50*day, 1, "g b do")
	l.asks = l.newPurge([]grpc.ClientConnInterface{serve(t, &fakeCoordinator{})})
	for range 3 {
		n, err := l.asks.round(t.Context())
		if l.asks.report(t.Context(), n, err); status.Code(err) != codes.Unimplemented {
			t.Errorf("%v, want Unimplemented", err)
		}
	}
	if strings.Count(l.log.String(), "too old") != 1 || strings.Count(l.log.String(), "\n") != 1 {
		t.Errorf("says %s", l.log)
	}
	l.asks.ask[0].rpc = amendsv1.NewTransactionServiceClient((&oracle{}).know(fateEnded, "g"))
	l.round(1, 0)
	l.wantLeft()
}

// TestRunPurges: it is Run that purges, within the first hour and from then on,
// and that outlives what goes wrong.
func TestRunPurges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t, database(t), outbox.SQLite, "")
		said := (&oracle{}).know(fateEnded, "a", "b")
		l.fill(100*time.Hour, 1, "a b do")
		said.err = ErrUnavailable.With("it restarts")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx, said) }()
		time.Sleep(time.Hour + time.Minute)
		said.mu.Lock()
		failed := len(said.asked)
		said.err = nil
		said.mu.Unlock()
		time.Sleep(time.Hour)
		l.wantLeft()
		l.fill(100*time.Hour, 1, "b b do")
		time.Sleep(time.Hour)
		l.wantLeft()
		stop()
		if err := <-ended; err != nil || failed != 1 {
			t.Errorf("Run ended with %v, after %d questions in the first hour", err, failed)
		}
	})
}

func TestPurgeConfig(t *testing.T) {
	defer func() {
		said := fmt.Sprint(recover())
		for _, part := range []string{"Purge.After is 59m0s", "Purge.UnknownAfter is 1s", "Purge.Interval is 1s"} {
			if !strings.Contains(said, part) {
				t.Errorf("%s: no word of %q", said, part)
			}
		}
	}()
	db := database(t)
	for _, test := range []struct {
		p    *Participant
		want PurgeConfig
	}{
		{NewParticipant("a", db, outbox.SQLite, nil), PurgeConfig{72 * time.Hour, 30 * day, time.Hour}},
		{NewParticipant("a", db, outbox.SQLite, &ParticipantConfig{Purge: &PurgeConfig{After: 90 * day, Interval: time.Minute}}),
			PurgeConfig{90 * day, 90 * day, time.Minute}},
	} {
		if p := test.p.newPurge(nil); p.cfg != test.want {
			t.Errorf("%+v, want %+v", p.cfg, test.want)
		}
	}
	if NewParticipant("a", db, outbox.SQLite, &ParticipantConfig{Purge: &PurgeConfig{After: -1}}).newPurge(nil) != nil ||
		NewChecker("a", nil).newPurge(nil) != nil {
		t.Error("it purges where it should not")
	}
	NewParticipant("a", db, outbox.SQLite, &ParticipantConfig{Purge: &PurgeConfig{
		After: time.Hour - time.Minute, UnknownAfter: time.Second, Interval: time.Second}})
}

// TestGuardsGID: a claim of the guard is known by its key, and by the words of
// no other namespace.
func TestGuardsGID(t *testing.T) {
	for _, namespace := range []string{"", "acme"} {
		info := CallInfo{Namespace: namespace, GID: "order-17", Branch: "b/1"}
		for _, op := range []string{"do", "try", endKey} {
			key := info.key(op)
			for _, in := range []string{"", "acme", "order-17", "other"} {
				if gid, ok := guardsGID(key, in); ok != (in == namespace) || ok && gid != info.GID {
					t.Errorf("%q in %q: %q, %t", key, in, gid, ok)
				}
			}
		}
	}
	for _, key := range []string{"", "do", "a do", "a b", "a b undo", "a b confirm", " b do", "a  do", "a b c d do", "a\x00b c do",
		"a\xff b do", "a\nb c do", strings.Repeat("g", 129) + " b do"} {
		if gid, ok := guardsGID(key, ""); ok {
			t.Errorf("%q is taken for a claim of %q", key, gid)
		}
	}
}
