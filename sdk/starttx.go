package sdk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// StartTopic is the outbox topic of the sagas that StartTx starts. Route it to
// a NewStarter:
//
//	pub := outbox.Route(map[string]outbox.Publisher{sdk.StartTopic: sdk.NewStarter(client)}, kafka)
const StartTopic = "amends.start"

// A relay's batch is started by at most startsAtOnce requests at a time, and
// one that is not answered within startTimeout is tried again later.
const (
	startsAtOnce = 64
	startTimeout = 10 * time.Second
)

// StartTx begins a saga atomically with the caller's own writes: it writes one
// row of the outbox in tx, and after the commit the relay hands it to the
// coordinator, once. If tx rolls back nothing begins. It returns the gid, with
// which Client.Run waits; until the relay has delivered it, the coordinator
// does not know it (ErrNotFound).
//
// What can be checked is checked now, with the errors of Start. What only the
// coordinator can reject (another content under the same gid, a payload over
// its limit) ends up in the outbox's dead letters.
func StartTx[In any](
	ctx context.Context, box *outbox.Outbox, tx *sql.Tx, s saga.Saga[In], in In, cfg *StartConfig,
) (gid string, err error) {
	if box == nil || tx == nil {
		return "", fmt.Errorf("sdk: start saga %q: the outbox or the transaction is nil", s.Name())
	}
	req, err := startRequest(s, in, cfg)
	if err != nil {
		return "", fmt.Errorf("sdk: start saga %q: %w", s.Name(), err)
	}
	req.Traceparent = traceparentOf(ctx)
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return "", fmt.Errorf("sdk: start saga %q: encode: %w", s.Name(), err)
	}
	m := outbox.Message{Topic: StartTopic, Key: req.GetGid(), Body: body}
	if cfg != nil && cfg.Namespace != "" {
		m.Headers = map[string]string{amendsv1.NamespaceHeader: cfg.Namespace}
	}
	if err := box.Write(ctx, tx, m); err != nil {
		return "", fmt.Errorf("sdk: start saga %q: %w", s.Name(), err)
	}
	return req.GetGid(), nil
}

// NewStarter returns a publisher that starts the sagas of StartTx at the
// coordinator, each in the namespace of its StartConfig, or else in the
// client's; which of them a row may name, the client's credentials decide.
// Delivered twice, one starts once. What can never be started is poison; while
// the coordinator is unavailable or full, refuses the client's credentials, or
// does not know an action yet, it is tried again.
func NewStarter(c *Client) outbox.Publisher { return &starter{client: c} }

type starter struct{ client *Client }

// Publish implements outbox.Publisher. Messages of one key are started one
// after the other, those of different keys at once.
func (s *starter) Publish(ctx context.Context, msgs []outbox.Message) []error {
	errs := make([]error, len(msgs))
	byKey := map[string][]int{}
	var keys []string
	for i, m := range msgs {
		if byKey[m.Key] == nil {
			keys = append(keys, m.Key)
		}
		byKey[m.Key] = append(byKey[m.Key], i)
	}
	var g errgroup.Group
	g.SetLimit(startsAtOnce)
	for _, key := range keys {
		g.Go(func() error {
			held := false
			for _, i := range byKey[key] {
				if held {
					errs[i] = outbox.ErrHeld
					continue
				}
				errs[i] = s.start(ctx, msgs[i])
				held = errs[i] != nil
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return no errors
	return errs
}

func (s *starter) start(ctx context.Context, m outbox.Message) error {
	if err := s.client.usable(); err != nil {
		return fmt.Errorf("sdk: starter: %w", err)
	}
	var req amendsv1.StartSagaRequest
	if err := proto.Unmarshal(m.Body, &req); err != nil || req.GetGid() == "" {
		return outbox.Poison(fmt.Errorf("sdk: message %s is no start of a saga: %w", m.ID, errors.Join(err, ErrInvalidGID)))
	}
	req.Wait = nil // nobody is there who would hear of the end
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	rpc := s.client.rpc
	if namespace := m.Headers[amendsv1.NamespaceHeader]; namespace != "" {
		rpc = amendsv1.NewTransactionServiceClient(inNamespace(s.client.conn, namespace))
	}
	_, err := rpc.StartSaga(ctx, &req)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("sdk: start saga %q (gid %q): %w", req.GetName(), req.GetGid(), fromError(err))
	if neverStarts(err) {
		return outbox.Poison(err)
	}
	return err
}
