package check

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/cmd/torture/internal/load"
)

// Sources say where everything is.
type Sources struct {
	East, West, Notes, Reader, Coordinators string // DSNs
	Kafka                                   []string
	Topic                                   string
	Opening                                 int64 // cents on each account at the beginning
	Told                                    []load.Line
	Exits                                   []string
	Struck                                  []Struck
}

// Judgement is what was found.
type Judgement struct {
	Findings   []Finding      `json:"findings"`
	Violations int            `json:"violations"`
	Ends       map[string]int `json:"transactions"` // by name and end
	Pause      Pause          `json:"pause"`
}

// Run reads everything and judges. An error means that it could not.
func Run(ctx context.Context, s Sources) (*Judgement, error) {
	b, err := read(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	j := &Judgement{Findings: judge(b), Ends: map[string]int{}, Pause: b.trails.pause()}
	for _, f := range j.Findings {
		j.Violations += f.Violations
	}
	for _, t := range b.transactions {
		j.Ends[t.name+" "+t.state.String()]++
	}
	return j, nil
}

const (
	accountsSQL = `SELECT id, cents, held FROM accounts ORDER BY id`
	countersSQL = `SELECT coalesce(sum(n), 0) FROM counters`
	effectsSQL  = `SELECT gid, branch, op, account, cents FROM effects ORDER BY n`
	entriesSQL  = `SELECT list, n, msg, gid FROM entries`
	intentsSQL  = `SELECT gid FROM intents`
	seenSQL     = `SELECT list, n, msg FROM seen ORDER BY pos`
	talliesSQL  = `SELECT list, n FROM tallies`
	outboxSQL   = `SELECT (SELECT count(*) FROM amends_outbox_0) + (SELECT count(*) FROM amends_outbox_1) +
  (SELECT count(*) FROM amends_outbox_2) + (SELECT count(*) FROM amends_outbox_3) +
  (SELECT count(*) FROM amends_outbox_4) + (SELECT count(*) FROM amends_outbox_aside), (SELECT count(*) FROM amends_outbox_dead)`
	transactionsSQL = `SELECT gid, name, state, paused, shard, event_seq, event_hash FROM amends_transactions
WHERE kind IN ('saga', 'tcc')`
	// eventsSQL: bulk operations have trails, too; the shard is the transaction's.
	// Number 0 stands for the lines in the transaction's row.
	eventsSQL = `SELECT gid, shard, 0 AS seq, 0 AS at, '' AS type, trail AS data, '' AS prev, '' AS hash
FROM amends_transactions WHERE kind IN ('saga', 'tcc') UNION ALL
SELECT e.gid, t.shard, e.seq, e.at, e.type, e.data, e.prev, e.hash
FROM amends_events e JOIN amends_transactions t ON t.gid = e.gid WHERE t.kind IN ('saga', 'tcc') ORDER BY gid, seq`
)

// read reads every database and the log.
func read(ctx context.Context, s Sources) (*books, error) {
	b := &books{
		opening: s.Opening, counters: map[string]int64{}, transactions: map[string]transaction{}, tallies: map[int]int64{},
		intents: map[string]bool{}, told: s.Told, exits: s.Exits, trails: newTrails(s.Struck),
	}
	return b, errors.Join(
		b.readSide(ctx, east, s.East), b.readSide(ctx, west, s.West), b.readNotes(ctx, s.Notes), b.readReader(ctx, s.Reader),
		b.readCoordinators(ctx, s.Coordinators), b.readLog(ctx, s.Kafka, s.Topic))
}

func (b *books) readSide(ctx context.Context, side, dsn string) error {
	return with(dsn, func(db *sql.DB) error {
		return errors.Join(
			each(ctx, db, accountsSQL, func(scan scanner) error {
				a := account{side: side}
				err := scan(&a.id, &a.cents, &a.held)
				b.accounts = append(b.accounts, a)
				return err
			}),
			each(ctx, db, countersSQL, func(scan scanner) error {
				var n int64
				err := scan(&n)
				b.counters[side] = n
				return err
			}),
			b.readEffects(ctx, side, db))
	})
}

func (b *books) readEffects(ctx context.Context, side string, db *sql.DB) error {
	return each(ctx, db, effectsSQL, func(scan scanner) error {
		e := effect{side: side}
		err := scan(&e.gid, &e.branch, &e.op, &e.account, &e.cents)
		b.effects = append(b.effects, e)
		return err
	})
}

func (b *books) readNotes(ctx context.Context, dsn string) error {
	return with(dsn, func(db *sql.DB) error {
		return errors.Join(
			each(ctx, db, entriesSQL, func(scan scanner) error {
				var e entry
				err := scan(&e.list, &e.n, &e.msg, &e.gid)
				b.entries = append(b.entries, e)
				return err
			}),
			each(ctx, db, intentsSQL, func(scan scanner) error {
				var gid string
				err := scan(&gid)
				b.intents[gid] = true
				return err
			}),
			each(ctx, db, outboxSQL, func(scan scanner) error {
				var dead int64
				err := scan(&b.waiting, &dead)
				b.dead += dead
				return err
			}),
			b.readEffects(ctx, notes, db))
	})
}

func (b *books) readReader(ctx context.Context, dsn string) error {
	return with(dsn, func(db *sql.DB) error {
		return errors.Join(
			each(ctx, db, seenSQL, func(scan scanner) error {
				var r record
				err := scan(&r.list, &r.n, &r.msg)
				b.seen = append(b.seen, r)
				return err
			}),
			each(ctx, db, talliesSQL, func(scan scanner) error {
				var list int
				var n int64
				err := scan(&list, &n)
				b.tallies[list] = n
				return err
			}))
	})
}

func (b *books) readCoordinators(ctx context.Context, dsn string) error {
	return with(dsn, func(db *sql.DB) error {
		return errors.Join(
			each(ctx, db, transactionsSQL, func(scan scanner) error {
				var gid string
				var t transaction
				err := scan(&gid, &t.name, &t.state, &t.paused, &t.shard, &t.seq, &t.hash)
				b.transactions[gid] = t
				return err
			}),
			b.readTrails(ctx, db))
	})
}

// readTrails reads one trail after the other.
func (b *books) readTrails(ctx context.Context, db *sql.DB) error {
	var trail []event // of one transaction
	end := func() {
		slices.SortStableFunc(trail, func(a, b event) int { return cmp.Compare(a.seq, b.seq) })
		for _, e := range trail {
			b.trails.add(e)
		}
		trail = trail[:0]
	}
	err := each(ctx, db, eventsSQL, func(scan scanner) error {
		var e event
		if err := scan(&e.gid, &e.shard, &e.seq, &e.at, &e.kind, &e.data, &e.prev, &e.hash); err != nil {
			return err
		}
		if len(trail) > 0 && trail[0].gid != e.gid {
			end()
		}
		if e.seq > 0 {
			trail = append(trail, e)
			return nil
		}
		lines, err := readLines(e.gid, e.shard, e.data)
		if trail = append(trail, lines...); err != nil {
			b.trails.verdict.wrong("%s: the entries in its row cannot be read: %v", e.gid, err)
		}
		return nil
	})
	end()
	return err
}

// readLines reads the entries in a transaction's row: JSON, one a line.
func readLines(gid string, shard int, text []byte) (entries []event, err error) {
	for lines := json.NewDecoder(bytes.NewReader(text)); lines.More(); {
		var l struct {
			Seq, At    int64
			Type       string
			Prev, Hash []byte
			Data       json.RawMessage
		}
		if err := lines.Decode(&l); err != nil {
			return entries, err
		}
		entries = append(entries, event{gid: gid, shard: shard, seq: l.Seq, at: l.At, kind: l.Type, data: l.Data, prev: l.Prev, hash: l.Hash})
	}
	return entries, nil
}

type scanner func(dest ...any) error

// with opens a database for reading.
func with(dsn string, fn func(db *sql.DB) error) error {
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		return err
	}
	conf.Logger = &mysql.NopLogger{} // what it says is in the errors
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	if err := errors.Join(fn(db), db.Close()); err != nil {
		return fmt.Errorf("%s: %w", conf.DBName, err)
	}
	return nil
}

// each calls fn for every row.
func each(ctx context.Context, db *sql.DB, query string, fn func(scan scanner) error) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close() // its error is that of Err
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
