package rabbitmq

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/amends-dev/amends/outbox"
)

// Defaults of Config.
const (
	DefaultExchange   = "amends"
	DefaultName       = "amends"
	DefaultMaxMessage = 16 << 20 // bytes; the brokers' own limit since RabbitMQ 4
	DefaultWindow     = 256      // messages
	DefaultTimeout    = 15 * time.Second
	DefaultConnect    = 5 * time.Second
	DefaultMaxBackoff = 5 * time.Second
	DefaultHeartbeat  = 10 * time.Second
)

// maxName is the longest exchange, routing key or message id that AMQP can carry, in bytes.
const maxName = 255

// Config configures New. The zero value, and nil, are the defaults.
type Config struct {
	// Exchange is where messages go, with their topic as the routing key, so that
	// a queue bound with "orders.*" gets "orders.placed". Default "amends".
	Exchange string
	// Destination, when not nil, says it for each message instead. The exchange ""
	// is RabbitMQ's default one, which takes the routing key for the name of a queue.
	Destination func(m outbox.Message) (exchange, key string)
	// Declare makes a missing exchange: durable, of type topic. Queues are for
	// consumers to declare; until one is bound, messages are unroutable, and wait.
	Declare bool
	// MaxMessage is the largest body, in bytes; a larger one is poison. Default
	// 16 MiB. What the broker's max_message_size refuses is poison too.
	MaxMessage int
	// Window is how many messages of one Publish may be unconfirmed, of different
	// keys. Default 256.
	Window int
	// Timeout is how long one Publish goes on; what is not confirmed then fails,
	// to be tried again. It includes pauses, while an alarm of memory or disk
	// makes the broker block publishers. Default 15 s.
	Timeout time.Duration
	// ConnectTimeout bounds one attempt to connect; default 5 s. After a failed
	// one the next waits, from 50 ms to MaxBackoff; default 5 s.
	ConnectTimeout, MaxBackoff time.Duration
	// Heartbeat is how often a silent connection is probed; one that stays silent
	// for three of them is given up. Default 10 s.
	Heartbeat time.Duration
	// TLS is for amqps:// URLs; nil means the system's roots.
	TLS *tls.Config
	// SASL are the mechanisms to log in by; nil means the user and password of
	// the URL.
	SASL []amqp.Authentication
	// Name is what the broker's lists show for the connection, and the app-id of
	// messages. Default "amends".
	Name string
	// Logger receives lost connections and blocked publishers; nil means slog.Default().
	Logger *slog.Logger
}

// complete fills in the defaults and reports every mistake at once.
func (c *Config) complete() error {
	var errs []error
	for name, v := range map[string]int64{
		"MaxMessage": int64(c.MaxMessage), "Window": int64(c.Window), "Timeout": int64(c.Timeout),
		"ConnectTimeout": int64(c.ConnectTimeout), "MaxBackoff": int64(c.MaxBackoff), "Heartbeat": int64(c.Heartbeat),
	} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("rabbitmq: Config.%s is negative: use 0 for the default", name))
		}
	}
	if c.Exchange != "" && c.Destination != nil {
		errs = append(errs, errors.New("rabbitmq: Config.Exchange and Destination are both set: leave one out"))
	}
	if len(c.Exchange) > maxName || len(c.Name) > maxName {
		errs = append(errs, fmt.Errorf("rabbitmq: Config.Exchange or Name is longer than the %d bytes that AMQP allows", maxName))
	}
	setDefault(&c.Exchange, DefaultExchange)
	setDefault(&c.Name, DefaultName)
	setDefault(&c.MaxMessage, DefaultMaxMessage)
	setDefault(&c.Window, DefaultWindow)
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.ConnectTimeout, DefaultConnect)
	setDefault(&c.MaxBackoff, DefaultMaxBackoff)
	setDefault(&c.Heartbeat, DefaultHeartbeat)
	if c.Destination == nil {
		exchange := c.Exchange
		c.Destination = func(m outbox.Message) (string, string) { return exchange, m.Topic }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(errs...)
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
