package engine

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// fixtureMessage is a message as a version has sent it, with all its fields set,
// and what that means.
type fixtureMessage struct {
	Bytes   []byte
	Meaning json.RawMessage // protojson
}

// TestCompatWire: messages of every version mean today what they meant then, and
// those of the present version are all there is.
func TestCompatWire(t *testing.T) {
	today := wireMessages(t)
	if *writeFixtures {
		writeFixture(t, "wire.json", today)
	}
	for _, path := range fixtures(t, "wire.json") {
		t.Run(path, func(t *testing.T) {
			var then map[string]fixtureMessage
			present := readFixture(t, path, &then)
			for name, m := range then {
				checkMeaning(t, name, m)
				if now, ok := today[name]; present && ok && !bytes.Equal(now.Bytes, m.Bytes) {
					t.Errorf("%s is sent in another way now: raise compatVersion and write new fixtures", name)
				}
			}
			for name := range today {
				if _, ok := then[name]; present && !ok {
					t.Errorf("%s is new: raise compatVersion and write new fixtures", name)
				}
			}
		})
	}
}

// checkMeaning reads a message of an older version.
func checkMeaning(t *testing.T, name string, m fixtureMessage) {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		t.Errorf("%s is gone: an older coordinator or participant still sends it", name)
		return
	}
	sent, meant := kind.New().Interface(), kind.New().Interface()
	if err := proto.Unmarshal(m.Bytes, sent); err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if err := protojson.Unmarshal(m.Meaning, meant); err != nil {
		t.Errorf("%s: a field was renamed or is gone: %v", name, err)
		return
	}
	if unknown := sent.ProtoReflect().GetUnknown(); len(unknown) > 0 || !proto.Equal(sent, meant) {
		t.Errorf("%s means something else now (%d bytes are not understood):\n%v\n%v", name, len(unknown), sent, meant)
	}
}

// wireMessages are all messages of the API, with every field set.
func wireMessages(t *testing.T) map[string]fixtureMessage {
	t.Helper()
	all := map[string]fixtureMessage{}
	add := func(d protoreflect.MessageDescriptor) {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
		if err != nil {
			t.Fatal(err)
		}
		m := kind.New()
		fillMessage(m, 0)
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
		if err != nil {
			t.Fatal(err)
		}
		text, err := protojson.Marshal(m.Interface())
		if err != nil {
			t.Fatalf("%s: %v", d.FullName(), err)
		}
		all[string(d.FullName())] = fixtureMessage{Bytes: data, Meaning: text}
	}
	addFile := func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			add(f.Messages().Get(i))
		}
		return true
	}
	protoregistry.GlobalFiles.RangeFilesByPackage(amendsv1.File_amends_v1_transaction_proto.Package(), addFile)
	return all
}

// fillMessage sets every field of m to something that tells it from others, of a oneof
// the last. Messages within messages are filled three deep.
func fillMessage(m protoreflect.Message, depth int) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		switch {
		case f.Message() != nil && depth == 3:
		case f.IsMap():
			v := m.Mutable(f).Map()
			v.Set(fieldValue(v.NewValue, f.MapKey(), depth).MapKey(), fieldValue(v.NewValue, f.MapValue(), depth))
		case f.IsList():
			v := m.Mutable(f).List()
			v.Append(fieldValue(v.NewElement, f, depth))
		default:
			m.Set(f, fieldValue(func() protoreflect.Value { return m.NewField(f) }, f, depth))
		}
	}
}

func fieldValue(empty func() protoreflect.Value, f protoreflect.FieldDescriptor, depth int) protoreflect.Value {
	n := int32(f.Number())
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(n)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(n) / 2)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) / 2)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(string(f.Name()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(f.Name()))
	}
	v := empty()
	if m, ok := v.Interface().(protoreflect.Message); ok && !strings.HasSuffix(string(m.Descriptor().FullName()), "FieldMask") {
		fillMessage(m, depth+1)
	}
	return v
}

// TestCompatShape: the JSON that is stored has the fields that the fixtures of the
// present version know, also those that they leave empty.
func TestCompatShape(t *testing.T) {
	now := map[string]string{}
	for _, v := range []any{
		saga.Definition{}, saga.StepState{}, txn.Reason{}, tcc.Definition{}, tcc.BranchState{}, tcc.Checking{},
		own{}, detail{}, Bulk{}, encodedBulk{}, store.Record{}, store.Event{},
	} {
		shape(now, "", reflect.TypeOf(v))
	}
	if *writeFixtures {
		writeFixture(t, "shape.json", now)
	}
	for _, path := range fixtures(t, "shape.json") {
		var then map[string]string
		if !readFixture(t, path, &then) {
			continue
		}
		for field, kind := range now {
			if then[field] != kind {
				t.Errorf("%s is new, or of another kind (%q, was %q): raise compatVersion and write new fixtures", field, kind, then[field])
			}
		}
		for field := range then {
			if now[field] == "" {
				t.Errorf("%s is gone: what has it in store can still be there", field)
			}
		}
	}
}

// shape notes the fields of a type and of those within, as JSON names them.
func shape(all map[string]string, in string, kind reflect.Type) {
	for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice}, kind.Kind()) {
		kind = kind.Elem()
	}
	if kind.Kind() != reflect.Struct || kind.PkgPath() == "time" {
		return
	}
	if in == "" {
		in = kind.String()
	}
	for f := range kind.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
			continue
		case name == "" && f.Anonymous:
			shape(all, in, f.Type)
			continue
		case name == "":
			name = f.Name
		}
		all[in+"."+name] = f.Type.String()
		shape(all, in+"."+name, f.Type)
	}
}
