package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// SourceMode says where the messages are that a Source brings.
type SourceMode uint8

const (
	// SourceTable says that they are in the tables. The source only says sooner, and
	// in the order of the commits, what is new there; without it the relay polls.
	SourceTable SourceMode = iota
	// SourceLog says that they are in the source alone, as the tables keep no rows
	// (ENGINE=BLACKHOLE). The relay remembers how far it got.
	SourceLog
)

// Source is another way than polling in which a Relay learns what was committed.
// Package binlog has one. One Source serves one Relay.
type Source interface {
	// Mode is one of the modes, and never changes.
	Mode() SourceMode
	// Run reads until ctx ends, and then returns nil. It deals with errors itself
	// and returns only ErrConfig. identity is Operator.Identity's answer: a source
	// that finds another one reads another database, and says so.
	Run(ctx context.Context, identity string) error
	// Open begins a stream of what is committed to a partition's table. In
	// SourceTable from is empty, and the stream has every transaction that begins
	// its commit after Open has returned, and each that it has it has in the order
	// of the commits. In SourceLog it has what comes behind the position from.
	// wake is called, without waiting for it, when Next has something to answer.
	Open(part int, from string, wake func()) (SourceStream, error)
}

// SourceStream is one partition's part of a Source. It is used by one goroutine.
// It holds a bounded amount of rows: when more is not taken in time it ends.
type SourceStream interface {
	// Next answers transactions in the order of their commits, none when there is
	// nothing new. It does not wait. An error ends the stream; what was committed
	// meanwhile has to be read in another way, or from another stream.
	Next() ([]SourceTx, error)
	// Settled says that everything up to a position is dealt with: from there on
	// the log is needed.
	Settled(position string)
	// Close ends the stream.
	Close()
}

// SourceTx is what one transaction wrote to a partition's table, often nothing.
type SourceTx struct {
	// Rows are the inserted ones.
	Rows []SourceRow
	// Position is behind the transaction. Empty: its rows go on in the next SourceTx.
	Position string
}

// SourceRow is an inserted row.
type SourceRow struct {
	// Values are int64, string, []byte or nil, in the order of SourceColumns.
	Values []any
	// Err, when not nil, says why the message cannot be published: it is poison.
	Err error
}

// SourceColumns names the columns of a partition's table that SourceRow.Values
// has, in their order.
func SourceColumns() []string { return strings.Split(partitionColumns, ", ") }

// partitionColumns are what the relay reads of a partition's table, in this order.
const partitionColumns = `id, msg_id, topic, msg_key, body, headers, idem_key, created_at`

// sourceSQL are the statements that sources need; empty where none can be used.
type sourceSQL struct {
	engines string // name and engine of each partition's table
	load    string // (partition): the position, epoch
	save    string // (partition, position, epoch)
}

const (
	mysqlEngines = `SELECT table_name, COALESCE(engine, '') FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name LIKE 'amends|_outbox|__' ESCAPE '|' ORDER BY table_name`
	mysqlLoadPosition = `SELECT position FROM amends_outbox_checkpoint WHERE part = ?`
	mysqlSavePosition = `INSERT INTO amends_outbox_checkpoint (part, position, epoch, saved_at)
VALUES (?, ?, ?, ` + mysqlNow + `)
ON DUPLICATE KEY UPDATE position = VALUES(position), epoch = VALUES(epoch), saved_at = VALUES(saved_at)`
)

func mysqlSource() sourceSQL {
	return sourceSQL{engines: mysqlEngines, load: mysqlLoadPosition, save: mysqlSavePosition}
}

// checkSource finds out whether the tables are such as the relay reads them. It
// asks again until the database answers, and returns only ErrConfig.
func (r *Relay) checkSource(ctx context.Context) error {
	if r.o.d.source.engines == "" {
		return nil // NewRelay has refused a source
	}
	for failures := 1; ; failures++ {
		err := r.checkEngines(ctx)
		if err == nil || errors.Is(err, ErrConfig) || ctx.Err() != nil {
			return ignoreEnd(ctx, err)
		}
		if failures == 1 {
			r.cfg.Logger.Error("outbox: relay: database: trying again", "error", err)
		}
		pause(ctx, time.Second)
	}
}

// checkEngines refuses tables that keep no rows without a source that reads the
// log, as their messages would be lost, and the other way round.
func (r *Relay) checkEngines(ctx context.Context) error {
	isLog := r.cfg.Source != nil && r.cfg.Source.Mode() == SourceLog
	return eachRow(ctx, r.db, r.o.d.source.engines, nil, func(scan scanner) error {
		var table, engine string
		if err := scan(&table, &engine); err != nil {
			return err
		}
		switch none := engine == "BLACKHOLE"; {
		case none && !isLog:
			return fmt.Errorf("%w: table %s has ENGINE=BLACKHOLE, which keeps no rows: "+
				"set RelayConfig.Source to a source that reads the binlog (binlog.ModeLog)", ErrConfig, table)
		case !none && isLog:
			return fmt.Errorf("%w: field Source reads the log alone, but table %s has ENGINE=%s and keeps its rows: "+
				"use binlog.ModeTable, or convert the tables with binlog.Convert", ErrConfig, table, engine)
		}
		return nil
	})
}

// runSource runs the source, once the database has told its identity.
func (r *Relay) runSource(ctx context.Context) error {
	for {
		id, err := r.o.Operator(r.db).Identity(ctx)
		if err == nil {
			return ignoreEnd(ctx, r.cfg.Source.Run(ctx, id))
		}
		if ctx.Err() != nil {
			return nil
		}
		pause(ctx, time.Second) // the partitions say what is wrong
	}
}

// ignoreEnd answers nil instead of an error that comes of the end of ctx.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// readFrom makes the partition read from a source, if there is one.
func (p *partition) readFrom(s Source) {
	if s == nil {
		return
	}
	p.nudge = make(chan struct{}, 1)
	if s.Mode() == SourceLog {
		p.log = &logReader{p: p}
	} else {
		p.stream = &follower{p: p}
	}
}

// stir ends the partition's idle time, from any goroutine. It never blocks.
func (p *partition) stir() {
	select {
	case p.nudge <- struct{}{}:
	default: // one is pending already
	}
}

// resetSource ends the streams there are.
func (p *partition) resetSource() {
	if p.stream != nil {
		p.stream.reset()
	}
	if p.log != nil {
		p.log.reset()
	}
}

// validateSource finds what a source, or its mode, does not go together with.
func (r *Relay) validateSource() error {
	switch {
	case r.cfg.Source == nil:
		return nil
	case r.o.d.source.engines == "":
		return fmt.Errorf("%w: field Source: dialect %s has no log that could be read", ErrConfig, r.o.d.name)
	case r.cfg.Source.Mode() != SourceLog:
		return nil
	}
	if c := &r.o.cfg; c.MaxRows >= 0 || c.MaxBytes > 0 || c.MaxAge > 0 {
		return fmt.Errorf("%w: fields MaxRows, MaxBytes and MaxAge of the outbox's Config: where the log alone holds "+
			"the messages there is nothing to count: set MaxRows to -1 and the others to 0, for writers too", ErrConfig)
	}
	return nil
}

// rowFrom is scanRow for a row of a source.
func rowFrom(from SourceRow) (row, error) {
	r, err := rowReader()(func(dest ...any) error { return assign(dest, from.Values) })
	if from.Err != nil {
		r.err = from.Err
	}
	return r, err
}

// assign stores values as database/sql would. A value that is missing, because
// the row is older than its column, or NULL, leaves the zero value.
func assign(dest, values []any) error {
	for i, d := range dest {
		var v any
		if i < len(values) {
			v = values[i]
		}
		if err := assignOne(d, v); err != nil {
			return fmt.Errorf("outbox: column %s of a source: %w", sourceColumn(i), err)
		}
	}
	return nil
}

func sourceColumn(i int) string {
	if names := SourceColumns(); i < len(names) {
		return names[i]
	}
	return fmt.Sprint(i)
}

func assignOne(dest, v any) error {
	switch d := dest.(type) {
	case sql.Scanner:
		return d.Scan(v)
	case *sql.RawBytes:
		switch v := v.(type) {
		case nil:
			*d = nil
			return nil
		case []byte:
			*d = v
			return nil
		case string:
			*d = []byte(v)
			return nil
		}
	case *int64:
		switch v := v.(type) {
		case nil:
			*d = 0
			return nil
		case int64:
			*d = v
			return nil
		}
	}
	return fmt.Errorf("a %T cannot be stored in a %T", v, dest)
}
