package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/amends-dev/amends/outbox"
)

const (
	convertSave = `INSERT INTO amends_outbox_checkpoint (part, position, epoch, saved_at) VALUES (?, ?, 0, 0)
ON DUPLICATE KEY UPDATE position = VALUES(position)`
	convertCount = `SELECT count(*) FROM amends_outbox_%d`
	convertTable = `ALTER TABLE amends_outbox_%d ENGINE = BLACKHOLE`
)

const emptyWithin = 3 * time.Second // how long Convert waits for the tables to be empty

// ErrNotEmpty is returned by Convert when messages wait in the tables.
var ErrNotEmpty = errors.New("binlog: messages wait in the outbox's tables")

// Convert makes the outbox's tables store nothing (ENGINE=BLACKHOLE), for
// ModeLog, and notes the place in the log from which a relay is to read. cfg is
// that of the relay's Source; db is the same database, with the privilege ALTER.
//
// Writers may go on, and so may relays that poll, which are to be stopped then.
// What these publish while it works comes again. Each table has to be seen empty
// once within three seconds; otherwise it is ErrNotEmpty, and nothing has changed.
// It can be run again: tables that are converted keep their place in the log.
func Convert(ctx context.Context, db *sql.DB, cfg Config) error {
	cfg.fill()
	cfg.Mode = ModeLog
	if err := cfg.validate(); err != nil {
		return err
	}
	if err := outbox.Migrate(ctx, db, outbox.MySQL); err != nil {
		return err
	}
	identity, err := outbox.New(outbox.MySQL, nil).Operator(db).Identity(ctx)
	if err != nil {
		return err
	}
	srv, err := connect(ctx, &cfg)
	if err != nil {
		return err
	}
	defer srv.close()
	srv.anyEngine = true
	if err := srv.check(ctx, identity); err != nil {
		return err
	}
	return srv.convert(ctx, db)
}

// convert notes the end of the log first. What is committed behind it is read
// from there, also what ALTER TABLE throws away. What was committed before it was
// in the tables when they were first looked at, so once they were seen empty it
// has been published.
func (s *server) convert(ctx context.Context, db *sql.DB) error {
	end, err := s.end()
	if err != nil {
		return err
	}
	text, err := end.text()
	if err != nil {
		return err
	}
	var todo []int
	for p, engine := range s.engines {
		if engine == "BLACKHOLE" {
			continue
		}
		todo = append(todo, p)
		// This is a commit behind the end: once it is done, all before it is visible.
		if _, err := db.ExecContext(ctx, convertSave, p, []byte(text)); err != nil {
			return fmt.Errorf("binlog: note where to read from: %w", err)
		}
	}
	limit, cancel := context.WithTimeout(ctx, emptyWithin)
	defer cancel()
	for _, p := range todo {
		if err := seeEmpty(limit, db, p); err != nil {
			return err
		}
	}
	for _, p := range todo {
		if _, err := db.ExecContext(ctx, fmt.Sprintf(convertTable, p)); err != nil {
			return fmt.Errorf("binlog: convert the table of partition %d "+
				"(MariaDB needs INSTALL SONAME 'ha_blackhole' first): %w", p, err)
		}
	}
	return nil
}

// seeEmpty waits until a partition's table is empty.
func seeEmpty(ctx context.Context, db *sql.DB, p int) error {
	for {
		var n int64
		err := db.QueryRowContext(ctx, fmt.Sprintf(convertCount, p)).Scan(&n)
		switch {
		case err == nil && n == 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %d in partition %d: let a relay publish them first: %w", ErrNotEmpty, n, p, ctx.Err())
		case err != nil:
			return err
		}
		pause(ctx, 20*time.Millisecond)
	}
}
