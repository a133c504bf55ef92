package sdk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// benchDB is a database on the real server for benchOn. Its transactions run at
// REPEATABLE READ.
func benchDB(t *testing.T) *sql.DB {
	t.Helper()
	cfg, err := mysql.ParseDSN(servicestest.MySQL(t))
	if err != nil {
		t.Fatal(err)
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	const conns = 16
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxLifetime(0)
	var all []*sql.Conn
	for range conns {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, conn)
		if _, err := conn.ExecContext(t.Context(), `SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ`); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range all {
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := outbox.Migrate(t.Context(), db, outbox.MySQL); err != nil {
		t.Fatal(err)
	}
	run(t, db, `CREATE TABLE effects (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100) NOT NULL)`)
	return db
}

func run(t *testing.T, db *sql.DB, stmts ...string) {
	t.Helper()
	for _, s := range stmts {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestGuardScriptsOnMySQL(t *testing.T) {
	db := benchDB(t)
	for _, s := range guardScripts() {
		t.Run(s.name, func(t *testing.T) {
			run(t, db, `DELETE FROM amends_inbox`, `DELETE FROM effects`)
			s.play(t, benchOn(db, outbox.MySQL))
		})
	}
}

func TestConcurrentDoAndUndoOnMySQL(t *testing.T) {
	db := benchDB(t)
	raceDoAndUndo(t, benchOn(db, outbox.MySQL), debitName, "do")
	run(t, db, `DELETE FROM amends_inbox`, `DELETE FROM effects`)
	raceDoAndUndo(t, benchOn(db, outbox.MySQL), noteName, "note")
}

// TestEndOfTheHandlersOwn: a claim that holds its record beforehand does not
// stand for what a handler did with its transaction itself.
func TestEndOfTheHandlersOwn(t *testing.T) {
	db := benchDB(t)
	run(t, db, `CREATE TABLE rivals (id INT PRIMARY KEY, n INT NOT NULL)`, `INSERT INTO rivals VALUES (1, 0), (2, 0)`)
	type meet = func(ctx context.Context, tx *sql.Tx, _ debitReq) error
	for _, test := range []struct {
		name      string
		meet      meet
		committed bool
		message   string
	}{
		{"commits", func(_ context.Context, tx *sql.Tx, _ debitReq) error { return tx.Commit() }, true, "leave its end"},
		{"commits and fails", func(_ context.Context, tx *sql.Tx, _ debitReq) error {
			return errors.Join(errOut, tx.Commit())
		}, true, "leave its end"},
		{"commits and refuses", func(_ context.Context, tx *sql.Tx, _ debitReq) error {
			return Refuse(errors.Join(errOut, tx.Commit()))
		}, true, "leave its end"},
		{"commits and panics", func(_ context.Context, tx *sql.Tx, _ debitReq) error {
			panic(fmt.Sprint("oh ", tx.Commit()))
		}, true, "panicked: oh"},
		{"rolls back", func(_ context.Context, tx *sql.Tx, _ debitReq) error { return tx.Rollback() }, false, "leave its end"},
		{"rolls back by statement", func(ctx context.Context, tx *sql.Tx, _ debitReq) error {
			_, err := tx.ExecContext(ctx, "ROLLBACK")
			return err
		}, false, "leave its end"},
		{"passes over a deadlock", func(ctx context.Context, tx *sql.Tx, _ debitReq) error {
			return loseDeadlock(ctx, tx, db)
		}, false, "return the errors of tx"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, db, `DELETE FROM amends_inbox`, `DELETE FROM effects`)
			b := benchOn(db, outbox.MySQL)
			b.meet = test.meet
			want(t, b.call(t, opDo, noteName), codeUnk, "", test.message)
			b.meet = nil
			if test.committed {
				want(t, b.call(t, opDo, noteName), codeUnk, "", "holds no record")
				want(t, b.call(t, opUndo, noteName), codeRef, "", "holds no record") // a person decides
				b.stands(t, "note alice 5")
				return
			}
			b.stands(t)
			want(t, b.call(t, opDo, noteName), codeOK, noteReply, "")
			b.stands(t, "note alice 5")
			b.meetEnd = func(ctx context.Context, tx *sql.Tx) error { return test.meet(ctx, tx, debitReq{}) }
			if out := b.call(t, opUndo, noteName); out.GetCode() != codeUnk {
				t.Fatalf("an undo that does so: %v", out)
			}
			b.meetEnd = nil
			want(t, b.call(t, opUndo, noteName), codeOK, "", "")
		})
	}
}

// loseDeadlock has tx meet another transaction that has changed more, and says
// nothing of the error.
func loseDeadlock(ctx context.Context, tx *sql.Tx, db *sql.DB) error {
	const take, also = `UPDATE rivals SET n = n + 1 WHERE id = 2`, `UPDATE rivals SET n = n + 1 WHERE id = 1`
	other, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for i := range 100 {
		if _, err := other.ExecContext(ctx, fmt.Sprintf(`INSERT INTO rivals VALUES (%d, 0)`, 100+i)); err != nil {
			return errors.Join(err, other.Rollback())
		}
	}
	if _, err := other.ExecContext(ctx, take); err != nil {
		return errors.Join(err, other.Rollback())
	}
	if _, err := tx.ExecContext(ctx, also); err != nil {
		return errors.Join(err, other.Rollback())
	}
	var g errgroup.Group
	g.Go(func() error {
		_, err := other.ExecContext(ctx, also)
		return errors.Join(err, other.Rollback())
	})
	_, lost := tx.ExecContext(ctx, take)
	if err := g.Wait(); err != nil {
		return err
	}
	if !outbox.MySQL.Retryable(lost) {
		return fmt.Errorf("no deadlock: %w", lost)
	}
	return nil
}

// TestUndoMeetsItsDo: an undo that found no do, because that was under way, does
// not work with what the database was like then.
func TestUndoMeetsItsDo(t *testing.T) {
	db := benchDB(t)
	b := benchOn(db, outbox.MySQL)
	claimed, goOn := make(chan struct{}), make(chan struct{})
	b.meet = func(context.Context, *sql.Tx, debitReq) error { close(claimed); <-goOn; return nil }
	seen := -1
	b.meetEnd = func(ctx context.Context, tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT count(*) FROM effects`).Scan(&seen)
	}
	outcomes := make(chan *amendsv1.Outcome, 2)
	answer := func(op amendsv1.Op) { outcomes <- b.answer(t.Context(), b.newCall(msg(op, noteName))) }
	go answer(opDo)
	receive(t, "the do", claimed)
	go answer(opUndo)
	awaitLockWait(t, db)
	close(goOn)
	for range 2 {
		if out := receive(t, "an outcome", outcomes); out.GetCode() != codeOK {
			t.Fatal(out)
		}
	}
	if seen != 1 {
		t.Errorf("the undo saw %d effects of its do", seen)
	}
	b.stands(t, "note alice 5", "undo alice 5 balance 0")
}

// awaitLockWait returns when a transaction of the database waits for a lock.
func awaitLockWait(t *testing.T, db *sql.DB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for waiting := 0; waiting == 0; <-time.After(150 * time.Millisecond) { // a table that is read more often stays as it is
		err := db.QueryRowContext(ctx, `SELECT count(*) FROM information_schema.innodb_trx t
JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
WHERE p.db = DATABASE() AND t.trx_state = 'LOCK WAIT'`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestUsualCallsUpdateNothing: what is known beforehand is inserted with the claim.
func TestUsualCallsUpdateNothing(t *testing.T) {
	db := benchDB(t)
	db.SetMaxOpenConns(1)
	updates := func() (n int) {
		var name string
		if err := db.QueryRowContext(t.Context(), `SHOW SESSION STATUS LIKE 'Com_update'`).Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	b := benchOn(db, outbox.MySQL)
	before := updates()
	for i, c := range []struct {
		op     amendsv1.Op
		action string
		want   int
	}{{opDo, noteName, 0}, {opUndo, noteName, 0}, {opDo, noteName, 0}, {opTry, seatName, 1}, {opConfirm, seatName, 0}} {
		m := msg(c.op, c.action)
		m.Gid = c.action
		if out := b.answer(t.Context(), b.newCall(m)); out.GetCode() != codeOK {
			t.Fatal(out)
		}
		now := updates()
		if now-before != c.want {
			t.Errorf("call %d: %d updates, want %d", i, now-before, c.want)
		}
		before = now
	}
}
