package sdk

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// onMySQL is a participant on MySQL whose handler of debit the test gives.
func onMySQL(t *testing.T, handle func(ctx context.Context, tx *sql.Tx, req debitReq) (debitRep, error)) (*Participant, *sql.DB) {
	t.Helper()
	db, err := sql.Open("mysql", servicestest.MySQL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := outbox.Migrate(t.Context(), db, outbox.MySQL); err != nil {
		t.Fatal(err)
	}
	p := NewParticipant("accounts", db, outbox.MySQL, &ParticipantConfig{Logger: quiet()})
	HandleSaga(p, debit, handle, nil)
	return p, db
}

func answerDebit(ctx context.Context, p *Participant, gid string) *amendsv1.Outcome {
	m := msg(amendsv1.Op_OP_DO, "accounts.debit")
	m.Gid = gid
	return p.answer(ctx, p.newCall(m))
}

// TestDeadlockIsNoAttempt: of two calls that wait for each other the database
// rolls one back. Both have taken effect when they are answered.
func TestDeadlockIsNoAttempt(t *testing.T) {
	const move = `UPDATE accounts SET cents = cents + 1 WHERE name = ?`
	rows := map[string][2]string{"g1": {"a", "b"}, "g2": {"b", "a"}}
	var meet sync.WaitGroup
	meet.Add(len(rows))
	met := map[string]*sync.Once{"g1": new(sync.Once), "g2": new(sync.Once)}
	p, db := onMySQL(t, func(ctx context.Context, tx *sql.Tx, _ debitReq) (debitRep, error) {
		info, _ := Info(ctx)
		for i, row := range rows[info.GID] {
			if _, err := tx.ExecContext(ctx, move, row); err != nil {
				return debitRep{}, fmt.Errorf("row %s: %w", row, err)
			}
			if i == 0 {
				met[info.GID].Do(meet.Done)
				meet.Wait()
			}
		}
		return debitRep{}, nil
	})
	for _, q := range []string{`CREATE TABLE accounts (name VARCHAR(8) PRIMARY KEY, cents INT NOT NULL)`, `INSERT INTO accounts VALUES ('a', 0), ('b', 0)`} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	var g errgroup.Group
	for gid := range rows {
		g.Go(func() error {
			if out := answerDebit(t.Context(), p, gid); out.GetCode() != amendsv1.OutcomeCode_OUTCOME_CODE_OK {
				return fmt.Errorf("%s: %v", gid, out)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	var cents int
	if err := db.QueryRowContext(t.Context(), `SELECT sum(cents) FROM accounts`).Scan(&cents); err != nil || cents != 4 {
		t.Errorf("the accounts hold %d, want 4: %v", cents, err)
	}
}

// TestDeadlocksWithoutEnd: the coordinator hears of what does not pass.
func TestDeadlocksWithoutEnd(t *testing.T) {
	runs := 0
	p, _ := onMySQL(t, func(context.Context, *sql.Tx, debitReq) (debitRep, error) {
		runs++
		return debitRep{}, fmt.Errorf("always: %w", &mysql.MySQLError{Number: 1213, Message: "Deadlock found"})
	})
	if out := answerDebit(t.Context(), p, "g"); out.GetCode() != amendsv1.OutcomeCode_OUTCOME_CODE_UNKNOWN || runs != lockTries {
		t.Errorf("%v after %d runs, want unknown after %d", out, runs, lockTries)
	}
}
