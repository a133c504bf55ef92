package main

import (
	"context"
	"errors"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/console"
)

// outboxTimeout is how long a relay may take to answer the console.
const outboxTimeout = 10 * time.Second

// outboxes are the relays whose outboxes a coordinator's console shows. There
// are no credentials among the flags: whoever asked the console would have them.
type outboxes struct {
	relays   []string // NAME=ADDRESS
	tls      bool
	ca       string
	insecure bool
	letters  letterTopics
}

func (o *outboxes) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&o.relays, "outbox", nil,
		"show in the console the outbox whose relay listens there, `NAME=ADDRESS`; may be given more than once. "+
			"Callers' tokens go on to the relay: its --auth-file decides, too")
	f.BoolVar(&o.tls, "outbox-tls", false, "talk TLS to these relays, trusting the system's authorities")
	f.StringVar(&o.ca, "outbox-tls-ca", "", "talk TLS to these relays, trusting the authorities in this PEM `file`")
	f.BoolVar(&o.insecure, "outbox-insecure", false, "talk to relays beyond loopback without TLS: callers' tokens can be read on the way")
	o.letters.flags(cmd)
}

// outboxName is what stands in the console's addresses.
var outboxName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// check finds mistakes in the flags.
func (o *outboxes) check(http string) error {
	seen := map[string]bool{}
	for _, r := range o.relays {
		name, addr, _ := strings.Cut(r, "=")
		_, _, err := net.SplitHostPort(addr)
		switch {
		case !outboxName.MatchString(name) || err != nil:
			return usagef("--outbox %q: want NAME=HOST:PORT, for example orders=%s; a name has letters, digits, - _ and .", r, defaultRelayAddr)
		case name == ownOutbox:
			return usagef("--outbox %q: %s is the coordinator's own outbox, of --lifecycle-kafka: give another name", r, ownOutbox)
		case seen[name]:
			return usagef("--outbox %q: another one has this name", r)
		case !o.encrypted() && !o.insecure && !local(addr):
			return usagef("--outbox %q is not on this machine, and callers' tokens must not travel in plaintext: "+
				"give --outbox-tls or --outbox-tls-ca (or --outbox-insecure, to send them readable by whoever is on the way)", r)
		}
		seen[name] = true
	}
	switch {
	case len(o.relays) == 0 && (o.encrypted() || o.insecure):
		return usagef("--outbox-tls, --outbox-tls-ca and --outbox-insecure are for --outbox: give that too")
	case len(o.relays) > 0 && http == "":
		return usagef("--outbox is for the console: give --http too")
	}
	return o.letters.check(http, seen)
}

func (o *outboxes) encrypted() bool { return o.tls || o.ca != "" }

// connect makes a connection to each relay. One that is away shows in the
// console. guard, if any, stands before each of them as it does before the
// coordinator.
func (o *outboxes) connect(guard *auth.Guard, kafka *kafkaLogin) (all []console.Outbox, done func() error, err error) {
	transport := insecure.NewCredentials()
	if o.encrypted() {
		cfg, err := auth.ClientTLS(o.ca, "", "")
		if err != nil {
			return nil, nil, &usageError{err}
		}
		transport = credentials.NewTLS(cfg)
	}
	all, closeLetters, err := o.letters.connect(guard, kafka)
	if err != nil {
		return nil, nil, err
	}
	var conns []*grpc.ClientConn
	done = func() error {
		errs := []error{closeLetters()}
		for _, c := range conns {
			errs = append(errs, c.Close())
		}
		return errors.Join(errs...)
	}
	for _, r := range o.relays {
		name, addr, _ := strings.Cut(r, "=")
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(transport),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
		if err != nil {
			return nil, nil, errors.Join(usagef("--outbox %q: %w", r, err), done())
		}
		conns = append(conns, conn)
		all = append(all, console.Outbox{Name: name, Conn: passage{guard, conn}})
	}
	return all, done, nil
}

// passage brings callers to a relay. Two have to let them in: the coordinator's
// guard, so that the console opens no way to a relay which asks nobody; and the
// relay, which is sent the callers' own tokens, and never other credentials. A
// client certificate ends here: it cannot be passed on. Payloads are shown to
// whom both show them.
type passage struct {
	guard *auth.Guard // nil: this coordinator asks nobody
	grpc.ClientConnInterface
}

// Invoke calls a method.
func (p passage) Invoke(ctx context.Context, method string, req, reply any, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, outboxTimeout)
	defer cancel()
	call := func(context.Context, any) (any, error) {
		return reply, p.ClientConnInterface.Invoke(ctx, method, req, reply, opts...) // the guard hides what is not shown
	}
	guard := p.guard
	if guard == nil {
		guard = auth.Open() // knows which methods there are
	}
	sent, _ := metadata.FromOutgoingContext(ctx)
	_, err := guard.Unary(metadata.NewIncomingContext(ctx, sent), req, &grpc.UnaryServerInfo{FullMethod: method}, call)
	return err
}
