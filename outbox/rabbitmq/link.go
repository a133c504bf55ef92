package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// link is one connection, with what is known of the broker through it.
type link struct {
	cfg  *Config
	conn *amqp.Connection
	tcp  net.Conn
	g    errgroup.Group // watch

	mu        sync.Mutex // guards what follows
	exchanges map[string]bool
	idle      []*lane
	given     int           // lanes that were given up
	blocked   string        // why, while the broker wants no messages
	wake      chan struct{} // closed when blocked changes, or the connection ends
}

// connect opens a connection, and gives up when ctx ends.
func connect(ctx context.Context, url string, cfg *Config) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	l := &link{cfg: cfg, exchanges: map[string]bool{}, wake: make(chan struct{})}
	var stop func() bool
	conf := amqp.Config{
		SASL: cfg.SASL, Heartbeat: cfg.Heartbeat, TLSClientConfig: cfg.TLS.Clone(), Properties: amqp.NewConnectionProperties(),
		Dial: func(network, addr string) (net.Conn, error) {
			var d net.Dialer
			tcp, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			l.tcp = tcp
			stop = context.AfterFunc(ctx, func() { tcp.Close() }) // amid the handshakes, which know no context
			return tcp, nil
		},
	}
	conf.Properties.SetClientConnectionName(cfg.Name)
	var err error
	l.conn, err = amqp.DialConfig(url, conf)
	if err == nil && !stop() {
		_ = l.conn.CloseDeadline(time.Now()) // it is closed already; this ends its goroutines
		err = ctx.Err()
	}
	if err != nil {
		if stop != nil && stop() {
			l.tcp.Close() // not of much use any more
		}
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return nil, err
	}
	notices := l.conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	l.g.Go(func() error { return l.watch(notices) })
	return l, nil
}

// watch hears the broker's wish for a pause, until the connection ends.
func (l *link) watch(notices <-chan amqp.Blocking) error {
	for n := range notices {
		why := ""
		if n.Active {
			why = n.Reason
			if why == "" {
				why = "it gives no reason"
			}
			l.cfg.Logger.Warn("RabbitMQ blocks publishers: messages wait", "reason", why)
		} else {
			l.cfg.Logger.Info("RabbitMQ takes messages again")
		}
		l.mu.Lock()
		l.blocked = why
		close(l.wake)
		l.wake = make(chan struct{})
		l.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.wake)
	return nil
}

// unblocked waits until the broker wants messages.
func (l *link) unblocked(ctx context.Context) error {
	for {
		l.mu.Lock()
		why, wake := l.blocked, l.wake
		l.mu.Unlock()
		if why == "" || l.conn.IsClosed() {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return fmt.Errorf("%w: the broker blocks publishers: %s", ctx.Err(), why)
		}
	}
}

// exchange sees to it that an exchange is there: publishing to one that is not
// would close the channel, under the messages of others.
func (l *link) exchange(name string) error {
	l.mu.Lock()
	known := l.exchanges[name]
	l.mu.Unlock()
	if known || name == "" {
		return nil
	}
	err := l.once(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(name, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	if isCode(err, amqp.NotFound) && l.cfg.Declare {
		err = l.once(func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare(name, amqp.ExchangeTopic, true, false, false, false, nil)
		})
	}
	if isCode(err, amqp.NotFound) {
		return fmt.Errorf("exchange %q does not exist: declare it, or set Config.Declare: %w", name, err)
	}
	if err != nil {
		return fmt.Errorf("exchange %q: %w", name, err)
	}
	l.know(name, true)
	return nil
}

func (l *link) know(exchange string, there bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exchanges[exchange] = there
}

// once does something on a channel of its own, which an error closes.
func (l *link) once(f func(*amqp.Channel) error) error {
	ch, err := l.conn.Channel()
	if err != nil {
		return err
	}
	if err := f(ch); err != nil {
		return err
	}
	return ch.Close()
}

// close ends the connection, and returns when nothing of it runs any more.
func (l *link) close() error {
	if l.conn.IsClosed() {
		l.tcp.Close() // whoever hangs in a write on it goes on
	}
	err := l.conn.CloseDeadline(time.Now().Add(l.cfg.ConnectTimeout))
	if errors.Is(err, amqp.ErrClosed) {
		err = nil
	}
	return errors.Join(err, l.g.Wait())
}

// isCode tells whether the broker answered with an AMQP reply code.
func isCode(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == code
}
