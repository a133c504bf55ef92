package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"

	"github.com/amends-dev/amends/outbox"
)

// ContentType is the header with the media type of a message's body.
const ContentType = "content-type"

// Errors of this package and its adapters. Test them with errors.Is.
var (
	// ErrValue is returned by a Serializer for a value that its schema does not
	// allow. No retry mends it.
	ErrValue = errors.New("schema: the value does not fit the schema")
	// ErrBody is returned by a Deserializer for a body that is not of its schema.
	// No retry mends it.
	ErrBody = errors.New("schema: the body does not fit the schema")
	// ErrSchema is returned for a schema that is none.
	ErrSchema = errors.New("schema: illegal schema")
	// ErrAway is returned when a registry does not answer: nothing is wrong with
	// the message, try again.
	ErrAway = errors.New("schema: the registry does not answer, try again")
	// ErrRefused is returned when a registry refuses a schema, mostly because it is
	// not compatible with an earlier one. The registry's whole reason is in the text.
	ErrRefused = errors.New("schema: the registry refuses the schema")
	// ErrNotRegistered is returned by a Serializer whose schema the registry does
	// not have.
	ErrNotRegistered = errors.New("schema: the registry does not have the schema")
	// ErrUnknownID is returned by a Deserializer when the registry does not know the
	// id that a body begins with. A registry's follower may learn it a little later.
	ErrUnknownID = errors.New("schema: the registry does not know the id of the body's schema")
)

// Encoded is a body and what says what it is.
type Encoded struct {
	Body []byte
	// Headers to be set on the message; may be nil.
	Headers map[string]string
}

// Serializer makes the bodies of messages.
type Serializer[T any] interface {
	// Serialize makes the body of a message of topic. Safe for concurrent use.
	Serialize(ctx context.Context, topic string, value T) (Encoded, error)
}

// Deserializer reads the bodies of messages.
type Deserializer[T any] interface {
	// Deserialize reads the body of m. Safe for concurrent use.
	Deserialize(ctx context.Context, m outbox.Message) (T, error)
}

// Codec is both.
type Codec[T any] interface {
	Serializer[T]
	Deserializer[T]
}

// Message is m with value as its body, and with the headers that belong to it.
func Message[T any](ctx context.Context, s Serializer[T], m outbox.Message, value T) (outbox.Message, error) {
	encoded, err := s.Serialize(ctx, m.Topic, value)
	if err != nil {
		return outbox.Message{}, err
	}
	m.Body = encoded.Body
	if len(encoded.Headers) > 0 {
		headers := maps.Clone(m.Headers) // the map is the caller's
		if headers == nil {
			headers = map[string]string{}
		}
		maps.Copy(headers, encoded.Headers)
		m.Headers = headers
	}
	return m, nil
}

// Handler adapts fn to an inbox.Consumer. A message whose body does not fit the
// schema becomes a dead letter at once; where the registry is the trouble it is
// tried again, as often as after any other failure.
func Handler[T any](d Deserializer[T], fn func(ctx context.Context, tx *sql.Tx, m outbox.Message, value T) error,
) func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
	return func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		value, err := d.Deserialize(ctx, m)
		if errors.Is(err, ErrBody) {
			return outbox.Poison(err)
		}
		if err != nil {
			return err
		}
		return fn(ctx, tx, m, value)
	}
}

// Type is the kind of a schema.
type Type string

// The types, as registries name them.
const (
	Avro     Type = "AVRO"
	Protobuf Type = "PROTOBUF"
	JSON     Type = "JSON"
)

// Definition is a schema as a registry keeps it.
type Definition struct {
	Type Type
	Text string
	// References are the schemas that Text refers to by name.
	References []Reference
}

// Reference is a schema that another one refers to.
type Reference struct {
	Name       string
	Definition Definition
}

// Registry numbers schemas and marks bodies with the number of theirs. Safe for
// concurrent use.
type Registry interface {
	// Mark is body behind the mark of the schema of a topic's messages. indexes
	// say which type of a Protobuf schema it is, nil for others. The error is
	// ErrAway, ErrRefused or ErrNotRegistered.
	Mark(ctx context.Context, topic string, d Definition, indexes []int, body []byte) ([]byte, error)
	// Read takes the mark off a body and answers the schema that it was written
	// with, and its id. The error is ErrAway, ErrUnknownID, or ErrBody for a body
	// without a mark.
	Read(ctx context.Context, body []byte) (Marked, error)
}

// Marked is what a Registry reads.
type Marked struct {
	ID         int
	Definition Definition
	Body       []byte // behind the mark; of Protobuf, with the indexes in front
}

// Read takes the mark off the body of m with a registry, and checks that its
// schema is of a type. With a nil registry there is no mark.
func Read(ctx context.Context, r Registry, m outbox.Message, want Type) (Marked, error) {
	if r == nil {
		return Marked{Body: m.Body}, nil
	}
	marked, err := r.Read(ctx, m.Body)
	if err != nil {
		return Marked{}, err
	}
	if marked.Definition.Type != want {
		return Marked{}, fmt.Errorf("%w: it was written with schema %d, of type %s and not %s",
			ErrBody, marked.ID, marked.Definition.Type, want)
	}
	return marked, nil
}

// Encode is a body for a topic: with a registry behind the mark of its schema, and
// like all such bodies without a content type; with a nil registry as it is.
func Encode(ctx context.Context, r Registry, topic string, d Definition, indexes []int, contentType string, body []byte) (Encoded, error) {
	if r == nil {
		return Encoded{Body: body, Headers: map[string]string{ContentType: contentType}}, nil
	}
	body, err := r.Mark(ctx, topic, d, indexes, body)
	return Encoded{Body: body}, err
}
