package jetstream

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/amends-dev/amends/outbox"
)

// Defaults of Config.
const (
	DefaultPrefix     = "amends."
	DefaultWindow     = 256 // messages
	DefaultTimeout    = 15 * time.Second
	DefaultAckTimeout = 5 * time.Second
)

// Config configures New. The zero value, and nil, are the defaults.
type Config struct {
	// Prefix stands before the topic in a message's subject, so that a stream of
	// "amends.>" takes all of them. Default "amends.".
	Prefix string
	// Subject, when not nil, says the subject of each message instead.
	Subject func(m outbox.Message) string
	// Stream is made when no stream takes the subject of a message; nil makes none.
	// A Name is required; without Subjects it is the Prefix with ">" behind it.
	Stream *jetstream.StreamConfig
	// ExpectStream, when not empty, is the only stream that may take the messages.
	ExpectStream string
	// Window is how many messages of one Publish may wait for their
	// acknowledgement, of different keys. Default 256.
	Window int
	// Timeout is how long one Publish goes on, and AckTimeout how long it waits for
	// one acknowledgement; what has none then fails, to be tried again. Default
	// 15 s and 5 s.
	Timeout, AckTimeout time.Duration
}

// complete fills in the defaults and reports every mistake at once.
func (c *Config) complete() error {
	var errs []error
	for name, v := range map[string]int64{
		"Window": int64(c.Window), "Timeout": int64(c.Timeout), "AckTimeout": int64(c.AckTimeout),
	} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("jetstream: Config.%s is negative: use 0 for the default", name))
		}
	}
	if c.Prefix != "" && c.Subject != nil {
		errs = append(errs, errors.New("jetstream: Config.Prefix and Subject are both set: leave one out"))
	}
	if c.Stream != nil && c.Stream.Name == "" {
		errs = append(errs, errors.New("jetstream: Config.Stream has no Name: give it one"))
	}
	if c.Stream != nil && len(c.Stream.Subjects) == 0 && c.Subject != nil {
		errs = append(errs, errors.New("jetstream: Config.Stream has no Subjects: name those that Config.Subject answers"))
	}
	setDefault(&c.Prefix, DefaultPrefix)
	setDefault(&c.Window, DefaultWindow)
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.AckTimeout, DefaultAckTimeout)
	if c.Stream != nil && len(c.Stream.Subjects) == 0 {
		stream := *c.Stream // the caller's stays as it is
		stream.Subjects = []string{c.Prefix + ">"}
		c.Stream = &stream
	}
	if c.Subject == nil {
		prefix := c.Prefix
		c.Subject = func(m outbox.Message) string { return prefix + m.Topic }
	}
	return errors.Join(errs...)
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Options are those of a connection that suits a Publisher: it is made again for
// as long as it takes, also the first time; what is published meanwhile fails at
// once instead of being sent late; and a server that is silent, or does not read,
// is given up after some seconds. Put your own behind them.
func Options() []nats.Option {
	return []nats.Option{
		nats.Name("amends"), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(5 * time.Second),
	}
}
