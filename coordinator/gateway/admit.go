package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"
)

// admit refuses what no call should be made for, and returns the request as the
// mux wants it: with its path still escaped, and its body read.
func (g *gateway) admit(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	if err := g.checkHost(r.Host); err != nil {
		return r, err
	}
	if err := g.origin.Check(r); err != nil {
		return r, refuse(http.StatusForbidden, "CROSS_ORIGIN", "another site made this request: %v", err)
	}
	for _, name := range []string{"Authorization", "Amends-Namespace"} {
		if err := checkHeader(r.Header, name); err != nil {
			return r, err
		}
	}
	if err := g.checkQuery(r); err != nil {
		return r, err
	}
	out := *r
	out.URL = &url.URL{Path: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return &out, nil
	}
	body, err := g.readBody(w, r)
	out.Body = io.NopCloser(bytes.NewReader(body))
	return &out, err
}

func (g *gateway) checkHost(hostport string) error {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport // it has no port
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, notIP := netip.ParseAddr(strings.Trim(host, "[]"))
	if len(g.cfg.Hosts) == 0 || notIP == nil || host == "localhost" {
		return nil
	}
	if slices.ContainsFunc(g.cfg.Hosts, func(h string) bool { return strings.EqualFold(h, host) }) {
		return nil
	}
	return refuse(http.StatusMisdirectedRequest, "UNKNOWN_HOST", "this server is not named %q", host)
}

// checkHeader refuses what gRPC cannot carry: left out, a namespace would
// silently become the default one.
func checkHeader(h http.Header, name string) error {
	values := h.Values(name)
	if len(values) > 1 {
		return refuse(http.StatusBadRequest, amendsv1.ErrInvalidArgument.Reason, "header %s stands there twice", name)
	}
	for _, v := range values {
		if strings.ContainsFunc(v, func(c rune) bool { return c < 0x20 || c > 0x7e }) {
			return refuse(http.StatusBadRequest, amendsv1.ErrInvalidArgument.Reason,
				"header %s holds a character that is not printable ASCII", name)
		}
	}
	return nil
}

// queries are a coordinator's requests that are read from a URL.
var queries = []proto.Message{
	(*amendsv1.GetTransactionRequest)(nil), (*amendsv1.ListTransactionsRequest)(nil),
	(*amendsv1.CountTransactionsRequest)(nil), (*amendsv1.ListEventsRequest)(nil),
	(*amendsv1.WatchTransactionRequest)(nil), (*amendsv1.ListBulksRequest)(nil),
}

// outboxQueries are a relay's.
var outboxQueries = []proto.Message{(*amendsv1.ListMessagesRequest)(nil), (*amendsv1.ListDeadLettersRequest)(nil)}

// checkQuery refuses a parameter that no request has. The runtime would leave it
// out, and a mistyped filter would select everything.
func (g *gateway) checkQuery(r *http.Request) error {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refuse(http.StatusBadRequest, amendsv1.ErrInvalidArgument.Reason, "query: %v", err)
	}
	for name := range values {
		if !slices.ContainsFunc(g.queries, func(m proto.Message) bool { return hasField(m, name) }) {
			return refuse(http.StatusBadRequest, amendsv1.ErrInvalidArgument.Reason, "query: unknown field %q", name)
		}
	}
	return nil
}

func hasField(m proto.Message, name string) bool {
	fields := m.ProtoReflect().Descriptor().Fields()
	return fields.ByTextName(name) != nil || fields.ByJSONName(name) != nil
}

// readBody reads the JSON of a request that changes something. The content type
// is one that a form on another site cannot send.
func (g *gateway) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, refuse(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "Content-Type must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.cfg.MaxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, refuse(http.StatusRequestEntityTooLarge, amendsv1.ErrTooLarge.Reason,
			"the body has more than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, amendsv1.ErrInvalidArgument.Reason, "request body: %v", err)
	}
	// The runtime's decoder stops behind the first value.
	if len(body) > 0 && !json.Valid(body) {
		return nil, refuse(http.StatusBadRequest, amendsv1.ErrInvalidArgument.Reason, "request body: not one JSON value")
	}
	return body, nil
}

// unescape gives handlers what a path names.
func (g *gateway) unescape(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		for name, escaped := range params {
			value, err := url.PathUnescape(escaped)
			if err != nil { // EscapedPath was valid, so that this cannot be
				writeError(w, refuse(http.StatusBadRequest, amendsv1.ErrInvalidArgument.Reason, "path: %v", err))
				return
			}
			params[name] = value
		}
		next(w, r, params)
	}
}

// refusal is an error that the gateway itself answers with.
type refusal struct {
	status int
	err    *amendsv1.Error
}

func refuse(status int, reason, format string, args ...any) error {
	return &refusal{status: status, err: &amendsv1.Error{Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }
