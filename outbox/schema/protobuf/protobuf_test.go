package protobuf_test

import (
	"encoding/base64"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/schema"
	"github.com/amends-dev/amends/outbox/schema/protobuf"
)

func TestCodec(t *testing.T) {
	c, err := protobuf.New(&wrapperspb.StringValue{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := schema.Message(t.Context(), c, outbox.Message{Topic: "orders"}, wrapperspb.String("a"))
	if err != nil || string(m.Body) != "\x0a\x01a" || m.Headers[schema.ContentType] != "application/protobuf" {
		t.Fatalf("%q, %v", m.Body, err)
	}
	if got, err := c.Deserialize(t.Context(), m); err != nil || got.GetValue() != "a" {
		t.Errorf("%v, %v", got, err)
	}
	for _, body := range []string{"\x0a", "\x0a\x02a", "\xff"} {
		if got, err := c.Deserialize(t.Context(), outbox.Message{Body: []byte(body)}); !errors.Is(err, schema.ErrBody) || got != nil {
			t.Errorf("%q: %v, %v", body, got, err)
		}
	}
	if _, err := c.Serialize(t.Context(), "orders", wrapperspb.String("\xff")); !errors.Is(err, schema.ErrValue) {
		t.Errorf("a wrong value: %v", err)
	}
}

// TestDefinition: the file of a type, with the files that it imports but those that
// every registry has.
func TestDefinition(t *testing.T) {
	files := &protoregistry.Files{}
	build := func(name string, imports ...string) protoreflect.FileDescriptor {
		t.Helper()
		message := "M" + name[:1]
		f, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{Name: &name, Dependency: imports,
			MessageType: []*descriptorpb.DescriptorProto{{Name: &message}}}, files)
		if err != nil {
			t.Fatal(err)
		}
		if err := files.RegisterFile(f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	if err := files.RegisterFile(wrapperspb.File_google_protobuf_wrappers_proto); err != nil {
		t.Fatal(err)
	}
	build("a.proto")
	b := build("b.proto", "a.proto", "google/protobuf/wrappers.proto")
	c, err := protobuf.New(dynamicpb.NewMessage(b.Messages().Get(0)), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := c.Definition()
	if len(d.References) != 1 || d.References[0].Name != "a.proto" || d.Type != schema.Protobuf {
		t.Errorf("definition %+v", d)
	}
	raw, err := base64.StdEncoding.DecodeString(d.Text)
	var file descriptorpb.FileDescriptorProto
	if err != nil || proto.Unmarshal(raw, &file) != nil || file.GetName() != "b.proto" {
		t.Errorf("text %q, %v", d.Text, err)
	}
}
