package rabbitmq

import (
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/amends-dev/amends/outbox"
)

// HeaderKey is the header that holds Message.Key. The exchange type
// x-consistent-hash can spread messages over queues by it.
const HeaderKey = "amends-key"

// escape stands before the name of a header that would mean something else to
// RabbitMQ or to Received.
const escape = "%"

// outgoing is a message as it is sent.
type outgoing struct {
	exchange, key string
	msg           amqp.Publishing
	err           error // it can never be sent
}

// encode makes a publishing: the id is its message-id, the topic its type, the
// time of writing its timestamp, in seconds.
func (c *Config) encode(m outbox.Message) outgoing {
	o := outgoing{}
	o.exchange, o.key = c.Destination(m)
	headers := amqp.Table{}
	for name, value := range m.Headers {
		if name == "CC" || name == "BCC" || name == HeaderKey || strings.HasPrefix(name, escape) {
			name = escape + name
		}
		headers[name] = value
	}
	if m.Key != "" {
		headers[HeaderKey] = m.Key
	}
	o.msg = amqp.Publishing{
		Headers: headers, DeliveryMode: amqp.Persistent, MessageId: m.ID, Type: m.Topic, AppId: c.Name,
		Timestamp: m.CreatedAt, Body: m.Body,
		ContentType: property(m.Headers, "content-type"), ContentEncoding: property(m.Headers, "content-encoding"),
	}
	o.err = c.check(&o)
	return o
}

// property is a header that AMQP has a place of its own for. It stays a header too.
func property(headers map[string]string, name string) string {
	if v := headers[name]; len(v) <= maxName {
		return v
	}
	return ""
}

// check finds what AMQP or the configuration cannot carry.
func (c *Config) check(o *outgoing) error {
	for field, s := range map[string]string{
		"its exchange": o.exchange, "its routing key": o.key, "field ID": o.msg.MessageId, "field Topic": o.msg.Type,
	} {
		if len(s) > maxName {
			return fmt.Errorf("%s %.40q… is %d bytes long, AMQP carries %d: shorten it, or set Config.Destination",
				field, s, len(s), maxName)
		}
	}
	for name := range o.msg.Headers {
		if len(name) > maxName {
			return fmt.Errorf("the name of its header %.40q… is %d bytes long, AMQP carries %d: shorten it", name, len(name), maxName)
		}
	}
	if n := len(o.msg.Body); n > c.MaxMessage {
		return fmt.Errorf("its body has %d bytes, over Config.MaxMessage %d: raise it, there and in the broker, "+
			"or send a reference instead of the body", n, c.MaxMessage)
	}
	return nil
}

// headerSize is about what the properties take, all of which AMQP puts into one frame.
func (o *outgoing) headerSize() int {
	n := 64 + len(o.msg.MessageId) + len(o.msg.Type) + len(o.msg.AppId) + len(o.msg.ContentType) + len(o.msg.ContentEncoding)
	for name, value := range o.msg.Headers {
		s, _ := value.(string) // encode puts nothing else there
		n += len(name) + len(s) + 6
	}
	return n
}

// Received is the message that a Publisher sent, as it was but for
// IdempotencyKey and Sheddable; CreatedAt is in whole seconds. Of a message of
// another publisher's, it has the fields that are there. Its ID is what the
// consumer's inbox knows it by.
func Received(d amqp.Delivery) outbox.Message {
	m := outbox.Message{ID: d.MessageId, Topic: d.Type, Body: d.Body, CreatedAt: d.Timestamp}
	for name, value := range d.Headers {
		var s string
		switch v := value.(type) {
		case string:
			s = v
		case []byte:
			s = string(v)
		default: // RabbitMQ's own, such as x-death
			continue
		}
		if name == HeaderKey {
			m.Key = s
			continue
		}
		if m.Headers == nil {
			m.Headers = map[string]string{}
		}
		m.Headers[strings.TrimPrefix(name, escape)] = s
	}
	return m
}
