package simulation

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/tcc"
)

// The bank: two services with a database each, and accounts in both. Money goes
// from one to the other; what is there in all never changes.
const (
	accounts = 3
	opening  = 1000 // cents in each account

	ledgerTopic = "ledger"

	bankSchema = `
CREATE TABLE accounts (id TEXT PRIMARY KEY, cents INTEGER NOT NULL);
CREATE TABLE effects (n INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE ledger (n INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, msg TEXT NOT NULL);
CREATE TABLE orders (gid TEXT PRIMARY KEY, said TEXT NOT NULL)`
)

var services = []string{"left", "right"}

type order struct {
	Account string
	Cents   int64
}

// actions are what a service can do.
type actions struct {
	move, note, stamp, veto saga.Action[order, int64]
	hold                    tcc.Action[order, int64]
}

func actionsOf(service string) actions {
	r := txn.Retry{Initial: 200 * time.Millisecond, Cap: 5 * time.Second, CallTimeout: 3 * time.Second}
	step := func(name string) saga.Action[order, int64] {
		return saga.NewAction[order, int64](service + "." + name).WithRetry(r)
	}
	return actions{step("move"), step("note"), step("stamp"), step("veto"), tcc.NewAction[order, int64](service + ".hold").WithRetry(r)}
}

var (
	left, right = actionsOf("left"), actionsOf("right")

	errNo    = errors.New("the bank says no")
	errNever = errors.New("it cannot be undone")
	errUpset = errors.New("simulation: the handler failed")
)

func (w *world) newBank(service string) *database {
	schema := bankSchema + ";"
	for i := range accounts {
		schema += fmt.Sprintf("INSERT INTO accounts VALUES ('%s%d', %d);", service, i, opening)
	}
	d := w.newDatabase(service, schema)
	if err := outbox.Migrate(w.t.Context(), d.anchor, outbox.SQLite); err != nil {
		w.t.Fatal(err)
	}
	return d
}

// keepTeller lives the lives of one instance of a service.
func (w *world) keepTeller(service string, d *database, instance int) {
	w.keep(fmt.Sprintf("%s%d", service, instance), func(p *process) {
		db := d.open(p)
		box := outbox.New(outbox.SQLite, nil)
		part := sdk.NewParticipant(service, db, outbox.SQLite, &sdk.ParticipantConfig{
			Instance: p.id, SkipMigrate: true, DrainTimeout: time.Second, Logger: quiet, Outbox: box, Concurrency: 256})
		t := &teller{w: w, p: p, box: box, service: service}
		t.register(part, actionsOf(service))
		conns := make([]grpc.ClientConnInterface, members)
		for i := range conns {
			conns[i] = &wire{w: w, from: p, to: w.memberName(i)}
		}
		if err := part.Run(p.ctx, conns...); err != nil && !p.dead.Load() {
			w.violation("%s ended by itself: %v", p.id, err)
		}
		if err := db.Close(); err != nil && !p.dead.Load() {
			w.violation("%s: close its database: %v", p.id, err)
		}
	})
}

// teller is an instance's handlers.
type teller struct {
	w       *world
	p       *process
	box     *outbox.Outbox
	service string
}

func (t *teller) register(p *sdk.Participant, a actions) {
	do := func(factor int64, says error) func(context.Context, *sql.Tx, order) (int64, error) {
		return func(ctx context.Context, tx *sql.Tx, o order) (int64, error) {
			return t.work(ctx, tx, o.Account, factor*o.Cents, says)
		}
	}
	undo := func(factor int64, says error) func(context.Context, *sql.Tx, order, int64) error {
		return func(ctx context.Context, tx *sql.Tx, o order, did int64) error {
			if did != 7 {
				return fmt.Errorf("the first phase is said to have replied %d", did)
			}
			_, err := t.work(ctx, tx, o.Account, factor*o.Cents, says)
			return err
		}
	}
	sdk.HandleSaga(p, a.move, do(1, nil), undo(-1, nil))
	sdk.HandleSaga(p, a.note, do(0, nil), nil)
	sdk.HandleSaga(p, a.stamp, do(0, nil), undo(0, errNever))
	sdk.HandleSaga(p, a.veto, do(0, errNo), undo(0, nil))
	sdk.HandleTCC(p, a.hold, do(0, nil), undo(1, nil), undo(0, nil)) // money moves when it is confirmed
}

// work is an operation's effect, in one transaction: on the account, in the
// list of effects, and a message about it.
func (t *teller) work(ctx context.Context, tx *sql.Tx, account string, cents int64, says error) (int64, error) {
	info, ok := sdk.Info(ctx)
	if !ok {
		return 0, errors.New("a call without info")
	}
	w := t.w
	what := fmt.Sprintf("%s/%s %v", info.GID, info.Branch, info.Op)
	n := w.nth("work", what)
	pause := w.upTo(20*time.Millisecond, "work", what, n)
	if w.rough(0.01, "slow handler", what, n) {
		pause = w.upTo(5*time.Second, "slow handler", what, n)
	}
	if err := sleep(ctx, pause); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO effects (what, cents) VALUES (?, ?)`, what, cents); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE accounts SET cents = cents + ? WHERE id = ?`, cents, account); err != nil {
		return 0, err
	}
	if err := t.tell(ctx, tx, account, what); err != nil {
		return 0, err
	}
	first := info.Op == txn.Do || info.Op == txn.Try
	switch {
	case says != nil:
		return 0, sdk.Refuse(says)
	case first && w.happens(w.refusals, "refuse", info.GID, info.Branch) && info.Branch != "note" && info.Branch != "stamp":
		return 0, sdk.Refuse(errNo)
	case w.rough(0.04, "handler fails", what, n):
		return 0, errUpset
	}
	w.say(t.p.id, "does %s", what)
	return 7, nil
}

// tell writes a message about an effect. One service is enough.
func (t *teller) tell(ctx context.Context, tx *sql.Tx, account, what string) error {
	if t.service != "left" {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO ledger (account, msg) VALUES (?, ?)`, account, what); err != nil {
		return err
	}
	return t.box.Write(ctx, tx, outbox.Message{ID: what, Topic: ledgerTopic, Key: account, Body: []byte(what)})
}
