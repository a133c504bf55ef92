package outbox

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Limits of a message, in bytes where nothing else is said. The limit of the
// whole message is Config.MaxMessage.
const (
	MaxTopic          = 249  // as Kafka's
	MaxKey            = 1024 // of Message.Key
	MaxID             = 128  // of Message.ID
	MaxIdempotencyKey = 256  // of Message.IdempotencyKey
	MaxHeaders        = 64   // number of headers
	MaxHeaderName     = 128  // of one header's name
)

const maxNotBefore = 253402300800_000_000 // microseconds: the end of the year 9999

// Message is one message of the outbox.
type Message struct {
	// ID names the message for its consumers' inbox. Empty means a UUIDv7. Two
	// messages with one ID are one message to a consumer: the second is dropped.
	ID string
	// Topic is where it goes: letters, digits, '.', '_' and '-'. Required.
	Topic string
	// Key orders messages: those of one key are published in order. Empty means
	// no order. Any bytes but NUL.
	Key string
	// Body is the payload; any bytes, nil and empty are the same.
	Body []byte
	// Headers travel beside the body. Names are not empty; values are any bytes.
	Headers map[string]string
	// IdempotencyKey, when not empty, makes the relay drop a later message of the
	// same topic and IdempotencyKey within the window of the relay's Keys. It
	// holds within one Key; across keys two such messages may pass side by side.
	IdempotencyKey string
	// NotBefore, when not zero, is the time before which it is not published, by
	// the database's clock and to the microsecond. Later messages of its key wait
	// behind it; messages without a key hold up nobody. It counts to the bounds of
	// the outbox, though not to Config.MaxAge.
	NotBefore time.Time
	// Sheddable allows the policy Shed to drop it when the outbox is full.
	Sheddable bool
	// CreatedAt is when it was written, by the database's clock. Set by the
	// outbox; ignored by Write.
	CreatedAt time.Time
}

// size counts what the message weighs, in bytes.
func (m *Message) size() int {
	n := len(m.ID) + len(m.Topic) + len(m.Key) + len(m.Body) + len(m.IdempotencyKey)
	for name, value := range m.Headers {
		n += len(name) + len(value)
	}
	return n
}

// validate joins every mistake in the message.
func (m *Message) validate(maxSize int) error {
	errs := []error{
		checkTopic(m.Topic),
		checkText("Key", m.Key, MaxKey),
		checkText("ID", m.ID, MaxID),
		checkText("IdempotencyKey", m.IdempotencyKey, MaxIdempotencyKey),
	}
	if len(m.Headers) > MaxHeaders {
		errs = append(errs, fmt.Errorf("field Headers has %d entries, at most %d are allowed", len(m.Headers), MaxHeaders))
	}
	for name := range m.Headers {
		if name == "" {
			errs = append(errs, errors.New("field Headers has an entry without a name: name it or leave it out"))
		}
		if name == notBeforeHeader {
			errs = append(errs, fmt.Errorf("field Headers has an entry %q, which is the outbox's own: use field NotBefore", name))
		}
		errs = append(errs, checkText("Headers name", name, MaxHeaderName))
	}
	if us := m.NotBefore.UnixMicro(); !m.NotBefore.IsZero() && (us <= 0 || us >= maxNotBefore) {
		errs = append(errs, fmt.Errorf("field NotBefore is %v: use a time between the years 1970 and 9999", m.NotBefore))
	}
	if n := m.size(); n > maxSize {
		errs = append(errs, fmt.Errorf("the message has %d bytes, at most %d are allowed: "+
			"keep the body elsewhere and send a reference, or raise Config.MaxMessage", n, maxSize))
	}
	return errors.Join(errs...)
}

// CheckTopic tells whether messages can have a topic of this name: letters, digits,
// '.', '_' and '-', at most MaxTopic bytes. The error, ErrMessage, says what is wrong.
func CheckTopic(topic string) error {
	if err := checkTopic(topic); err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return nil
}

func checkTopic(topic string) error {
	if topic == "" {
		return errors.New("field Topic is empty: name the topic that the message goes to")
	}
	if len(topic) > MaxTopic {
		return fmt.Errorf("field Topic is %d bytes long, at most %d are allowed", len(topic), MaxTopic)
	}
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	if i := strings.IndexFunc(topic, func(r rune) bool { return !legal(r) }); i >= 0 || topic == "." || topic == ".." {
		return fmt.Errorf("field Topic %q is not a topic name: use letters, digits, '.', '_' and '-'", topic)
	}
	return nil
}

func checkText(field, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("field %s is %d bytes long, at most %d are allowed: use a digest of it", field, len(s), limit)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("field %s %q holds a NUL byte: encode it, for example as hexadecimal", field, s)
	}
	return nil
}

// partition is where the message is stored, if it is not in the express lane. It
// must stay the same for ever: another value for a key that has rows in the table
// would break its order.
func (m *Message) partition() int {
	h := fnv.New32a()
	if m.Key != "" {
		h.Write([]byte(m.Key)) // never fails
	} else {
		h.Write([]byte(m.ID))
	}
	return int(h.Sum32() % ordinary)
}

func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("outbox: make a message id: %w", err)
	}
	return id.String(), nil
}
