// Package protobuf is a schema.Codec of Protocol Buffers. With a registry it
// registers or looks up the .proto file of the message, with those that it imports,
// and marks bodies with the place of the message's type in its file.
package protobuf

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/schema"
)

// ContentType is that of bodies without a registry's mark.
const ContentType = "application/protobuf"

// Codec writes and reads messages of one type. Safe for concurrent use.
type Codec[T proto.Message] struct {
	message    protoreflect.MessageType
	definition schema.Definition
	indexes    []int
	registry   schema.Registry
}

// New makes a codec of the type of prototype, for example &orderspb.Placed{}. With
// a registry, bodies carry its mark; nil means none. The definition is the
// descriptor of the type's file, in Base64, which registries take as well as text.
//
// A reader takes a body whose type stands at the same place in the writer's file
// as in its own: so new types are added at a file's end. It does not read the
// writer's schema: Protobuf's own rules say which changes it survives.
func New[T proto.Message](prototype T, registry schema.Registry) (*Codec[T], error) {
	m := prototype.ProtoReflect()
	if m.Descriptor().ParentFile() == nil {
		return nil, fmt.Errorf("%w: the message type %s has no file", schema.ErrSchema, m.Descriptor().FullName())
	}
	d, err := definition(m.Descriptor().ParentFile())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", schema.ErrSchema, err)
	}
	return &Codec[T]{message: m.Type(), definition: d, indexes: indexes(m.Descriptor()), registry: registry}, nil
}

// Definition is the schema, for a registry.
func (c *Codec[T]) Definition() schema.Definition { return c.definition }

// wellKnown are the imports that every registry has.
const wellKnown = "google/protobuf/"

func definition(file protoreflect.FileDescriptor) (schema.Definition, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(file))
	if err != nil {
		return schema.Definition{}, err
	}
	d := schema.Definition{Type: schema.Protobuf, Text: base64.StdEncoding.EncodeToString(raw)}
	for i := range file.Imports().Len() {
		imported := file.Imports().Get(i)
		if strings.HasPrefix(imported.Path(), wellKnown) {
			continue
		}
		if imported.IsPlaceholder() {
			return schema.Definition{}, fmt.Errorf("the import %s is not linked in", imported.Path())
		}
		inner, err := definition(imported.FileDescriptor)
		if err != nil {
			return schema.Definition{}, err
		}
		d.References = append(d.References, schema.Reference{Name: imported.Path(), Definition: inner})
	}
	return d, nil
}

// indexes are the places of a type in its file, from the outermost type inwards.
func indexes(d protoreflect.Descriptor) []int {
	var out []int
	for ; ; d = d.Parent() {
		if _, ok := d.(protoreflect.MessageDescriptor); !ok {
			slices.Reverse(out)
			return out
		}
		out = append(out, d.Index())
	}
}

// Serialize implements schema.Serializer. The encoding of one value is the same
// each time, by one version of the library.
func (c *Codec[T]) Serialize(ctx context.Context, topic string, value T) (schema.Encoded, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(value)
	if err != nil {
		return schema.Encoded{}, fmt.Errorf("%w: %w", schema.ErrValue, err)
	}
	return schema.Encode(ctx, c.registry, topic, c.definition, c.indexes, ContentType, body)
}

// Deserialize implements schema.Deserializer.
func (c *Codec[T]) Deserialize(ctx context.Context, m outbox.Message) (value T, err error) {
	marked, err := schema.Read(ctx, c.registry, m, schema.Protobuf)
	if err != nil {
		return value, err
	}
	body := marked.Body
	if c.registry != nil {
		if body, err = c.unindexed(marked); err != nil {
			return value, fmt.Errorf("%w: %w", schema.ErrBody, err)
		}
	}
	message := c.message.New().Interface()
	if err := proto.Unmarshal(body, message); err != nil {
		return value, fmt.Errorf("%w: %w", schema.ErrBody, err)
	}
	value, ok := message.(T)
	if !ok {
		return value, fmt.Errorf("%w: %T is no %T", schema.ErrSchema, message, value)
	}
	return value, nil
}

// unindexed takes the indexes off a body: their number and then each, as zigzag
// varints, or one zero for the first type of a file.
func (c *Codec[T]) unindexed(marked schema.Marked) ([]byte, error) {
	body := marked.Body
	next := func() (int64, bool) {
		v, n := binary.Varint(body)
		body = body[max(n, 0):]
		return v, n > 0
	}
	count, ok := next()
	got := []int{0}
	if ok && count != 0 {
		got = nil
		for range min(count, int64(len(c.indexes))) {
			v, more := next()
			ok = ok && more
			got = append(got, int(v))
		}
	}
	if !ok {
		return nil, errors.New("the indexes of its message type are damaged")
	}
	if count > int64(len(c.indexes)) || !slices.Equal(got, c.indexes) {
		return nil, fmt.Errorf("it is another message type of schema %d, not the one at %v, %s",
			marked.ID, c.indexes, c.message.Descriptor().FullName())
	}
	return body, nil
}
