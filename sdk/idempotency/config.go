package idempotency

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// Defaults of Config.
const (
	DefaultMaxRequest  = 1 << 20 // bytes
	DefaultMaxResponse = 1 << 20 // bytes
	DefaultLease       = 30 * time.Second
	DefaultRetention   = 24 * time.Hour
)

// ErrConfig is returned by New for a configuration with mistakes; it names each
// field and the fix.
var ErrConfig = errors.New("idempotency: illegal configuration")

// Config are the options of a Middleware. The zero value, and nil, are the defaults.
type Config struct {
	// Transactional runs the handler in a transaction, which Tx gives it, and
	// commits it together with the recorded answer when the handler's status is
	// below 400. A status of 400 and above rolls back what the handler did with
	// the transaction; one below 500 is recorded all the same. The handler must
	// neither commit nor roll back, and on SQLite must not write to the database
	// in any other way.
	Transactional bool
	// TxOptions are of that transaction; nil means the database's defaults.
	TxOptions *sql.TxOptions
	// Outbox, if not nil, is woken after each commit of such a transaction.
	Outbox *outbox.Outbox
	// Optional lets requests without a key through, unprotected, instead of
	// answering 400. Not with Transactional: they would find no transaction.
	Optional bool
	// AllowUnquoted also takes keys that are not a structured field's string, as
	// many clients send them: letters, digits and -._~:/+= without the quotes.
	// "a" and a are then the same key.
	AllowUnquoted bool
	// Methods are those that take a key; default POST and PATCH. The others are
	// idempotent already.
	Methods []string
	// Route names what the request is about: a key means something within its
	// route only. Default: the pattern of http.ServeMux that matched, and where
	// there is none method and path.
	Route func(r *http.Request) string
	// MaxRequest and MaxResponse bound the bodies, in bytes; defaults
	// DefaultMaxRequest and DefaultMaxResponse. A longer request is answered 413,
	// a longer answer becomes a 500.
	MaxRequest, MaxResponse int
	// Lease is how long a handler may run, default DefaultLease: then its context
	// ends. The key of a process that died is free ten seconds after that. The
	// context does not end when the client goes away: the client will ask again,
	// and then the answer should be there.
	Lease time.Duration
	// Retention is for how long a key is remembered, from its first request on;
	// default DefaultRetention, longer than Lease. Purge then deletes it.
	Retention time.Duration
	// Docs is the address of your documentation of keys. Problem answers link to
	// it. Default: none.
	Docs string
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

func (c *Config) complete() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"MaxRequest", int64(c.MaxRequest)}, {"MaxResponse", int64(c.MaxResponse)},
		{"Lease", int64(c.Lease)}, {"Retention", int64(c.Retention)},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("field %s is negative: use 0 for the default", f.name))
		}
	}
	c.MaxRequest = cmp.Or(c.MaxRequest, DefaultMaxRequest)
	c.MaxResponse = cmp.Or(c.MaxResponse, DefaultMaxResponse)
	c.Lease = cmp.Or(c.Lease, DefaultLease)
	c.Retention = cmp.Or(c.Retention, max(DefaultRetention, c.Lease+grace))
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Route == nil {
		c.Route = route
	}
	if len(c.Methods) == 0 {
		c.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	if c.Optional && c.Transactional {
		errs = append(errs, errors.New("fields Optional and Transactional exclude each other: "+
			"a request without a key would find no transaction"))
	}
	if !c.Transactional && (c.TxOptions != nil || c.Outbox != nil) {
		errs = append(errs, errors.New("fields TxOptions and Outbox say nothing without Transactional: set it, or leave them out"))
	}
	if c.Lease > 0 && c.Retention > 0 && c.Retention < c.Lease+grace {
		errs = append(errs, fmt.Errorf("field Retention is %v: use at least %v, Lease and %v", c.Retention, c.Lease+grace, grace))
	}
	return errors.Join(errs...)
}

// route is the default of Config.Route.
func route(r *http.Request) string {
	if r.Pattern != "" {
		return r.Pattern
	}
	return r.Method + " " + r.URL.EscapedPath()
}
