package cloudevents

import (
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/amends-dev/amends/outbox"
)

// Errors of this package. Test them with errors.Is.
var (
	// ErrInvalid is returned for an event that is not valid; the text names each
	// attribute that is wrong.
	ErrInvalid = errors.New("cloudevents: invalid event")
	// ErrNotEvent is returned by Parse for a message that does not claim to be one.
	ErrNotEvent = errors.New("cloudevents: the message is no CloudEvent: it has neither the header ce_specversion " +
		"nor a content-type of application/cloudevents")
)

// attribute says what is wrong with one.
func attribute(name, format string, args ...any) error {
	return fmt.Errorf("attribute %s "+format, append([]any{name}, args...)...)
}

// Validate joins every mistake in the event, as ErrInvalid. An empty ID is one.
func (e *Event) Validate() error {
	errs := []error{
		required("id", e.ID), required("source", e.Source), required("type", e.Type),
		checkText("id", e.ID), checkText("source", e.Source), checkText("type", e.Type), checkText("subject", e.Subject),
	}
	if _, err := url.Parse(e.Source); err != nil {
		errs = append(errs, attribute("source", "is not a URI reference: %w", err))
	}
	if u, err := url.Parse(e.DataSchema); e.DataSchema != "" && (err != nil || !u.IsAbs()) {
		errs = append(errs, attribute("dataschema", "%q is not an absolute URI", e.DataSchema))
	}
	if e.DataContentType != "" {
		if _, _, err := mime.ParseMediaType(e.DataContentType); err != nil {
			errs = append(errs, attribute("datacontenttype", "%q is not a media type: %w", e.DataContentType, err))
		}
	}
	if y := e.Time.UTC().Year(); !e.Time.IsZero() && (y < 0 || y > 9999) {
		errs = append(errs, attribute("time", "is in the year %d, which RFC 3339 cannot say", y))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		errs = append(errs, checkExtension(name, e.Extensions[name]))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func required(name, value string) error {
	if value == "" {
		return attribute(name, "is missing")
	}
	return nil
}

// core are the attributes that an Event has fields for. data is not an attribute,
// but no extension may have its name.
var core = []string{"id", "source", "specversion", "type", "subject", "time", "datacontenttype", "dataschema", "data"}

func checkExtension(name, value string) error {
	if slices.Contains(core, name) {
		return attribute(name, "is no extension: set the field of Event")
	}
	legal := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !legal(r) }) {
		return fmt.Errorf("extension %q: use lower-case letters and digits for its name", name)
	}
	if len(name)+len(prefix) > outbox.MaxHeaderName {
		return fmt.Errorf("extension %q: its name is too long: use at most 20 characters", name)
	}
	return checkText(name, value)
}

// checkText refuses what the type String excludes: control characters and what is
// no Unicode character.
func checkText(name, value string) error {
	if !utf8.ValidString(value) {
		return attribute(name, "%q is not UTF-8", value)
	}
	for _, r := range value {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe {
			return attribute(name, "holds the character %U, which is not allowed", r)
		}
	}
	return nil
}
