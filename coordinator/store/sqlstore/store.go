package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/amends-dev/amends/coordinator/store"
)

// What Config means when it does not say.
const (
	// DefaultShards is the number of shards.
	DefaultShards = 256
	// DefaultMaxConns is the number of connections to a database server.
	DefaultMaxConns = 16
)

// Config sets a store up. nil means all defaults.
type Config struct {
	// Shards is the number of shards of a store that is created now; one that
	// exists keeps its own. 0 means DefaultShards, the most is 65536.
	Shards int
	// MaxConns bounds the connections to a database server, half of them for
	// reads. 0 means DefaultMaxConns, or a quarter of what the server admits if
	// that is less. SQLite has no server and ignores it.
	MaxConns int
	// Outbox writes the messages of a commit into an outbox of the same
	// database, in the transaction of that commit: it neither commits nor rolls
	// back, and its error fails the commit, which is then tried again. nil means
	// that there is none, and a batch with messages is store.ErrNoOutbox.
	Outbox func(ctx context.Context, tx *sql.Tx, msgs []store.Message) error
	// Logger receives what is worth knowing about opening, and which calls had
	// to be repeated. nil means slog.Default().
	Logger *slog.Logger
}

func (c *Config) withDefaults() (Config, error) {
	var cfg Config
	if c != nil {
		cfg = *c
	}
	if cfg.Shards == 0 {
		cfg.Shards = DefaultShards
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	var errs []error
	if cfg.Shards < 0 || cfg.Shards > 1<<16 {
		errs = append(errs, fmt.Errorf("sqlstore: Shards is %d: give 1 to 65536, or 0 for %d", cfg.Shards, DefaultShards))
	}
	if cfg.MaxConns < 0 || cfg.MaxConns == 1 {
		errs = append(errs, fmt.Errorf("sqlstore: MaxConns is %d: give 2 or more, or 0 for %d",
			cfg.MaxConns, DefaultMaxConns))
	}
	return cfg, errors.Join(errs...)
}

// Store is a store.Store in a SQL database.
type Store struct {
	d      *dialect
	log    *slog.Logger
	outbox func(ctx context.Context, tx *sql.Tx, msgs []store.Message) error // nil: none
	writer *sql.DB                                                           // writes, and what must see the writes before it
	reader *sql.DB

	transactions, events, labels *multi
	leases                       *multi    // where other processes change them
	once                         *sql.Stmt // insertAtOnce, where the dialect does it
	turns                        turns
	loads                        loads

	// known are the epochs of all shards where no other process changes them,
	// nil: to be read. Only the one transaction of the one writer looks at it.
	known map[int]epoch

	release func() error // gives back what keeps other processes out
	mu      sync.RWMutex // held for reading during a call, so that Close waits
	closed  bool
}

var _ store.Store = (*Store)(nil)

// open makes a store of two pools, whose schema it brings up to date on the third.
func open(ctx context.Context, d *dialect, writer, reader, schema *sql.DB, cfg *Config) (*Store, error) {
	s := &Store{d: d, log: cfg.Logger, outbox: cfg.Outbox, writer: writer, reader: reader, release: func() error { return nil },
		turns: turns{known: make(map[int]epoch)}}
	if err := s.migrate(ctx, schema, cfg); err != nil {
		return nil, fmt.Errorf("sqlstore: %w", d.explain(err))
	}
	s.transactions = newMulti(d, insertTransactions, d.keepNewer, transactionVars)
	s.events = newMulti(d, insertEvents, d.elseKeep(`gid`), eventVars)
	s.labels = newMulti(d, fmt.Sprintf(insertLabels, d.newest), d.elseKeep(`gid`), labelVars)
	prepared := []*multi{s.transactions, s.events, s.labels}
	if !d.exclusive {
		s.leases = newLeaseCheck(d)
		prepared = append(prepared, s.leases)
	}
	for _, m := range prepared {
		if err := m.prepare(ctx, writer); err != nil {
			return nil, fmt.Errorf("sqlstore: prepare: %w", d.explain(err))
		}
	}
	if d.atOnce {
		var err error
		query := fmt.Sprintf(insertAtOnce, theRecord, d.use(primaryKey), d.lock, d.keepNewer)
		if s.once, err = writer.PrepareContext(ctx, query); err != nil {
			return nil, fmt.Errorf("sqlstore: prepare: %w", d.explain(err))
		}
	}
	if err := s.loads.prepare(ctx, reader); err != nil {
		return nil, fmt.Errorf("sqlstore: prepare: %w", d.explain(err))
	}
	return s, nil
}

// begin admits a call; the caller runs what it returns at the end.
func (s *Store) begin(ctx context.Context, op string) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("sqlstore: %s: %w", op, err)
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, fmt.Errorf("sqlstore: %s: %w", op, store.ErrClosed)
	}
	return s.mu.RUnlock, nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	defer s.loads.running.Wait() // whose calls are refused by then
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	// The writer is closed last: closing the last connection folds SQLite's
	// log into the database.
	if err := errors.Join(s.reader.Close(), s.writer.Close(), s.release()); err != nil {
		return fmt.Errorf("sqlstore: close: %w", s.d.explain(err))
	}
	return nil
}

// write runs fn in a database transaction of the writer. It may run several
// times, and an earlier run may have taken effect without a word of it: fn is
// idempotent, or finds out.
func (s *Store) write(ctx context.Context, op string, fn func(ctx context.Context, tx *sql.Tx) error) error {
	end, err := s.begin(ctx, op)
	if err != nil {
		return err
	}
	defer end()
	if err := s.repeat(ctx, op, func() error { return s.transact(ctx, fn) }); err != nil {
		return fmt.Errorf("sqlstore: %s: %w", op, s.d.explain(err))
	}
	return nil
}

func (s *Store) transact(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	return s.transactOn(ctx, s.writer, fn)
}

func (s *Store) transactOn(ctx context.Context, db *sql.DB, fn func(ctx context.Context, tx *sql.Tx) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	ctx = s.d.inTx(ctx)
	clean, err := runTx(ctx, conn, fn)
	if !clean {
		// Whatever state it is in, nobody gets this connection again: its end
		// ends the transaction. The error is the one that was asked for.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		return err
	}
	return errors.Join(err, conn.Close())
}

// runTx says whether it leaves the connection without a transaction.
func runTx(ctx context.Context, conn *sql.Conn, fn func(ctx context.Context, tx *sql.Tx) error) (clean bool, err error) {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	if err := fn(ctx, tx); err != nil {
		return tx.Rollback() == nil, err
	}
	err = tx.Commit()
	return err == nil, err
}

// read runs fn with the readers' pool, several times if need be.
func (s *Store) read(ctx context.Context, op string, fn func(db *sql.DB) error) error {
	end, err := s.begin(ctx, op)
	if err != nil {
		return err
	}
	defer end()
	if err := s.repeat(ctx, op, func() error { return fn(s.reader) }); err != nil {
		return fmt.Errorf("sqlstore: %s: %w", op, s.d.explain(err))
	}
	return nil
}
