// Package avro is a schema.Codec of Avro's binary encoding. With a registry a body
// is read with the schema that it was written with, resolved to the reader's own by
// Avro's rules: fields that came later get their defaults, those that went are
// skipped. Without one, writer and reader must have the same schema.
package avro

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/avro"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/schema"
)

// ContentType is that of bodies without a registry's mark.
const ContentType = "application/avro"

// Codec writes and reads values as github.com/twmb/avro does: structs with avro
// tags, or maps. Safe for concurrent use.
type Codec[T any] struct {
	own        *avro.Schema
	definition schema.Definition
	registry   schema.Registry

	mu      sync.Mutex
	writers map[int]*avro.Schema // by id, resolved to own
}

// New makes a codec of a schema's text. With a registry, bodies carry its mark;
// nil means none. Schemas with references are not supported: put the types that
// they refer to into the text.
func New[T any](text string, registry schema.Registry) (*Codec[T], error) {
	own, err := avro.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", schema.ErrSchema, err)
	}
	return &Codec[T]{
		own: own, registry: registry, definition: schema.Definition{Type: schema.Avro, Text: text}, writers: map[int]*avro.Schema{},
	}, nil
}

// Definition is the schema, for a registry.
func (c *Codec[T]) Definition() schema.Definition { return c.definition }

// Serialize implements schema.Serializer.
func (c *Codec[T]) Serialize(ctx context.Context, topic string, value T) (schema.Encoded, error) {
	body, err := c.own.Encode(&value)
	if err != nil {
		return schema.Encoded{}, fmt.Errorf("%w: %w", schema.ErrValue, err)
	}
	return schema.Encode(ctx, c.registry, topic, c.definition, nil, ContentType, body)
}

// Deserialize implements schema.Deserializer.
func (c *Codec[T]) Deserialize(ctx context.Context, m outbox.Message) (value T, err error) {
	marked, err := schema.Read(ctx, c.registry, m, schema.Avro)
	if err != nil {
		return value, err
	}
	writer := c.own
	if c.registry != nil {
		if writer, err = c.writer(marked); err != nil {
			return value, fmt.Errorf("%w: it was written with schema %d: %w", schema.ErrBody, marked.ID, err)
		}
	}
	rest, err := writer.Decode(marked.Body, &value)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes are left over", len(rest))
	}
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: %w", schema.ErrBody, err)
	}
	return value, nil
}

// writer is the schema that a body was written with, resolved to the codec's own.
func (c *Codec[T]) writer(marked schema.Marked) (*avro.Schema, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.writers[marked.ID]; ok {
		return s, nil
	}
	if len(marked.Definition.References) > 0 {
		return nil, errors.New("it has references, which are not supported")
	}
	writer, err := avro.Parse(marked.Definition.Text)
	if err != nil {
		return nil, err
	}
	s, err := avro.Resolve(writer, c.own)
	if err != nil {
		return nil, err
	}
	c.writers[marked.ID] = s
	return s, nil
}
