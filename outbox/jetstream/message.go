package jetstream

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/amends-dev/amends/outbox"
)

// Headers of a message beside its own. In these and in the message's own, what
// NATS cannot carry is percent-encoded: control characters, bytes that are not
// ASCII, "%", and spaces at an end; in names also what is no letter of an HTTP
// token. Received decodes it.
const (
	HeaderID    = "Amends-Id"
	HeaderTopic = "Amends-Topic"
	HeaderKey   = "Amends-Key"
	HeaderTime  = "Amends-Time" // when the message was written, RFC 3339
)

// encode makes a NATS message. The server knows it again by topic and id: two
// topics may share a stream, and their messages an id.
func (c *Config) encode(m outbox.Message) (*nats.Msg, error) {
	out := &nats.Msg{Subject: c.Subject(m), Data: m.Body, Header: nats.Header{}}
	if err := checkSubject(out.Subject); err != nil {
		return nil, err
	}
	for name, value := range m.Headers {
		out.Header[encodeName(name)] = []string{encodeValue(value)}
	}
	out.Header.Set(HeaderTopic, encodeValue(m.Topic))
	if m.ID != "" {
		out.Header.Set(HeaderID, encodeValue(m.ID))
		out.Header.Set(jetstream.MsgIDHeader, encodeValue(m.Topic+"/"+m.ID))
	}
	if m.Key != "" {
		out.Header.Set(HeaderKey, encodeValue(m.Key))
	}
	if !m.CreatedAt.IsZero() {
		out.Header.Set(HeaderTime, m.CreatedAt.UTC().Format(time.RFC3339Nano))
	}
	if c.ExpectStream != "" {
		out.Header.Set(jetstream.ExpectedStreamHeader, c.ExpectStream)
	}
	return out, nil
}

// checkSubject wants one that can be published to.
func checkSubject(subject string) error {
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || strings.ContainsAny(token, " \t\r\n*>") {
			return fmt.Errorf("subject %q is none that NATS can publish to: it wants words between single dots: "+
				"choose another topic, or set Config.Subject", subject)
		}
	}
	return nil
}

// Received is the message that a Publisher sent, as it was but for
// IdempotencyKey and Sheddable. Of a message of another publisher's, it has the
// fields that are there. Its ID is what the consumer's inbox knows it by.
func Received(msg jetstream.Msg) outbox.Message { return decode(msg.Headers(), msg.Data()) }

func decode(headers nats.Header, body []byte) outbox.Message {
	m := outbox.Message{Body: body}
	for name, values := range headers {
		value := unescape(strings.Join(values, ","))
		switch name {
		case HeaderID:
			m.ID = value
		case HeaderTopic:
			m.Topic = value
		case HeaderKey:
			m.Key = value
		case HeaderTime:
			m.CreatedAt, _ = time.Parse(time.RFC3339Nano, value) // of another's message, it may be anything
		default:
			if reserved(name) {
				continue
			}
			if m.Headers == nil {
				m.Headers = map[string]string{}
			}
			m.Headers[unescape(name)] = value
		}
	}
	return m
}

// reserved are the names that NATS or this package give a meaning.
func reserved(name string) bool {
	name = strings.ToLower(name)
	return strings.HasPrefix(name, "nats-") || strings.HasPrefix(name, "amends-")
}

func encodeName(name string) string {
	out := escape(name, func(i int) bool { return strings.IndexByte(" \"(),/:;<=>?@[\\]{}", name[i]) >= 0 })
	if reserved(name) { // its first letter, so that it means nothing
		out = fmt.Sprintf("%%%02X", name[0]) + out[1:]
	}
	return out
}

func encodeValue(value string) string {
	return escape(value, func(i int) bool { return value[i] == ' ' && (i == 0 || i == len(value)-1) })
}

// escape percent-encodes what is no visible ASCII, and where also is true.
func escape(s string, also func(i int) bool) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' || also(i) {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape leaves what was not encoded as it is.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
