package cloudevents

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"time"

	"go.opentelemetry.io/otel/propagation"
)

// SpecVersion is the version of CloudEvents that is written and read.
const SpecVersion = "1.0"

// Event is a CloudEvent.
type Event struct {
	// ID, together with Source, names the event. It becomes the message's ID, by
	// which inboxes know a message again, so give different events different ids
	// whatever their source; where that cannot be, set the message's ID to
	// UniqueID. Empty means a UUIDv7. At most outbox.MaxID bytes
	// are written.
	ID string
	// Source is the context in which it happened: a URI reference. Required.
	Source string
	// Type says what happened, for example com.example.order.placed. Required.
	Type string
	// Subject is what it happened to, within the source. Optional.
	Subject string
	// Time is when it happened. Zero means that it is not said; Kafka then says
	// when the message was written.
	Time time.Time
	// DataContentType is the media type of Data, for example application/json.
	// Optional.
	DataContentType string
	// DataSchema is the absolute URI of the schema of Data. Optional.
	DataSchema string
	// Extensions are further attributes, by their names: lower-case letters and
	// digits. Values of other types than String have the specification's canonical
	// text: true, 42, Base64, RFC 3339. Both modes write all of them as strings.
	Extensions map[string]string
	// Data is the payload, any bytes; nil and empty are both none.
	Data []byte
}

// Names of extensions that this package gives a meaning.
const (
	// PartitionKey is the extension that becomes the message's key.
	PartitionKey = "partitionkey"
	// TraceParent and TraceState are the extension for distributed tracing.
	TraceParent = "traceparent"
	TraceState  = "tracestate"
)

// Key is what orders the event: the extension partitionkey, or else the subject.
// Binary and Structured make it the message's key, which the caller may replace.
func (e *Event) Key() string {
	if key := e.Extensions[PartitionKey]; key != "" {
		return key
	}
	return e.Subject
}

// WithTrace gives the event the trace of ctx, in the extensions traceparent and
// tracestate, unless it has one or there is none. Without it a message still
// carries the trace of whoever writes it, in the header traceparent.
func (e Event) WithTrace(ctx context.Context) Event {
	fields := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, fields)
	if _, own := e.Extensions[TraceParent]; own || len(fields) == 0 {
		return e
	}
	extensions := maps.Clone(e.Extensions) // the map is the caller's
	if extensions == nil {
		extensions = map[string]string{}
	}
	maps.Copy(extensions, fields)
	e.Extensions = extensions
	return e
}

// UniqueID names an event among those of all sources, by a digest of Source and
// ID: 64 hexadecimal digits.
func (e *Event) UniqueID() string {
	// A source holds no NUL, so this is one-to-one.
	sum := sha256.Sum256([]byte(e.Source + "\x00" + e.ID))
	return hex.EncodeToString(sum[:])
}
