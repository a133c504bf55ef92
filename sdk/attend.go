package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const (
	protocolVersion = 1

	welcomeTimeout   = 10 * time.Second // for the stream to open and the welcome to come
	farewellTimeout  = 5 * time.Second  // for the coordinator to end a stream that we closed
	defaultHeartbeat = 5 * time.Second

	// A message of calls may hold payloads and earlier replies of many steps:
	// far above gRPC's default of 4 MiB, and still bounded.
	maxReceive = 256 << 20
)

// The reasons for ending a stream ourselves.
var (
	errNoWelcome = errors.New("the coordinator did not welcome this participant in time")
	errSilent    = errors.New("the coordinator fell silent")
	errFarewell  = errors.New("the stream was drained, and the coordinator did not end it")
)

// attendance is what a participant does with one coordinator.
type attendance struct {
	p        *Participant
	conn     grpc.ClientConnInterface
	handling context.Context // of handlers: outlives the streams
	verdicts *verdicts       // of all coordinators of the same Run

	// Of a member of a cluster; else nil.
	cluster *Cluster
	link    *link
	life    context.Context // until it is no member any more
	end     context.CancelFunc
}

// keep attends until ctx ends, reconnecting with backoff. A coordinator that says
// something hopeless is asked again, too, as long as there are others.
func (a *attendance) keep(ctx context.Context) error {
	var refused refusals
	for attempt := 1; ; attempt++ {
		welcomed, err := a.attend(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case hopeless(err):
			if err := a.verdicts.say(a, fmt.Errorf("attend to the coordinator: %w", fromError(err))); err != nil {
				return err
			}
		case welcomed:
			attempt = 1
			refused.over()
		}
		wait := backoff(attempt)
		a.p.log.Log(ctx, refused.level(err, time.Now()), "sdk: stream to the coordinator ended, connecting again", "err", err, "wait", wait)
		if a.link != nil {
			a.link.check()
		}
		if !sleep(ctx, wait) || a.link != nil && !a.cluster.awaitUp(ctx, a.link) {
			return nil
		}
	}
}

// hopeless reports an answer that connecting again will not change.
func hopeless(err error) bool {
	known := amendsv1.FromError(err)
	return errors.Is(known, ErrProtocolVersion) || errors.Is(known, ErrInvalidArgument) ||
		status.Code(err) == codes.Unimplemented
}

// attend keeps one stream until it is lost or, after the end of ctx, drained.
// The stream itself is not bound to ctx, because it has to outlive it.
func (a *attendance) attend(ctx context.Context) (welcomed bool, err error) {
	p := a.p
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	g, gctx := errgroup.WithContext(life) // an error of any part ends the stream
	giveUp := time.AfterFunc(welcomeTimeout, func() { end(errNoWelcome) })
	stopWatching := context.AfterFunc(ctx, func() { end(ctx.Err()) })

	s := &session{p: p, handling: a.handling, life: gctx, end: end, outcomes: make(chan *amendsv1.Outcome, p.cfg.Concurrency)}
	err = s.open(a.conn)
	if inTime := giveUp.Stop(); err != nil || !inTime || !stopWatching() {
		stopWatching()
		return false, s.why(err)
	}
	p.log.InfoContext(ctx, "sdk: attending", "coordinator", s.coordinator)
	_ = a.verdicts.say(a, nil) // somebody is not hopeless: there is no error
	g.Go(s.read)
	g.Go(func() error { return s.write(ctx) })
	g.Go(s.listen)
	return true, s.why(g.Wait())
}

// open starts the stream: hello and welcome.
func (s *session) open(conn grpc.ClientConnInterface) error {
	stream, err := amendsv1.NewParticipantServiceClient(conn).Attend(s.life, grpc.MaxCallRecvMsgSize(maxReceive))
	if err != nil {
		return err
	}
	s.stream = stream
	hello := &amendsv1.Hello{
		ProtocolVersion: protocolVersion, Service: s.p.service, Instance: cleanText(s.p.cfg.Instance),
		Actions: s.p.offers(), Capacity: int32(s.p.cfg.Concurrency), //nolint:gosec // at most 10,000
	}
	err = stream.Send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{Hello: hello}})
	if err != nil && !errors.Is(err, io.EOF) { // EOF: Recv has the server's own error
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	welcome := first.GetWelcome()
	if welcome == nil {
		return fmt.Errorf("the coordinator's first message is %T, not a welcome", first.GetMessage())
	}
	s.coordinator = welcome.GetCoordinator()
	s.heartbeat = welcome.GetHeartbeat().AsDuration()
	if s.heartbeat <= 0 {
		s.heartbeat = defaultHeartbeat
	}
	s.hear()
	return nil
}

// offers returns the names of the actions handled, sorted.
func (p *Participant) offers() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.actions))
}
