package sdk

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/amends-dev/amends/outbox"
)

// notBeforeHeader is where an outbox keeps NotBefore.
const notBeforeHeader = "amends-not-before"

var topicName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// checkMessage joins what the courier's outbox, or the way to it as JSON, would
// not take: the sender is the last who can do something about it.
func checkMessage(m *outbox.Message) error {
	errs := []error{
		checkContent("Topic", m.Topic, outbox.MaxTopic), checkContent("Key", m.Key, outbox.MaxKey),
		checkContent("ID", m.ID, outbox.MaxID), checkContent("IdempotencyKey", m.IdempotencyKey, outbox.MaxIdempotencyKey),
	}
	if !topicName.MatchString(m.Topic) || m.Topic == "." || m.Topic == ".." {
		errs = append(errs, fmt.Errorf("field Topic %q is not a topic name: use letters, digits, '.', '_' and '-'", m.Topic))
	}
	if len(m.Headers) > outbox.MaxHeaders {
		errs = append(errs, fmt.Errorf("field Headers has %d entries, at most %d are allowed", len(m.Headers), outbox.MaxHeaders))
	}
	for name, value := range m.Headers {
		if name == "" {
			errs = append(errs, errors.New("field Headers has an entry without a name: name it or leave it out"))
		}
		if name == notBeforeHeader {
			errs = append(errs, fmt.Errorf("field Headers has an entry %q, which is the outbox's own: use field NotBefore", name))
		}
		errs = append(errs, checkContent("Headers name", name, outbox.MaxHeaderName))
		if !utf8.ValidString(value) {
			errs = append(errs, fmt.Errorf("field Headers: the value of %q is not valid UTF-8: encode it, for example as base64", name))
		}
	}
	if at := m.NotBefore.UTC(); !at.IsZero() && (at.UnixMicro() <= 0 || at.Year() > 9998) {
		errs = append(errs, fmt.Errorf("field NotBefore is %v: use a time between the years 1970 and 9998", m.NotBefore))
	}
	return errors.Join(errs...)
}

func checkContent(field, s string, limit int) error {
	switch {
	case len(s) > limit:
		return fmt.Errorf("field %s is %d bytes long, at most %d are allowed: use a digest of it", field, len(s), limit)
	case strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s):
		return fmt.Errorf("field %s %q holds a NUL byte or is not valid UTF-8: encode it, for example as hexadecimal", field, s)
	}
	return nil
}
