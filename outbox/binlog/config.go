package binlog

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// Mode says where the messages are.
type Mode uint8

const (
	// ModeTable is in the outbox's tables, and in the log.
	ModeTable Mode = iota
	// ModeLog is in the log alone; the tables have ENGINE=BLACKHOLE.
	ModeLog
)

// Defaults of Config.
const (
	DefaultMaxRows   = 10_000
	DefaultMaxBytes  = 16 << 20
	DefaultHeartbeat = time.Second
	DefaultCheck     = 5 * time.Second
)

// Config are the options of a Source. Addr, User and Database are required; the
// other fields' zero values are their defaults.
type Config struct {
	// Addr is the primary's host and port, or a path of a socket. It has to be the
	// server of the relay's *sql.DB: Run finds out whether it is.
	Addr string
	// User and Password; see the package's comment for the privileges.
	User, Password string
	// Database is the one with the outbox's tables.
	Database string
	// TLS is for the connection; nil means none. Without a ServerName it is Addr's host.
	TLS *tls.Config
	// Mode is ModeTable or ModeLog.
	Mode Mode
	// ServerID is the relay's among the server's replicas; each needs another one.
	// 0 means a random one of above 2^31.
	ServerID uint32
	// MaxRows and MaxBytes bound what is in memory for each partition, read and
	// not yet taken by the relay. A transaction is passed on in parts of that
	// size. Beyond it, a partition in ModeTable goes back to its table, and one in
	// ModeLog makes reading wait. Defaults: DefaultMaxRows, DefaultMaxBytes.
	MaxRows, MaxBytes int
	// Heartbeat is how often an idle server is to give a sign of life. After four
	// without one the connection is made anew. At least 100 ms; default
	// DefaultHeartbeat.
	Heartbeat time.Duration
	// Check is how often the server is asked where its log ends and what of it is
	// left, for lag and the alarms. Default DefaultCheck.
	Check time.Duration
	// SkipLost makes ModeLog go on behind what was purged from the log unread. It
	// is logged as an error, with the range. Without it the relay stops there.
	SkipLost bool
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

func (c *Config) fill() {
	if c.ServerID == 0 {
		c.ServerID = 1<<31 + rand.Uint32N(1<<31-2)
	}
	if c.MaxRows == 0 {
		c.MaxRows = DefaultMaxRows
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.Check == 0 {
		c.Check = DefaultCheck
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.TLS != nil && c.TLS.ServerName == "" && !c.TLS.InsecureSkipVerify {
		if host, _, err := net.SplitHostPort(c.Addr); err == nil { // a socket's path has no host
			c.TLS = c.TLS.Clone()
			c.TLS.ServerName = host
		}
	}
}

// validate joins every mistake of a filled configuration.
func (c *Config) validate() error {
	var errs []error
	for name, value := range map[string]string{"Addr": c.Addr, "User": c.User, "Database": c.Database} {
		if value == "" {
			errs = append(errs, fmt.Errorf("field %s is empty: it is required", name))
		}
	}
	if c.Mode > ModeLog {
		errs = append(errs, fmt.Errorf("field Mode is %d: use ModeTable or ModeLog", c.Mode))
	}
	if c.MaxRows < 0 || c.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("fields MaxRows and MaxBytes are %d and %d: use numbers above 0",
			c.MaxRows, c.MaxBytes))
	}
	if c.Heartbeat < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("field Heartbeat is %v: use at least 100ms", c.Heartbeat))
	}
	if c.Check < 0 {
		errs = append(errs, fmt.Errorf("field Check is %v: use a duration above 0", c.Check))
	}
	if c.SkipLost && c.Mode != ModeLog {
		errs = append(errs, errors.New("field SkipLost is for ModeLog: in ModeTable nothing can be lost"))
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: binlog: %w", outbox.ErrConfig, errors.Join(errs...))
	}
	return nil
}

// silence is how long the server may be silent.
func (c *Config) silence() time.Duration { return 4 * c.Heartbeat }
