package idempotency

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"

	"github.com/amends-dev/amends/outbox"
)

// HeaderReplayed is set to true on an answer that was recorded earlier.
const HeaderReplayed = "Idempotent-Replayed"

// Middleware answers repeated requests. Safe for concurrent use.
type Middleware struct {
	cfg    Config
	caller func(*http.Request) string
	store  store
}

// New makes a middleware that keeps its records in db, where outbox.Migrate has
// made the tables.
//
// caller names who sends a request, for example the tenant of an authenticated
// token: a key belongs to its caller, so that nobody meets the answer of another.
// It runs after authentication, must not take the name from where the client can
// choose it, and is required; a service with one caller answers a constant. A
// request for which it answers "" is refused with 403.
//
// Mistakes are returned all at once, as ErrConfig.
func New(db *sql.DB, d *outbox.Dialect, caller func(*http.Request) string, cfg *Config) (*Middleware, error) {
	m := &Middleware{caller: caller}
	if cfg != nil {
		m.cfg = *cfg
		m.cfg.Methods = slices.Clone(cfg.Methods)
	}
	errs := []error{m.cfg.complete()}
	stmts, ok := statementsOf(d)
	if !ok {
		errs = append(errs, errors.New("the dialect is not known: use outbox.SQLite or outbox.MySQL"))
	}
	if db == nil {
		errs = append(errs, errors.New("the database is nil"))
	}
	if caller == nil {
		errs = append(errs, errors.New("caller is nil: say whose keys they are, so that those of two tenants never meet; "+
			"answer a constant if there is one caller"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	m.store = store{db: db, d: d, statements: stmts}
	return m, nil
}

// Wrap answers repeated requests in front of next. Nothing that reads the body
// may stand before it. next sees a request whose context Tx and ID understand,
// and writes an answer that is held back until it is recorded: it cannot stream,
// take over the connection, or send trailers.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(m.cfg.Methods, r.Method) {
			next.ServeHTTP(w, r)
			return
		}
		req, refusal := m.read(w, r)
		switch {
		case refusal != nil:
			m.send(w, r, refusal.answer(m.cfg.Docs))
		case req == nil:
			next.ServeHTTP(w, r)
		default:
			m.serve(w, req, next)
		}
	})
}

// request is one that has a key.
type request struct {
	*http.Request

	body      []byte
	key, mark []byte
}

// read reads and checks the request; nil and nil when it has no key and needs none.
func (m *Middleware) read(w http.ResponseWriter, r *http.Request) (*request, *problem) {
	key, err := keyOf(r.Header, m.cfg.AllowUnquoted)
	switch {
	case errors.Is(err, errNoKey) && m.cfg.Optional:
		return nil, nil
	case errors.Is(err, errNoKey):
		return nil, missingKey()
	case err != nil:
		return nil, illegalKey(err)
	}
	caller := m.caller(r)
	if caller == "" {
		return nil, unknownCaller()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(m.cfg.MaxRequest)))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return nil, longRequest(m.cfg.MaxRequest)
	case err != nil:
		return nil, unreadable()
	}
	return &request{Request: r, body: body, key: digest(caller, m.cfg.Route(r), key), mark: fingerprint(r, body)}, nil
}

// serve answers a request with a key.
func (m *Middleware) serve(w http.ResponseWriter, r *request, next http.Handler) {
	ctx := context.WithoutCancel(r.Context())
	c, found, recorded, err := m.claim(ctx, r)
	switch {
	case err != nil:
		m.log(r, slog.LevelError, "idempotency: claiming a key failed", "error", err)
		recorded = unavailable().answer(m.cfg.Docs)
	case found == claimed:
		recorded = m.run(ctx, r, c, next)
	case found == running:
		recorded = stillRunning().answer(m.cfg.Docs)
	case found == other:
		recorded = otherRequest().answer(m.cfg.Docs)
	default:
		m.log(r, slog.LevelDebug, "idempotency: answered from the record", "status", recorded.status)
		recorded.header.Set(HeaderReplayed, "true")
	}
	m.send(w, r.Request, recorded)
}

// claim is not cut short when the client goes away: an INSERT of unknown outcome
// would hold the key for a whole lease.
func (m *Middleware) claim(ctx context.Context, r *request) (claim, verdict, answer, error) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	return m.store.claim(ctx, r.key, r.mark, m.cfg.Lease+grace, m.cfg.Retention)
}

func (m *Middleware) send(w http.ResponseWriter, r *http.Request, a answer) {
	if err := a.send(w); err != nil { // the client asks again, and finds the record
		m.cfg.Logger.DebugContext(r.Context(), "idempotency: the answer was not sent", "error", err)
	}
}

func (m *Middleware) log(r *request, level slog.Level, text string, args ...any) {
	m.cfg.Logger.Log(r.Context(), level, text, append(args, "method", r.Method, "path", r.URL.Path, "id", hex.EncodeToString(r.key))...)
}

// withBody is the request for the handler, with its body from the beginning.
func (r *request) withBody(ctx context.Context) *http.Request {
	out := r.WithContext(ctx)
	out.Body = io.NopCloser(bytes.NewReader(r.body))
	out.ContentLength = int64(len(r.body))
	return out
}

type contextKey uint8

const (
	txKey contextKey = iota
	idKey
)

// Tx is the transaction of a handler under Config.Transactional: what it does
// there takes effect together with its answer. The handler must not end it.
func Tx(ctx context.Context) (*sql.Tx, bool) {
	tx, ok := ctx.Value(txKey).(*sql.Tx)
	return tx, ok
}

// ID names the request for everything that the handler starts: 64 hexadecimal
// digits, the same each time it is sent, and of no other caller, route or key.
// Use it as a saga's gid or a message's ID. Not secret, but nobody can guess it
// without the caller and the key.
func ID(ctx context.Context) (string, bool) {
	key, ok := ctx.Value(idKey).([]byte)
	return hex.EncodeToString(key), ok
}
