package sdk

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

type debitReq struct {
	From  string
	Cents int
}

type debitRep struct{ Balance int }

var (
	debit  = saga.NewAction[debitReq, debitRep]("accounts.debit")
	ship   = saga.NewAction[debitReq, debitRep]("accounts.ship")
	odd    = saga.NewAction[debitReq, debitRep]("accounts.odd").WithCodec(shout{})
	note   = saga.NewAction[debitReq, debitRep]("accounts.note") // replies the zero value
	seat   = tcc.NewAction[debitReq, debitRep]("accounts.seat")
	errOut = errors.New("no money")
)

// shout is a codec that JSON cannot read.
type shout struct{}

func (shout) Marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append([]byte("!"), b...), err
}

func (shout) Unmarshal(b []byte, v any) error {
	if len(b) == 0 || b[0] != '!' {
		return fmt.Errorf("%q does not begin with !", b)
	}
	return json.Unmarshal(b[1:], v)
}

// bench is a participant without a stream whose handlers do what the test says.
type bench struct {
	*Participant
	db      *sql.DB
	meet    func(ctx context.Context, tx *sql.Tx, req debitReq) error // in do and try, before the effect
	meetEnd func(ctx context.Context, tx *sql.Tx) error               // in undo, confirm and cancel, before the effect
	runs    int
	mu      sync.Mutex
}

func newBench(t *testing.T, dsn ...string) *bench {
	t.Helper()
	return benchOn(database(t, dsn...), outbox.SQLite)
}

// benchOn is a bench on a database with the guard's tables and one of effects.
func benchOn(db *sql.DB, d *outbox.Dialect) *bench {
	b := &bench{db: db, Participant: NewParticipant("accounts", db, d, &ParticipantConfig{Logger: quiet()})}
	HandleSaga(b.Participant, debit, b.do("do"), b.end("undo"))
	HandleSaga(b.Participant, odd, b.do("do"), b.end("undo"))
	HandleSaga(b.Participant, ship, b.do("ship"), nil)
	HandleTCC(b.Participant, seat, b.do("try"), b.end("confirm"), b.end("cancel"))
	HandleSaga(b.Participant, note, func(ctx context.Context, tx *sql.Tx, req debitReq) (debitRep, error) {
		_, err := b.do("note")(ctx, tx, req)
		return debitRep{}, err
	}, b.end("undo"))
	return b
}

func (b *bench) do(name string) func(context.Context, *sql.Tx, debitReq) (debitRep, error) {
	return func(ctx context.Context, tx *sql.Tx, req debitReq) (debitRep, error) {
		b.mu.Lock()
		b.runs++
		n := b.runs
		b.mu.Unlock()
		if err := effect(ctx, tx, fmt.Sprintf("%s %s %d", name, req.From, req.Cents)); err != nil {
			return debitRep{}, err
		}
		if b.meet != nil {
			if err := b.meet(ctx, tx, req); err != nil {
				return debitRep{}, err
			}
		}
		return debitRep{Balance: n}, nil
	}
}

func (b *bench) end(name string) func(context.Context, *sql.Tx, debitReq, debitRep) error {
	return func(ctx context.Context, tx *sql.Tx, req debitReq, did debitRep) error {
		if b.meetEnd != nil {
			if err := b.meetEnd(ctx, tx); err != nil {
				return err
			}
		}
		return effect(ctx, tx, fmt.Sprintf("%s %s %d balance %d", name, req.From, req.Cents, did.Balance))
	}
}

func msg(op amendsv1.Op, action string) *amendsv1.Call {
	return &amendsv1.Call{
		Gid: "g", Branch: "b", Index: 3, Op: op, Action: action, Attempt: 1, Payload: []byte(`{"From":"alice","Cents":5}`),
		Timeout: durationpb.New(patience),
	}
}

func (b *bench) call(t *testing.T, op amendsv1.Op, action string) *amendsv1.Outcome {
	t.Helper()
	return b.answer(t.Context(), b.newCall(msg(op, action)))
}

const (
	opDo, opUndo, opTry  = amendsv1.Op_OP_DO, amendsv1.Op_OP_UNDO, amendsv1.Op_OP_TRY
	opConfirm, opCancel  = amendsv1.Op_OP_CONFIRM, amendsv1.Op_OP_CANCEL
	codeOK, codeRef      = amendsv1.OutcomeCode_OUTCOME_CODE_OK, amendsv1.OutcomeCode_OUTCOME_CODE_REFUSED
	codeUnk              = amendsv1.OutcomeCode_OUTCOME_CODE_UNKNOWN
	debitName, shipName  = "accounts.debit", "accounts.ship"
	seatName, firstReply = "accounts.seat", `{"Balance":1}`
	noteName, noteReply  = "accounts.note", `{"Balance":0}`
)

func want(t *testing.T, out *amendsv1.Outcome, code amendsv1.OutcomeCode, reply, message string) {
	t.Helper()
	if out.GetCode() != code || string(out.GetReply()) != reply || !strings.Contains(out.GetMessage(), message) {
		t.Fatalf("outcome %v reply %q message %q; want %v, %q, …%s…",
			out.GetCode(), out.GetReply(), out.GetMessage(), code, reply, message)
	}
}

func (b *bench) stands(t *testing.T, all ...string) {
	t.Helper()
	if got := effects(t, b.db); !slices.Equal(got, all) {
		t.Fatalf("effects %q, want %q", got, all)
	}
}

// TestGuardScripts delivers operations in every order that matters, and repeats
// the last of each one.
func TestGuardScripts(t *testing.T) {
	for _, s := range guardScripts() {
		t.Run(s.name, func(t *testing.T) { s.play(t, newBench(t)) })
	}
}

type script struct {
	name   string
	steps  []scriptStep
	stands []string
}

type scriptStep struct {
	op             amendsv1.Op
	action         string
	code           amendsv1.OutcomeCode
	reply, message string
}

func (s *script) play(t *testing.T, b *bench) {
	for _, step := range append(s.steps, s.steps[len(s.steps)-1]) {
		want(t, b.call(t, step.op, step.action), step.code, step.reply, step.message)
	}
	b.stands(t, s.stands...)
}

func guardScripts() []script {
	type step = scriptStep
	do, try := "do alice 5", "try alice 5"
	return []script{
		{"do twice", []step{{opDo, debitName, codeOK, firstReply, ""}, {opDo, debitName, codeOK, firstReply, ""}}, []string{do}},
		{"undo first", []step{{opUndo, debitName, codeOK, "", ""}, {opDo, debitName, codeRef, "", "undone before it arrived"}}, nil},
		{"undo twice first", []step{{opUndo, debitName, codeOK, "", ""}, {opUndo, debitName, codeOK, "", ""}}, nil},
		{"undo twice", []step{
			{opDo, debitName, codeOK, firstReply, ""}, {opUndo, debitName, codeOK, "", ""}, {opUndo, debitName, codeOK, "", ""},
		}, []string{do, "undo alice 5 balance 1"}},
		{"do after undo", []step{
			{opDo, debitName, codeOK, firstReply, ""}, {opUndo, debitName, codeOK, "", ""}, {opDo, debitName, codeOK, firstReply, ""},
		}, []string{do, "undo alice 5 balance 1"}},
		{"no undo", []step{
			{opDo, shipName, codeOK, firstReply, ""}, {opUndo, shipName, codeRef, firstReply, "has no undo"},
			{opDo, shipName, codeOK, firstReply, ""},
		}, []string{"ship alice 5"}},
		{"no undo, not done", []step{
			{opUndo, shipName, codeOK, "", ""}, {opDo, shipName, codeRef, "", "undone before it arrived"},
		}, nil},
		{"confirm twice", []step{
			{opTry, seatName, codeOK, firstReply, ""}, {opTry, seatName, codeOK, firstReply, ""},
			{opConfirm, seatName, codeOK, "", ""}, {opConfirm, seatName, codeOK, "", ""},
		}, []string{try, "confirm alice 5 balance 1"}},
		{"cancel twice", []step{
			{opTry, seatName, codeOK, firstReply, ""}, {opCancel, seatName, codeOK, "", ""}, {opCancel, seatName, codeOK, "", ""},
		}, []string{try, "cancel alice 5 balance 1"}},
		{"cancel first", []step{
			{opCancel, seatName, codeOK, "", ""}, {opTry, seatName, codeRef, "", "cancelled before it arrived"},
			{opConfirm, seatName, codeRef, "", "was cancelled before"},
		}, nil},
		{"confirm first", []step{
			{opConfirm, seatName, codeRef, "", "not on record"}, {opTry, seatName, codeOK, firstReply, ""},
		}, []string{try}},
		{"confirm, then cancel", []step{
			{opTry, seatName, codeOK, firstReply, ""}, {opConfirm, seatName, codeOK, "", ""},
			{opCancel, seatName, codeRef, firstReply, "cancel came after confirm"},
		}, []string{try, "confirm alice 5 balance 1"}},
		{"cancel, then confirm", []step{
			{opTry, seatName, codeOK, firstReply, ""}, {opCancel, seatName, codeOK, "", ""},
			{opConfirm, seatName, codeRef, firstReply, "confirm came after cancel"},
		}, []string{try, "cancel alice 5 balance 1"}},
		{"operation of the other kind", []step{
			{opTry, debitName, codeRef, "", "registered with HandleSaga and does not handle try"},
			{opCancel, debitName, codeOK, "", ""}, {opDo, seatName, codeRef, "", "registered with HandleTCC"},
			{opUndo, seatName, codeOK, "", ""},
		}, nil},
		{"action not offered", []step{{opDo, "accounts.gone", codeUnk, "", "does not offer"}}, nil},
		{"operation of the future", []step{{99, debitName, codeUnk, "", "no operation"}}, nil},
		{"nothing to reply", []step{
			{opDo, noteName, codeOK, noteReply, ""}, {opDo, noteName, codeOK, noteReply, ""},
			{opUndo, noteName, codeOK, "", ""}, {opDo, noteName, codeOK, noteReply, ""},
		}, []string{"note alice 5", "undo alice 5 balance 0"}},
		{"nothing to reply, undo first", []step{
			{opUndo, noteName, codeOK, "", ""}, {opDo, noteName, codeRef, "", "undone before it arrived"},
		}, nil},
	}
}

func TestOutcomeNamesItsCall(t *testing.T) {
	out := newBench(t).call(t, opDo, debitName)
	if out.GetGid() != "g" || out.GetIndex() != 3 || out.GetOp() != opDo || out.GetAttempt() != 1 {
		t.Fatalf("%v", out)
	}
}

func TestKeysOfDifferentCallsDiffer(t *testing.T) {
	b := newBench(t)
	for i, names := range [][2]string{{"a/b", "c"}, {"a", "b/c"}, {"a", "b"}} {
		m := msg(opDo, debitName)
		m.Gid, m.Branch = names[0], names[1]
		want(t, b.answer(t.Context(), b.newCall(m)), codeOK, fmt.Sprintf(`{"Balance":%d}`, i+1), "")
	}
}

// TestFailedHandler checks that whatever a handler does wrong leaves no trace,
// and that the same call is performed when it comes again.
func TestFailedHandler(t *testing.T) {
	type meet func(ctx context.Context, tx *sql.Tx, _ debitReq) error
	tests := []struct {
		name    string
		meet    meet
		code    amendsv1.OutcomeCode
		message string
	}{
		{"refuses", func(context.Context, *sql.Tx, debitReq) error { return fmt.Errorf("wrapped: %w", Refuse(errOut)) },
			codeRef, "wrapped: no money"},
		{"refuses nil", func(context.Context, *sql.Tx, debitReq) error { return Refuse(nil) }, codeRef, "without a reason"},
		{"fails", func(context.Context, *sql.Tx, debitReq) error { return errOut }, codeUnk, "no money"},
		{"fails in bytes that are not UTF-8", func(context.Context, *sql.Tx, debitReq) error { return errors.New("\xff") },
			codeUnk, "\uFFFD"},
		{"panics", func(context.Context, *sql.Tx, debitReq) error { panic("oh") }, codeUnk, "panicked: oh"},
		{"rolls back", func(_ context.Context, tx *sql.Tx, _ debitReq) error { return tx.Rollback() },
			codeUnk, "leave its end to the sdk"},
		{"rolls back and refuses", func(_ context.Context, tx *sql.Tx, _ debitReq) error {
			return Refuse(tx.Rollback())
		}, codeUnk, "leave its end to the sdk"},
		{"rolls back by statement", func(ctx context.Context, tx *sql.Tx, _ debitReq) error {
			_, err := tx.ExecContext(ctx, "ROLLBACK")
			return err
		}, codeUnk, "leave its end to the sdk"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.db.SetMaxOpenConns(1) // a transaction left open would be found by the next call
			b.meet = test.meet
			want(t, b.call(t, opDo, debitName), test.code, "", test.message)
			b.stands(t)
			b.meet = nil
			want(t, b.call(t, opDo, debitName), codeOK, `{"Balance":2}`, "")
			b.stands(t, "do alice 5")

			if test.name == "panics" {
				b.meetEnd = func(ctx context.Context, tx *sql.Tx) error { return test.meet(ctx, tx, debitReq{}) }
				want(t, b.call(t, opUndo, debitName), codeUnk, "", test.message)
			}
			b.meetEnd = nil
			want(t, b.call(t, opUndo, debitName), codeOK, "", "")
			b.stands(t, "do alice 5", "undo alice 5 balance 2")
		})
	}
}

func TestHandlerThatCommits(t *testing.T) {
	b := newBench(t)
	b.meet = func(_ context.Context, tx *sql.Tx, _ debitReq) error { return tx.Commit() }
	want(t, b.call(t, opDo, debitName), codeUnk, "", "leave its end to the sdk")
	b.stands(t, "do alice 5") // its own doing
	b.meet = nil
	want(t, b.call(t, opDo, debitName), codeUnk, "", "holds no record")
	want(t, b.call(t, opUndo, debitName), codeRef, "", "holds no record") // a person decides
	b.stands(t, "do alice 5")
}

func TestRefusedUndoCarriesTheReply(t *testing.T) {
	b := newBench(t)
	want(t, b.call(t, opDo, debitName), codeOK, firstReply, "")
	b.meetEnd = func(context.Context, *sql.Tx) error { return Refuse(errOut) }
	want(t, b.call(t, opUndo, debitName), codeRef, firstReply, "no money")
	b.meetEnd = func(context.Context, *sql.Tx) error { return errOut }
	want(t, b.call(t, opUndo, debitName), codeUnk, "", "no money")
	b.meetEnd = nil
	want(t, b.call(t, opUndo, debitName), codeOK, "", "")
}

func TestGoexitGivesTheSlotBack(t *testing.T) {
	b := newBench(t)
	b.meet = func(context.Context, *sql.Tx, debitReq) error { runtime.Goexit(); return nil }
	var wg sync.WaitGroup
	for range DefaultConcurrency + 1 {
		wg.Go(func() { b.call(t, opDo, debitName) })
	}
	wg.Wait()
	if n := len(b.slots); n != 0 {
		t.Fatalf("%d slots in use", n)
	}
	b.stands(t)
}

func TestCodecs(t *testing.T) {
	b := newBench(t)
	m := msg(opDo, "accounts.odd")
	m.Payload = []byte(`!{"From":"bob","Cents":7}`)
	want(t, b.answer(t.Context(), b.newCall(m)), codeOK, `!{"Balance":1}`, "")
	m.Op = opUndo
	want(t, b.answer(t.Context(), b.newCall(m)), codeOK, "", "")
	b.stands(t, "do bob 7", "undo bob 7 balance 1")

	m.Gid, m.Op, m.Payload = "g2", opDo, []byte("no")
	want(t, b.answer(t.Context(), b.newCall(m)), codeRef, "", "request cannot be decoded into sdk.debitReq")
	m.Op, m.Payload = opDo, []byte(`!{}`)
	want(t, b.answer(t.Context(), b.newCall(m)), codeOK, `!{"Balance":2}`, "")
	m.Op, m.Payload = opUndo, []byte("no") // owed, so never refused
	want(t, b.answer(t.Context(), b.newCall(m)), codeUnk, "", "request cannot be decoded")
}

func TestReplyThatCannotBeSent(t *testing.T) {
	p := NewParticipant("accounts", database(t), outbox.SQLite, &ParticipantConfig{Logger: quiet()})
	HandleSaga(p, saga.NewAction[int, chan int]("accounts.chan"),
		func(context.Context, *sql.Tx, int) (chan int, error) { return nil, nil }, nil)
	HandleSaga(p, saga.NewAction[int, string]("accounts.big"),
		func(context.Context, *sql.Tx, int) (string, error) { return strings.Repeat("x", MaxReply), nil }, nil)
	m := msg(opDo, "accounts.chan")
	m.Payload = []byte("1")
	want(t, p.answer(t.Context(), p.newCall(m)), codeRef, "", "cannot be encoded")
	m.Action = "accounts.big"
	want(t, p.answer(t.Context(), p.newCall(m)), codeRef, "", "at most 1048576")
}

func TestInfoAndReplyOf(t *testing.T) {
	b := newBench(t)
	var info CallInfo
	var near debitRep
	var found, other bool
	b.meet = func(ctx context.Context, _ *sql.Tx, _ debitReq) error {
		info, _ = Info(ctx)
		near, found = ReplyOf(ctx, debit)
		_, other = ReplyOf(ctx, odd)
		return nil
	}
	m := msg(opDo, debitName)
	m.Replies = []*amendsv1.StepReply{
		{Branch: "1", Action: debitName, Body: []byte(`{"Balance":10}`)},
		{Branch: "2", Action: debitName, Body: []byte(`{"Balance":20}`)},
		{Branch: "3", Action: shipName, Body: []byte(`{"Balance":30}`)},
	}
	want(t, b.answer(t.Context(), b.newCall(m)), codeOK, firstReply, "")
	if !found || near.Balance != 20 || other {
		t.Errorf("found %v, nearest %v, other %v", found, near, other)
	}
	if info.IdempotencyKey() != "g b do" || info.Service != "accounts" || info.Action != debitName || info.Op != txn.Do {
		t.Errorf("%+v", info)
	}
	if _, ok := Info(t.Context()); ok {
		t.Error("Info outside of a handler")
	}
	if _, ok := ReplyOf(t.Context(), debit); ok {
		t.Error("ReplyOf outside of a handler")
	}
	m.Gid, m.Replies[1].Body = "g2", []byte("no")
	want(t, b.answer(t.Context(), b.newCall(m)), codeUnk, "", `reply of step "2"`)
	b.stands(t, "do alice 5")
}

func TestCallTimeout(t *testing.T) {
	b := newBench(t)
	b.meet = func(ctx context.Context, _ *sql.Tx, _ debitReq) error { <-ctx.Done(); return Refuse(ctx.Err()) }
	m := msg(opDo, debitName)
	m.Timeout = durationpb.New(50 * time.Millisecond)
	want(t, b.answer(t.Context(), b.newCall(m)), codeUnk, "", "deadline exceeded")
	b.meet = func(ctx context.Context, _ *sql.Tx, _ debitReq) error { <-ctx.Done(); return nil }
	want(t, b.answer(t.Context(), b.newCall(m)), codeUnk, "", "")
	b.meet = nil
	want(t, b.call(t, opDo, debitName), codeOK, `{"Balance":3}`, "")
	b.stands(t, "do alice 5")
}

func TestBusyDatabaseIsUnknown(t *testing.T) {
	b := newBench(t, impatient)
	tx, err := b.db.BeginTx(t.Context(), nil) // takes the write lock
	if err != nil {
		t.Fatal(err)
	}
	want(t, b.call(t, opDo, debitName), codeUnk, "", "SQLITE_BUSY")
	want(t, b.call(t, opUndo, debitName), codeUnk, "", "SQLITE_BUSY")
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	want(t, b.call(t, opDo, debitName), codeOK, firstReply, "")
}

// TestFailedCommit has a deferred constraint fail the commit, which on SQLite
// leaves the transaction open on its connection.
func TestFailedCommit(t *testing.T) {
	b := newBench(t, "_pragma=foreign_keys(1)")
	b.db.SetMaxOpenConns(1)
	for _, stmt := range []string{
		"CREATE TABLE parents (id INTEGER PRIMARY KEY)",
		"CREATE TABLE children (id INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)",
	} {
		if _, err := b.db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	b.meet = func(ctx context.Context, tx *sql.Tx, _ debitReq) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO children VALUES (1)")
		return err
	}
	want(t, b.call(t, opDo, debitName), codeUnk, "", "commit: ")
	b.meet = nil
	want(t, b.call(t, opDo, debitName), codeOK, `{"Balance":2}`, "")
	b.stands(t, "do alice 5")
}

// TestConcurrentDoAndUndo races deliveries of the same do with its undo, each
// until it is answered for good: either the do took effect and was undone, or
// neither ran.
func TestConcurrentDoAndUndo(t *testing.T) { raceDoAndUndo(t, newBench(t), debitName, "do") }

// raceDoAndUndo calls an action whose effect begins with a word.
func raceDoAndUndo(t *testing.T, b *bench, action, word string) {
	var wg sync.WaitGroup
	finally := func(m *amendsv1.Call) {
		for range 100 {
			if b.answer(t.Context(), b.newCall(m)).GetCode() != codeUnk {
				return
			}
		}
		t.Errorf("%s %v never answered", m.GetGid(), m.GetOp())
	}
	const transactions = 40
	for i := range transactions {
		for _, op := range []amendsv1.Op{opDo, opUndo, opDo, opUndo} {
			m := msg(op, action)
			m.Gid = fmt.Sprint("g", i)
			m.Payload = fmt.Appendf(nil, `{"From":"a%d","Cents":1}`, i)
			wg.Go(func() { finally(m) })
		}
	}
	wg.Wait()
	count := map[string]int{}
	for _, e := range effects(t, b.db) {
		f := strings.Fields(e)
		count[f[0]+" "+f[1]]++
	}
	done := 0
	for i := range transactions {
		do, undo := count[fmt.Sprintf("%s a%d", word, i)], count[fmt.Sprint("undo a", i)]
		if do != undo || do > 1 {
			t.Errorf("a%d: %d do, %d undo", i, do, undo)
		}
		done += do
	}
	t.Logf("%d of %d were done before they were undone", done, transactions)
}
