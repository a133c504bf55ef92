package debezium

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"

	"github.com/amends-dev/amends/outbox"
)

// HeaderID is the header with the event's id.
const HeaderID = "id"

// Defaults of Config.
const (
	DefaultTopic      = "outbox.event." + routedByValue
	DefaultTypeHeader = "eventType"
)

const routedByValue = "${routedByValue}"

// Errors of this package. Test them with errors.Is.
var (
	// ErrEvent is returned for an event that cannot be a message; it names each
	// field and the fix.
	ErrEvent = errors.New("debezium: illegal event")
	// ErrMessage is returned for a message that the router, configured as Config
	// says, does not write.
	ErrMessage = errors.New("debezium: the message is not the router's")
	// ErrConfig is returned by New for a configuration with mistakes.
	ErrConfig = errors.New("debezium: illegal configuration")
)

// Config says how the router and its connector are configured. The zero value,
// and nil, are the defaults.
type Config struct {
	// Topic is route.topic.replacement: where ${routedByValue} stands for the
	// aggregate type. Default: DefaultTopic.
	Topic string
	// TypeHeader is the header with the event's type, as in
	// table.fields.additional.placement=type:header:eventType. Default:
	// DefaultTypeHeader; "-" if there is none.
	TypeHeader string
	// Key, Value and Header are what key.converter, value.converter and
	// header.converter write. Default: Plain.
	Key, Value, Header Format
}

// Router turns events into messages and back. It is immutable.
type Router struct {
	cfg            Config
	before, behind string // of the aggregate type in a topic
}

// New makes a router. Mistakes in cfg are returned all at once, as ErrConfig.
func New(cfg *Config) (*Router, error) {
	r := &Router{}
	if cfg != nil {
		r.cfg = *cfg
	}
	r.cfg.Topic = cmp.Or(r.cfg.Topic, DefaultTopic)
	r.cfg.TypeHeader = cmp.Or(r.cfg.TypeHeader, DefaultTypeHeader)
	var errs []error
	var found bool
	r.before, r.behind, found = strings.Cut(r.cfg.Topic, routedByValue)
	if !found || strings.Contains(r.behind, routedByValue) {
		errs = append(errs, fmt.Errorf("field Topic is %q: let it hold %s once", r.cfg.Topic, routedByValue))
	}
	if r.cfg.TypeHeader == HeaderID {
		errs = append(errs, errors.New("field TypeHeader is id, which is the header of the event's id: use another"))
	}
	for name, f := range map[string]Format{"Key": r.cfg.Key, "Value": r.cfg.Value, "Header": r.cfg.Header} {
		if f > JSONSchema {
			errs = append(errs, fmt.Errorf("field %s is %d: use Plain, JSON or JSONSchema", name, f))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return r, nil
}

// Event is a row of the router's outbox table.
type Event struct {
	// ID is the column id. It becomes the message's ID and the header id. Empty
	// means a UUIDv7.
	ID string
	// AggregateType is the column aggregatetype, which names the topic. Required.
	AggregateType string
	// AggregateID is the column aggregateid, the key: events of one are in order.
	AggregateID string
	// Type is the column type. It is lost where Config.TypeHeader is "-".
	Type string
	// Payload is the column payload: the bytes that the service wrote.
	Payload []byte
	// Headers are the other headers: columns that table.fields.additional.placement
	// puts there, and traceparent.
	Headers map[string]string
}

// Message is the event as the router would have written it, to be given to
// Outbox.Write. Mistakes are returned all at once, as ErrEvent.
func (r *Router) Message(e Event) (outbox.Message, error) {
	if e.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return outbox.Message{}, fmt.Errorf("debezium: make an id: %w", err)
		}
		e.ID = id.String()
	}
	if err := r.check(&e); err != nil {
		return outbox.Message{}, err
	}
	m := outbox.Message{
		ID: e.ID, Topic: r.before + e.AggregateType + r.behind, Key: r.cfg.Key.encode(e.AggregateID), Body: e.Payload,
		Headers: make(map[string]string, len(e.Headers)+2),
	}
	if r.cfg.Value != Plain {
		m.Body = []byte(r.cfg.Value.encode(string(e.Payload)))
	}
	for name, value := range e.Headers {
		m.Headers[name] = r.header(name, value)
	}
	m.Headers[HeaderID] = r.cfg.Header.encode(e.ID)
	if r.cfg.TypeHeader != "-" {
		m.Headers[r.cfg.TypeHeader] = r.cfg.Header.encode(e.Type)
	}
	return m, nil
}

// header is the value of one of Event.Headers.
func (r *Router) header(name, value string) string {
	if isTrace(name) {
		return value
	}
	return r.cfg.Header.encode(value)
}

// isTrace tells the headers that consumers take a trace from, who know of no
// converter: they are written as they are. The router's own go through it, if no
// producer's instrumentation replaces them.
func isTrace(name string) bool { return name == "traceparent" || name == "tracestate" }

func (r *Router) check(e *Event) error {
	var errs []error
	if e.AggregateType == "" {
		errs = append(errs, errors.New("field AggregateType is empty: name the kind of aggregate, it becomes part of the topic"))
	}
	for _, name := range []string{HeaderID, r.cfg.TypeHeader} {
		if _, ok := e.Headers[name]; ok {
			errs = append(errs, fmt.Errorf("field Headers holds %q: set the field of Event", name))
		}
	}
	for _, f := range []struct {
		name, text string
		format     Format
	}{
		{"ID", e.ID, r.cfg.Header}, {"Type", e.Type, r.cfg.Header},
		{"AggregateID", e.AggregateID, r.cfg.Key}, {"Payload", string(e.Payload), r.cfg.Value},
	} {
		if err := f.format.check(f.text); err != nil {
			errs = append(errs, fmt.Errorf("field %s: %w", f.name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrEvent, err)
	}
	return nil
}

// Parse reads a message that the router wrote, or Message. The error is
// ErrMessage.
func (r *Router) Parse(m outbox.Message) (Event, error) {
	var errs []error
	text := func(what string, f Format, s string) string {
		plain, err := f.decode(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
		return plain
	}
	id, ok := m.Headers[HeaderID]
	if !ok {
		errs = append(errs, errors.New("it has no header id"))
	}
	e := Event{ID: text("header id", r.cfg.Header, id), AggregateID: text("the key", r.cfg.Key, m.Key), Payload: m.Body}
	if ok && e.ID == "" {
		errs = append(errs, errors.New("its header id is empty"))
	}
	if len(m.Body) > 0 && r.cfg.Value != Plain { // an empty one is a tombstone, which no converter writes
		e.Payload = []byte(text("the body", r.cfg.Value, string(m.Body)))
	}
	e.AggregateType, ok = strings.CutPrefix(m.Topic, r.before)
	if ok {
		e.AggregateType, ok = strings.CutSuffix(e.AggregateType, r.behind)
	}
	if !ok || e.AggregateType == "" {
		errs = append(errs, fmt.Errorf("its topic %q is not of the form %s", m.Topic, r.cfg.Topic))
	}
	for name, value := range m.Headers {
		switch {
		case name == HeaderID || ours(name):
		case name == r.cfg.TypeHeader:
			e.Type = text("header "+name, r.cfg.Header, value)
		default:
			if e.Headers == nil {
				e.Headers = map[string]string{}
			}
			if plain, err := r.cfg.Header.decode(value); isTrace(name) && err == nil {
				value = plain
			} else if !isTrace(name) {
				value = text("header "+name, r.cfg.Header, value)
			}
			e.Headers[name] = value
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return e, nil
}

// ours tells whether Amends adds the header to each message.
func ours(name string) bool {
	switch name {
	case outbox.HeaderID, "ce_id", "ce_source", "ce_specversion", "ce_time", "ce_type":
		return true
	}
	return false
}

// SpanContext is the trace of ctx as the router's column tracingspancontext takes
// it, a text of Java's Properties, for a service that still writes to its table;
// "" when there is none.
func SpanContext(ctx context.Context) string {
	fields := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, fields)
	var out strings.Builder
	for _, name := range []string{"traceparent", "tracestate"} {
		if value, ok := fields[name]; ok {
			out.WriteString(name + "=" + value + "\n")
		}
	}
	return out.String()
}
