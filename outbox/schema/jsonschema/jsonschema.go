// Package jsonschema is a schema.Codec of JSON bodies that a JSON Schema (draft 4 to
// 2020-12) has to allow: what is written is checked before it is written, what is
// read before it is used.
package jsonschema

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/schema"
)

// ContentType is that of bodies without a registry's mark.
const ContentType = "application/json"

// Codec writes and reads values as encoding/json does. Safe for concurrent use.
type Codec[T any] struct {
	schema     *jsonschema.Schema
	definition schema.Definition
	registry   schema.Registry
}

// New makes a codec of a schema's text. It must not refer to other documents:
// nothing is loaded from files or the network. With a registry, bodies carry its
// mark; nil means none. A reader checks against its own schema, whichever the
// writer had.
func New[T any](text string, registry schema.Registry) (*Codec[T], error) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%w: it is not JSON: %w", schema.ErrSchema, err)
	}
	const name = "amends:///schema.json"
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{}) // of no scheme
	if err := c.AddResource(name, doc); err != nil {
		return nil, fmt.Errorf("%w: %w", schema.ErrSchema, err)
	}
	compiled, err := c.Compile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", schema.ErrSchema, err)
	}
	return &Codec[T]{schema: compiled, registry: registry, definition: schema.Definition{Type: schema.JSON, Text: text}}, nil
}

// Definition is the schema, for a registry.
func (c *Codec[T]) Definition() schema.Definition { return c.definition }

// Serialize implements schema.Serializer.
func (c *Codec[T]) Serialize(ctx context.Context, topic string, value T) (schema.Encoded, error) {
	body, err := json.Marshal(value)
	if err == nil {
		err = c.validate(body)
	}
	if err != nil {
		return schema.Encoded{}, fmt.Errorf("%w: %w", schema.ErrValue, err)
	}
	return schema.Encode(ctx, c.registry, topic, c.definition, nil, ContentType, body)
}

// Deserialize implements schema.Deserializer.
func (c *Codec[T]) Deserialize(ctx context.Context, m outbox.Message) (value T, err error) {
	marked, err := schema.Read(ctx, c.registry, m, schema.JSON)
	if err != nil {
		return value, err
	}
	if err = c.validate(marked.Body); err == nil {
		err = json.Unmarshal(marked.Body, &value)
	}
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: %w", schema.ErrBody, err)
	}
	return value, nil
}

func (c *Codec[T]) validate(body []byte) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return c.schema.Validate(doc)
}
