package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"golang.org/x/sync/errgroup"
)

// kafkaPatience is how long brokers may take to let a command in when it starts.
const kafkaPatience = 5 * time.Second

// kafkaUse is something that a command does with Kafka.
type kafkaUse struct {
	flag    string // that names the brokers
	brokers []string
}

// brokersOf are those of all uses.
func brokersOf(uses []kafkaUse) (all []string) {
	for _, u := range uses {
		all = append(all, u.brokers...)
	}
	return all
}

// try asks brokers that want a login, or TLS, whether they let us in. A refusal is an
// error: no waiting mends it. That nobody answers is none: who needs them goes on
// asking.
func (k *kafkaLogin) try(ctx context.Context, log *slog.Logger, uses ...kafkaUse) error {
	if !k.given() {
		return nil
	}
	conf, login, err := k.open()
	if err != nil {
		return err
	}
	var g errgroup.Group
	for i, u := range uses {
		known := func(other kafkaUse) bool { return slices.Equal(other.brokers, u.brokers) }
		if len(u.brokers) == 0 || slices.ContainsFunc(uses[:i], known) {
			continue
		}
		g.Go(func() error {
			err := askKafka(ctx, u.brokers, conf, login)
			if errors.Is(err, errHangUp) { // or the broker is just going down
				err = askKafka(ctx, u.brokers, conf, login)
			}
			if why := k.refused(err); why != "" {
				return fmt.Errorf("%s: %s: %w", u.flag, why, err)
			}
			if err != nil {
				log.Warn("amends: Kafka does not answer yet", "flag", u.flag, "brokers", u.brokers, "error", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// errHangUp is of brokers that end the connection instead of answering to a login.
var errHangUp = errors.New("they hang up at the login")

// askKafka connects to one of the brokers.
func askKafka(ctx context.Context, brokers []string, conf *tls.Config, login sasl.Mechanism) (err error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaPatience)
	defer cancel()
	tr := &kafka.Transport{ClientID: "amends", TLS: conf, DialTimeout: kafkaPatience}
	defer tr.CloseIdleConnections()
	var seen watchedLogin
	if login != nil {
		seen.Mechanism = login
		tr.SASL = &seen
	}
	_, err = (&kafka.Client{Addr: kafka.TCP(brokers...), Transport: tr}).ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	if err != nil && seen.begun.Load() && !seen.done.Load() && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", errHangUp, err)
	}
	return err
}

// watchedLogin notes how far a login came.
type watchedLogin struct {
	sasl.Mechanism
	begun, done atomic.Bool
}

// Start implements sasl.Mechanism.
func (w *watchedLogin) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	w.begun.Store(true)
	s, first, err := w.Mechanism.Start(ctx)
	return watchedState{s, w}, first, err
}

type watchedState struct {
	sasl.StateMachine
	login *watchedLogin
}

// Next implements sasl.StateMachine.
func (w watchedState) Next(ctx context.Context, challenge []byte) (bool, []byte, error) {
	done, response, err := w.StateMachine.Next(ctx, challenge)
	w.login.done.Store(done && err == nil)
	return done, response, err
}

// refused says which flag is to be put right after such an error; "" for all others.
func (k *kafkaLogin) refused(err error) string {
	var certificate *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		return fmt.Sprintf("the brokers do not take --kafka-sasl %s", k.mechanism)
	case errors.Is(err, kafka.SASLAuthenticationFailed), errors.Is(err, errHangUp):
		return fmt.Sprintf("the brokers do not let %q in: see --kafka-user and --kafka-password-file (or %s)", k.user, kafkaPasswordEnv)
	case errors.As(err, &certificate):
		return "the brokers' certificate is not trusted: give --kafka-ca, the file of the authority that signed it"
	case errors.As(err, &plain):
		return "the brokers do not talk TLS there: name their other port, or leave --kafka-tls and --kafka-ca out"
	case errors.As(err, &alert):
		return "the brokers refuse our TLS: see --kafka-cert"
	}
	return ""
}
