package bank

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// Statements about the lists. The head's row is locked until the entry is
// committed: who comes next writes behind it.
const (
	nextSQL   = `UPDATE heads SET n = n + 1 WHERE list = ?`
	headSQL   = `SELECT n FROM heads WHERE list = ?`
	entrySQL  = `INSERT INTO entries (list, n, msg, gid) VALUES (?, ?, ?, ?)`
	intentSQL = `INSERT INTO intents (gid) VALUES (?)`
)

// Entry is what a message says.
type Entry struct {
	List int   `json:"list"`
	N    int64 `json:"n"`
}

// Key is the message's key: that of its list.
func (e Entry) Key() string { return string(rune('a' + e.List)) }

// add appends to a list, and writes the message that tells of it.
func add(ctx context.Context, box *outbox.Outbox, tx *sql.Tx, topic string, note Note, gid string) error {
	if err := must(ctx, tx, nextSQL, note.List); err != nil {
		return err
	}
	e := Entry{List: note.List}
	if err := tx.QueryRowContext(ctx, headSQL, note.List).Scan(&e.N); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, entrySQL, e.List, e.N, note.ID, gid); err != nil {
		return err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return box.Write(ctx, tx, outbox.Message{ID: note.ID, Topic: topic, Key: e.Key(), Body: body})
}

// offerNotes registers what the keeper of the lists does.
func offerNotes(p *sdk.Participant, box *outbox.Outbox, topic string) {
	sdk.HandleSaga(p, Write, func(ctx context.Context, tx *sql.Tx, n Note) (none struct{}, err error) {
		call, ok := sdk.Info(ctx)
		if !ok {
			return none, errNoCall
		}
		if err := add(ctx, box, tx, topic, n, call.GID); err != nil {
			return none, err
		}
		return none, effect(ctx, tx, noneAccount, noCents)
	}, nil)
}

// ErrChangedMind is why a Writer rolls back on purpose.
var ErrChangedMind = errors.New("rolled back on purpose")

// Writer appends to lists without a coordinator, as an application does.
type Writer struct {
	db    *sql.DB
	box   *outbox.Outbox
	topic string
}

// NewWriter returns a writer to the database of the lists, which it does not
// close.
func NewWriter(db *sql.DB, topic string) *Writer {
	return &Writer{db: db, box: outbox.New(outbox.MySQL, nil), topic: topic}
}

// Append adds an entry, in a transaction that is rolled back at its end, if it is
// to be, with ErrChangedMind. After another error it may have been added.
func (w *Writer) Append(ctx context.Context, note Note, rollBack bool) error {
	return w.box.Tx(ctx, w.db, func(tx *sql.Tx) error {
		if err := add(ctx, w.box, tx, w.topic, note, ""); err != nil || !rollBack {
			return err
		}
		return ErrChangedMind
	})
}

// Intend starts a transfer together with a row of the writer's own; otherwise it
// is as Append.
func (w *Writer) Intend(ctx context.Context, gid string, t Transfer, rollBack bool) error {
	return w.box.Tx(ctx, w.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, intentSQL, gid); err != nil {
			return err
		}
		if _, err := sdk.StartTx(ctx, w.box, tx, Plain, t, &sdk.StartConfig{GID: gid}); err != nil || !rollBack {
			return err
		}
		return ErrChangedMind
	})
}
