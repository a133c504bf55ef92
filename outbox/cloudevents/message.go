package cloudevents

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/amends-dev/amends/outbox"
)

// ContentType is the header with the media type of a message's body.
const ContentType = "content-type"

const (
	prefix     = "ce_"                     // of the headers with attributes
	structured = "application/cloudevents" // begins the content type of structured mode
	jsonFormat = structured + "+json"
)

// Binary turns an event into a message of topic: attributes in headers, data in
// the body as it is. The message's ID is the event's, its Key is Event.Key.
// Mistakes are returned all at once, as ErrInvalid.
func Binary(e Event, topic string) (outbox.Message, error) {
	m, err := e.envelope(topic)
	if err != nil {
		return outbox.Message{}, err
	}
	if isStructured(e.DataContentType) {
		return outbox.Message{}, fmt.Errorf("%w: %w", ErrInvalid,
			attribute("datacontenttype", "is %q, which would be read as structured mode: use that", e.DataContentType))
	}
	if e.DataContentType != "" {
		m.Headers[ContentType] = e.DataContentType
	}
	m.Body = e.Data
	return m, nil
}

// Structured turns an event into a message of topic whose body is the whole event
// as JSON. Data of a JSON content type, or without one, is a JSON value there
// (white space around its parts may change), other data is Base64. The headers
// have the attributes too, for those who route by them; Parse reads the body. For
// the rest see Binary.
func Structured(e Event, topic string) (outbox.Message, error) {
	m, err := e.envelope(topic)
	if err != nil {
		return outbox.Message{}, err
	}
	e.ID = m.ID
	if m.Body, err = e.encode(); err != nil {
		return outbox.Message{}, err
	}
	m.Headers[ContentType] = jsonFormat + "; charset=UTF-8"
	return m, nil
}

// envelope is the message without its body and content type.
func (e Event) envelope(topic string) (outbox.Message, error) {
	if e.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return outbox.Message{}, fmt.Errorf("cloudevents: make an id: %w", err)
		}
		e.ID = id.String()
	}
	err := e.Validate()
	if len(e.ID) > outbox.MaxID {
		err = errors.Join(err, fmt.Errorf("%w: %w", ErrInvalid,
			attribute("id", "is %d bytes long, at most %d are allowed: use a digest of it", len(e.ID), outbox.MaxID)))
	}
	if err != nil {
		return outbox.Message{}, err
	}
	m := outbox.Message{ID: e.ID, Topic: topic, Key: e.Key(), Headers: map[string]string{}}
	for name, value := range e.attributes() {
		m.Headers[prefix+name] = value
	}
	for _, name := range []string{TraceParent, TraceState} { // the consumer's span continues the event's trace
		if value, ok := e.Extensions[name]; ok {
			m.Headers[name] = value
		}
	}
	return m, nil
}

// attributes are those that are set, less datacontenttype.
func (e *Event) attributes() map[string]string {
	out := map[string]string{"specversion": SpecVersion}
	maps.Copy(out, e.Extensions)
	for name, value := range map[string]string{
		"id": e.ID, "source": e.Source, "type": e.Type, "subject": e.Subject, "dataschema": e.DataSchema,
	} {
		if value != "" {
			out[name] = value
		}
	}
	if !e.Time.IsZero() {
		out["time"] = e.Time.UTC().Format(time.RFC3339Nano)
	}
	return out
}

// Parse reads the event of a message, in whichever mode it is. The error is
// ErrNotEvent or ErrInvalid.
func Parse(m outbox.Message) (Event, error) {
	var e Event
	var err error
	contentType := m.Headers[ContentType]
	if isStructured(contentType) {
		e, err = decode(contentType, m.Body)
	} else {
		e, err = fromHeaders(m.Headers)
		e.DataContentType = contentType
		if len(m.Body) > 0 {
			e.Data = m.Body
		}
	}
	if err != nil {
		return Event{}, err
	}
	return e, e.Validate()
}

// isStructured is the rule by which the modes are told apart.
func isStructured(contentType string) bool {
	return len(contentType) >= len(structured) && strings.EqualFold(contentType[:len(structured)], structured)
}

func fromHeaders(headers map[string]string) (Event, error) {
	if _, ok := headers[prefix+"specversion"]; !ok {
		return Event{}, ErrNotEvent
	}
	var e Event
	for header, value := range headers {
		name, ok := strings.CutPrefix(header, prefix)
		if !ok {
			continue
		}
		if name == "datacontenttype" {
			return Event{}, fmt.Errorf("%w: %w", ErrInvalid, attribute(name, "is a header of its own: it belongs into %s", ContentType))
		}
		if err := e.set(name, value); err != nil {
			return Event{}, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return e, nil
}

// set sets an attribute from its text.
func (e *Event) set(name, value string) error {
	switch name {
	case "specversion":
		if value != SpecVersion {
			return attribute(name, "is %q: only %s is known", value, SpecVersion)
		}
	case "id":
		e.ID = value
	case "source":
		e.Source = value
	case "type":
		e.Type = value
	case "subject":
		e.Subject = value
	case "dataschema":
		e.DataSchema = value
	case "datacontenttype":
		e.DataContentType = value
	case "time":
		t, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return attribute(name, "is not a time by RFC 3339: %w", err)
		}
		e.Time = t
	default:
		if e.Extensions == nil {
			e.Extensions = map[string]string{}
		}
		e.Extensions[name] = value
	}
	return nil
}
