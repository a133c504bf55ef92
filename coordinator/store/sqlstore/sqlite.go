package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"modernc.org/sqlite"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	databaseFile = "amends.db"
	lockFile     = "amends.lock"

	// applicationID marks the file as ours: "AMND". SQLite keeps it in the
	// file's header, big-endian, at this offset.
	applicationID       = 0x414d4e44
	applicationIDOffset = 68
	sqliteMagic         = "SQLite format 3\x00"

	// readers is how many queries run beside each other, and beside a write.
	readers = 4
)

// OpenSQLite opens the store in a data directory, and creates both if they are
// not there. What Commit acknowledged outlives the process and, with a disk
// that keeps what it synced, the machine.
//
// A directory is open in one process at a time: another one gets
// store.ErrInUse. So whoever opens it knows that earlier owners of shards are
// dead, and ends their leases.
func OpenSQLite(ctx context.Context, dir string, cfg *Config) (store.Store, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, errors.New("sqlstore: dir is empty: give the data directory")
	}
	// The path goes into a URI, which has no relative ones.
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("sqlstore: data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("sqlstore: data directory: %w", err)
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	switch locked, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("sqlstore: lock data directory %s: %w", dir, err)
	case !locked:
		return nil, fmt.Errorf("sqlstore: data directory %s: %w: stop it, or give another directory", dir, store.ErrInUse)
	}
	s, err := openFile(ctx, filepath.Join(dir, databaseFile), &c)
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	s.release = lock.Unlock
	return s, nil
}

func openFile(ctx context.Context, path string, cfg *Config) (*Store, error) {
	d, err := sqliteDialect()
	if err != nil {
		return nil, fmt.Errorf("sqlstore: %w", err)
	}
	if err := stamp(ctx, path); err != nil {
		return nil, fmt.Errorf("sqlstore: %s: %w", path, d.explain(err))
	}
	writer, err := pool(path, 1, "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-16384)", "temp_store(MEMORY)",
		"wal_autocheckpoint(4000)", "journal_size_limit(67108864)")
	if err != nil {
		return nil, fmt.Errorf("sqlstore: %s: %w", path, err)
	}
	reader, err := pool(path, readers, "query_only(1)", "cache_size(-16384)")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sqlstore: %s: %w", path, err), writer.Close())
	}
	s, err := open(ctx, d, writer, reader, writer, cfg)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w (%s)", err, path), reader.Close(), writer.Close())
	}
	return s, nil
}

// pool makes a pool of up to n connections to the file, which it keeps open.
func pool(path string, n int, pragmas ...string) (*sql.DB, error) {
	query := url.Values{"_txlock": {"immediate"}, "_dqs": {"0"}}
	query["_pragma"] = append([]string{"busy_timeout(10000)"}, pragmas...)
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// stamp creates the database file with our mark, or checks the mark of the one
// that is there, without touching a file that is not ours.
func stamp(ctx context.Context, path string) error {
	header, err := readHeader(path)
	if err != nil {
		return err
	}
	switch {
	case len(header) == 0:
		return createFile(ctx, path)
	case len(header) < applicationIDOffset+4 || !bytes.HasPrefix(header, []byte(sqliteMagic)):
		return errors.New("is damaged or not a SQLite database: restore the data directory from a backup, or give another")
	case binary.BigEndian.Uint32(header[applicationIDOffset:]) != applicationID:
		return errors.New("is the database of another program: give another data directory")
	}
	return nil
}

func readHeader(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close() // was only read
	return io.ReadAll(io.LimitReader(file, 100))
}

// createFile makes a database that holds nothing but the mark. It is written
// without a log, so that the mark is in the file itself from its first byte.
func createFile(ctx context.Context, path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	db, err := pool(path, 1, "synchronous(FULL)")
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
		return errors.Join(err, db.Close())
	}
	if err := db.Close(); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// syncDirectory makes the directory remember the file over a power failure.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
