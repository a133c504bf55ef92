// Package gateway is the HTTP/JSON half of a coordinator's API, and of a relay's:
// http.Handlers that turn requests under /v1/ into gRPC calls. Which request is
// which call stands in proto/amends/v1/http.yaml, and is served at
// /v1/openapi.json.
//
// It decides nothing about who may do what: the Authorization and
// amends-namespace headers go along with each call, and the other end judges
// them. What it adds is what browsers and untrusted networks need: bounded
// bodies, refusal of requests that another site made a browser send, and errors
// as JSON.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	api "github.com/amends-dev/amends/proto/amends/v1/gateway"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Config tunes a gateway. Its zero value, like nil, is ready to use.
type Config struct {
	// MaxBody is the longest request body that is read, in bytes. Default 4 MiB.
	// A longer one is answered with 413.
	MaxBody int64
	// Hosts are the names, without a port, that requests may be addressed to
	// beside IP addresses and localhost. Empty: any. Where a coordinator asks
	// nobody who they are, naming them keeps out a web page whose own name was
	// pointed at this machine (DNS rebinding).
	Hosts []string
	// Redact are names of JSON fields whose values are replaced in the requests
	// and replies of branches and in the bodies of dead letters, at any depth,
	// whatever their case; and of headers of dead letters. When there are any, a
	// payload that is not JSON is replaced whole. Default: none.
	Redact []string
	// KeepAlive is the longest silence of an event stream; then a line without
	// meaning is sent. Default 15 s.
	KeepAlive time.Duration
}

// The defaults of Config.
const (
	defaultMaxBody   = 4 << 20
	defaultKeepAlive = 15 * time.Second
)

func (c *Config) withDefaults() (Config, error) {
	out := Config{}
	if c != nil {
		out = *c
	}
	var errs []error
	if out.MaxBody < 0 {
		errs = append(errs, fmt.Errorf("gateway: MaxBody is %d: it must not be negative", out.MaxBody))
	}
	if out.KeepAlive < 0 {
		errs = append(errs, fmt.Errorf("gateway: KeepAlive is %s: it must not be negative", out.KeepAlive))
	}
	if out.MaxBody == 0 {
		out.MaxBody = defaultMaxBody
	}
	if out.KeepAlive == 0 {
		out.KeepAlive = defaultKeepAlive
	}
	return out, errors.Join(errs...)
}

// gateway is the handler.
type gateway struct {
	cfg     Config
	mux     *runtime.ServeMux
	admin   amendsv1.AdminServiceClient // of a coordinator; of a relay nil
	origin  *http.CrossOriginProtection
	codec   *runtime.JSONPb
	mask    masker
	queries []proto.Message // the requests that are read from a URL
}

// New returns a handler for /v1/ that speaks to a coordinator over conn. The
// connection must carry no credentials of its own: whoever reaches the handler
// would have them. cfg may be nil; the error joins every mistake in it.
func New(conn grpc.ClientConnInterface, cfg *Config) (http.Handler, error) {
	return build(cfg, queries, func(g *gateway) error { return g.coordinator(conn) })
}

// NewOutbox is New for a relay: its handler is for /v1/outbox and /v1/whoami.
func NewOutbox(conn grpc.ClientConnInterface, cfg *Config) (http.Handler, error) {
	return build(cfg, outboxQueries, func(g *gateway) error { return g.relay(conn) })
}

func build(cfg *Config, queries []proto.Message, register func(*gateway) error) (http.Handler, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &gateway{
		cfg:     c,
		origin:  http.NewCrossOriginProtection(),
		codec:   &runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: true}},
		mask:    newMasker(c.Redact),
		queries: queries,
	}
	g.mux = runtime.NewServeMux(g.options()...)
	if err := register(g); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return g, nil
}

func (g *gateway) options() []runtime.ServeMuxOption {
	return []runtime.ServeMuxOption{
		runtime.WithMarshalerOption(runtime.MIMEWildcard, g.codec),
		// Paths are matched as they were sent, and what they name is unescaped
		// afterwards: a gid may hold slashes, and a colon that is no verb's.
		runtime.WithUnescapingMode(runtime.UnescapingModeLegacy),
		runtime.WithMiddlewares(g.unescape),
		runtime.WithIncomingHeaderMatcher(incoming),
		runtime.WithOutgoingHeaderMatcher(nothing),
		runtime.WithOutgoingTrailerMatcher(nothing),
		runtime.WithErrorHandler(fail),
		runtime.WithRoutingErrorHandler(noRoute),
		runtime.WithForwardResponseRewriter(g.mask.rewrite),
		// Either would let a POST that a form can send become another request.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	}
}

func (g *gateway) coordinator(conn grpc.ClientConnInterface) error {
	ctx := context.Background() // of no use to handlers over a client
	g.admin = amendsv1.NewAdminServiceClient(conn)
	return errors.Join(
		api.RegisterAdminServiceHandlerClient(ctx, g.mux, g.admin),
		api.RegisterOperatorServiceHandlerClient(ctx, g.mux, amendsv1.NewOperatorServiceClient(conn)),
		api.RegisterClusterServiceHandlerClient(ctx, g.mux, amendsv1.NewClusterServiceClient(conn)),
		// The last one registered is asked first.
		g.mux.HandlePath(http.MethodGet, "/v1/transactions/{gid}:watch", g.watch),
	)
}

func (g *gateway) relay(conn grpc.ClientConnInterface) error {
	cluster := amendsv1.NewClusterServiceClient(conn)
	return errors.Join(
		api.RegisterOutboxServiceHandlerClient(context.Background(), g.mux, amendsv1.NewOutboxServiceClient(conn)),
		// All that a relay has of ClusterService.
		g.mux.HandlePath(http.MethodGet, "/v1/whoami", func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
			if err := g.whoAmI(w, r, cluster); err != nil {
				writeError(w, err)
			}
		}),
	)
}

func (g *gateway) whoAmI(w http.ResponseWriter, r *http.Request, cluster amendsv1.ClusterServiceClient) error {
	ctx, err := runtime.AnnotateContext(r.Context(), g.mux, r, amendsv1.ClusterService_WhoAmI_FullMethodName)
	if err != nil {
		return err
	}
	who, err := cluster.WhoAmI(ctx, &amendsv1.WhoAmIRequest{})
	if err != nil {
		return err
	}
	body, err := g.codec.Marshal(who)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	write(w, body)
	return nil
}

// ServeHTTP answers one request.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	r, err := g.admit(w, r)
	switch {
	case err != nil:
		writeError(w, err)
	case r.URL.Path == "/v1/openapi.json" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(api.OpenAPI)))
		write(w, api.OpenAPI)
	default:
		g.mux.ServeHTTP(w, r)
	}
}

// incoming lets headers go along with a call as metadata. Authorization always
// goes along, by the runtime's own rule.
func incoming(key string) (string, bool) {
	switch key {
	case "Amends-Namespace":
		return amendsv1.NamespaceHeader, true
	case "Traceparent", "Tracestate":
		return key, true
	}
	return "", false
}

// nothing of a call's metadata becomes a header: errors say all there is.
func nothing(string) (string, bool) { return "", false }
