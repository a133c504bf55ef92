// Embedded keeps the coordinator inside the one service that needs it: no other
// process, a directory for all that must survive. Each run starts a saga and
// leaves in the middle of it, as a crash would; the next run finishes what the
// last one began:
//
//	go run ./examples/embedded /tmp/amends-embedded
//	go run ./examples/embedded /tmp/amends-embedded
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
)

// Note is what both actions take.
type Note struct{ Text string }

// The actions: one that is quick, and one that the first run never answers.
var (
	Write = saga.NewAction[Note, struct{}]("notes.write")
	Send  = saga.NewAction[Note, struct{}]("notes.send").WithRetry(saga.Retry{Initial: 10 * time.Millisecond})
)

// Publish writes a note, then sends it. What is written is sent: there is no way
// back from there.
var Publish = saga.Define("publish", func(b *saga.Builder, n Note) {
	b.Step("write", Write.With(n)).Pivot()
	b.Step("send", Send.With(n)).Retriable()
})

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: embedded DIRECTORY")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout, os.Args[1]); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

// run is one life of the service. What it finds unfinished it finishes; then
// it begins the next and leaves.
func run(ctx context.Context, out io.Writer, dir string) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	db, n, err := open(ctx, dir)
	if err != nil {
		return err
	}
	defer db.Close() // what was committed is durable
	store, err := sqlstore.OpenSQLite(ctx, filepath.Join(dir, "coordinator"), nil)
	if err != nil {
		return err
	}
	defer store.Close() // likewise
	c, err := coordinator.New(ctx, store, nil)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return notes(db, n, leave).Run(ctx, c.Conn()) })
	g.Go(func() error { return publish(ctx, out, sdk.NewClient(c.Conn(), nil), n) })
	return g.Wait()
}

// publish waits for the saga of the life before, then starts its own.
func publish(ctx context.Context, out io.Writer, client *sdk.Client, n int) error {
	if n > 1 {
		if err := client.Run(gid(n - 1)).Wait(ctx); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: committed, though the run that started it had left\n", gid(n-1))
	}
	if _, err := sdk.Start(ctx, client, Publish, Note{gid(n)}, &sdk.StartConfig{GID: gid(n)}); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: started, and leaving\n", gid(n))
	return nil
}

func gid(n int) string { return fmt.Sprintf("note-%d", n) }

// notes is the service. It leaves at the first attempt to send its own note.
func notes(db *sql.DB, life int, leave func()) *sdk.Participant {
	p := sdk.NewParticipant("notes", db, outbox.SQLite, nil)
	sdk.HandleSaga(p, Write,
		func(ctx context.Context, tx *sql.Tx, n Note) (struct{}, error) {
			_, err := tx.ExecContext(ctx, `INSERT INTO note (text) VALUES (?)`, n.Text)
			return struct{}{}, err
		},
		func(ctx context.Context, tx *sql.Tx, n Note, _ struct{}) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM note WHERE text = ?`, n.Text)
			return err
		})
	sdk.HandleSaga(p, Send,
		func(ctx context.Context, tx *sql.Tx, n Note) (struct{}, error) {
			if n.Text == gid(life) {
				leave()
				return struct{}{}, errors.New("the service went away")
			}
			_, err := tx.ExecContext(ctx, `UPDATE note SET sent = sent + 1 WHERE text = ?`, n.Text)
			return struct{}{}, err
		}, nil)
	return p
}

// open opens the service's database and counts its lives.
func open(ctx context.Context, dir string) (*sql.DB, int, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, err
	}
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(dir, "notes.db")))
	if err != nil {
		return nil, 0, err
	}
	const schema = `
CREATE TABLE IF NOT EXISTS note (text TEXT PRIMARY KEY, sent INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS life (n INTEGER PRIMARY KEY);
INSERT INTO life DEFAULT VALUES;`
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, 0, errors.Join(err, db.Close())
	}
	var n int
	err = db.QueryRowContext(ctx, `SELECT max(n) FROM life`).Scan(&n)
	return db, n, err
}
