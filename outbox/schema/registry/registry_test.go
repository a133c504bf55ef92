package registry_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/schema"
	"github.com/amends-dev/amends/outbox/schema/avro"
	"github.com/amends-dev/amends/outbox/schema/jsonschema"
	"github.com/amends-dev/amends/outbox/schema/protobuf"
	"github.com/amends-dev/amends/outbox/schema/registry"
)

type order struct {
	ID    string `avro:"id"    json:"id"`
	Cents int    `avro:"cents" json:"cents"`
}

const (
	avroOrder = `{"type":"record","name":"Order","fields":[{"name":"id","type":"string"},{"name":"cents","type":"int"}]}`
	jsonOrder = `{"type":"object","required":["id","cents"],"properties":{"id":{"type":"string"},"cents":{"type":"integer","minimum":0}}}`
)

// fake is a registry in this process, and how often it was asked. No real registry
// runs in these tests.
type fake struct {
	*srfake.Registry

	asked atomic.Int64
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{Registry: srfake.New()}
	t.Cleanup(f.Close)
	f.Intercept(func(http.ResponseWriter, *http.Request) bool { f.asked.Add(1); return false })
	return f
}

func (f *fake) registry(t *testing.T, cfg *registry.Config) *registry.Registry {
	t.Helper()
	client, err := sr.NewClient(sr.URLs(f.URL()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.New(client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func avroCodec(t *testing.T, r schema.Registry, text string) *avro.Codec[order] {
	t.Helper()
	c, err := avro.New[order](text, r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWireFormat holds the bytes against Confluent's documentation, and reads them
// with another process's memory: none.
func TestWireFormat(t *testing.T) {
	f := newFake(t)
	r := f.registry(t, &registry.Config{Register: true})
	json, err := jsonschema.New[order](jsonOrder, r)
	if err != nil {
		t.Fatal(err)
	}
	// DescriptorProto is the third type of its file, ReservedRange the second within it.
	nested, err := protobuf.New(&descriptorpb.DescriptorProto_ReservedRange{}, r)
	if err != nil {
		t.Fatal(err)
	}
	first, err := protobuf.New(&wrapperspb.DoubleValue{}, r)
	if err != nil {
		t.Fatal(err)
	}
	value := order{ID: "a", Cents: 5}
	check(t, f, avroCodec(t, r, avroOrder), value, "\x00\x00\x00\x00\x01"+"\x02a\x0a")
	check(t, f, json, value, "\x00\x00\x00\x00\x02"+`{"id":"a","cents":5}`)
	check(t, f, nested, &descriptorpb.DescriptorProto_ReservedRange{Start: proto.Int32(1)}, "\x00\x00\x00\x00\x03"+"\x04\x04\x02"+"\x08\x01")
	check(t, f, first, wrapperspb.Double(0), "\x00\x00\x00\x00\x04"+"\x00")
}

func check[T any](t *testing.T, f *fake, c schema.Codec[T], value T, want string) {
	t.Helper()
	topic := reflect.TypeOf(c).String()
	m, err := schema.Message(t.Context(), c, outbox.Message{Topic: "t" + strings.Map(letters, topic), Headers: map[string]string{"a": "b"}}, value)
	if err != nil {
		t.Fatalf("%s: %v", topic, err)
	}
	if string(m.Body) != want || len(m.Headers) != 1 {
		t.Errorf("%s: body %q, want %q; headers %v", topic, m.Body, want, m.Headers)
	}
	asked := f.asked.Load()
	got, err := c.Deserialize(t.Context(), m)
	if err != nil || !equal(got, value) {
		t.Errorf("%s: read %v, %v", topic, got, err)
	}
	if n := f.asked.Load() - asked; n != 0 {
		t.Errorf("%s: asked %d times for a schema that it had written with", topic, n)
	}
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

func equal(a, b any) bool {
	if m, ok := a.(proto.Message); ok {
		return proto.Equal(m, b.(proto.Message))
	}
	return reflect.DeepEqual(a, b)
}

// TestOtherMessageTypes: a Protobuf body of another type of the file is refused.
func TestOtherMessageTypes(t *testing.T) {
	f := newFake(t)
	r := f.registry(t, &registry.Config{Register: true})
	c, err := protobuf.New(&descriptorpb.DescriptorProto_ReservedRange{}, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Prepare(t.Context(), "t", c.Definition()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"\x00": "another message type", "\x02\x04": "another message type", "\x04\x04\x04": "another message type",
		"\x04\x04\x02": "", "\x06\x04\x02\x00": "another message type", "\x01": "another message type",
		"": "damaged", "\x04\x04": "damaged", "\x04\x80": "damaged", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff": "damaged",
	} {
		_, err := c.Deserialize(t.Context(), outbox.Message{Body: []byte("\x00\x00\x00\x00\x01" + name)})
		if want == "" && err != nil || want != "" && (!errors.Is(err, schema.ErrBody) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

// TestEvolution: a reader with another schema reads by the one of the writer.
func TestEvolution(t *testing.T) {
	f := newFake(t)
	m, err := schema.Message(t.Context(), avroCodec(t, f.registry(t, &registry.Config{Register: true}), avroOrder),
		outbox.Message{Topic: "orders"}, order{ID: "a", Cents: 5})
	if err != nil {
		t.Fatal(err)
	}
	type noted struct {
		Cents int64  `avro:"cents"`
		Note  string `avro:"note"`
		ID    string `avro:"id"`
	}
	reader, err := avro.New[noted](`{"type":"record","name":"Order","fields":[
		{"name":"cents","type":"long"},{"name":"note","type":"string","default":"-"},{"name":"id","type":"string"}]}`, f.registry(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second from memory
		if got, err := reader.Deserialize(t.Context(), m); err != nil || got != (noted{ID: "a", Cents: 5, Note: "-"}) {
			t.Errorf("read %v, %v", got, err)
		}
	}
	incompatible := avroCodec(t, f.registry(t, nil), strings.ReplaceAll(avroOrder, `"cents"`, `"euros"`))
	if _, err := incompatible.Deserialize(t.Context(), m); !errors.Is(err, schema.ErrBody) || !strings.Contains(err.Error(), "euros") {
		t.Errorf("a schema that cannot read it: %v", err)
	}
}

// TestAway: a registry that is away is a retryable error that says so, and stops
// nobody who has the schema already.
func TestAway(t *testing.T) {
	f := newFake(t)
	r := f.registry(t, &registry.Config{Register: true})
	known := avroCodec(t, r, avroOrder)
	m, err := schema.Message(t.Context(), known, outbox.Message{Topic: "orders"}, order{})
	if err != nil {
		t.Fatal(err)
	}
	fresh := f.registry(t, nil)
	for _, status := range []int{http.StatusInternalServerError, http.StatusTooManyRequests, 0} {
		f.ClearInterceptors()
		if status == 0 {
			f.Close()
		} else {
			f.Intercept(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return true })
		}
		if _, err := known.Serialize(t.Context(), "orders", order{}); err != nil {
			t.Errorf("%d: with a schema that was asked for before: %v", status, err)
		}
		if _, err := known.Deserialize(t.Context(), m); err != nil {
			t.Errorf("%d: with a schema that was read before: %v", status, err)
		}
		_, err := known.Serialize(t.Context(), "other", order{})
		wantError(t, "writing", err, schema.ErrAway, `subject "other-value"`, "try again")
		reader := avroCodec(t, fresh, avroOrder)
		_, err = reader.Deserialize(t.Context(), m)
		wantError(t, "reading", err, schema.ErrAway, "schema 1")
		err = schema.Handler(reader, nop)(t.Context(), nil, m)
		if !errors.Is(err, schema.ErrAway) || errors.Is(err, outbox.ErrPoison) {
			t.Errorf("the handler said %v: it should be tried again", err)
		}
	}
}

func nop(context.Context, *sql.Tx, outbox.Message, order) error { return nil }

func wantError(t *testing.T, what string, err, kind error, texts ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: got %v, want %v", what, err, kind)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q does not say %q", what, err, text)
		}
	}
}

func TestRefusals(t *testing.T) {
	f := newFake(t)
	c := avroCodec(t, f.registry(t, nil), avroOrder)
	_, err := c.Serialize(t.Context(), "orders", order{})
	wantError(t, "not registered", err, schema.ErrNotRegistered, `subject "orders-value"`, "Config.Register")

	const reason = "Schema being registered is incompatible with an earlier schema for subject \\\"orders-value\\\", details: " +
		"[{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE', description:'The field cents has no default'}]"
	f.ClearInterceptors()
	f.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusConflict)
		_, _ = w.Write([]byte(`{"error_code":409,"message":"` + reason + `"}`))
		return true
	})
	writer := f.registry(t, &registry.Config{Register: true})
	_, err = avroCodec(t, writer, avroOrder).Serialize(t.Context(), "orders", order{})
	wantError(t, "incompatible", err, schema.ErrRefused, strings.ReplaceAll(reason, `\"`, `"`), "409")
	wantError(t, "incompatible, at the start", writer.Prepare(t.Context(), "orders", c.Definition()), schema.ErrRefused)

	f.ClearInterceptors()
	_, err = c.Deserialize(t.Context(), outbox.Message{Body: []byte("\x00\x00\x00\x00\x63x")})
	wantError(t, "unknown id", err, schema.ErrUnknownID, "99")
	_, err = c.Deserialize(t.Context(), outbox.Message{Body: []byte("{}")})
	wantError(t, "no mark", err, schema.ErrBody, "zero byte")
	if err := schema.Handler(c, nop)(t.Context(), nil, outbox.Message{}); !errors.Is(err, outbox.ErrPoison) {
		t.Errorf("the handler said %v of a body without a mark", err)
	}
	if _, _, err := f.RegisterSchema("s", sr.Schema{Schema: jsonOrder, Type: sr.TypeJSON}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Deserialize(t.Context(), outbox.Message{Body: []byte("\x00\x00\x00\x00\x01{}")})
	wantError(t, "another type of schema", err, schema.ErrBody, "JSON", "AVRO")
}

// TestAskedOnce: many writers at once ask once, and a failure is not remembered.
func TestAskedOnce(t *testing.T) {
	f := newFake(t)
	if _, _, err := f.RegisterSchema("orders-value", sr.Schema{Schema: avroOrder}); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	f.Intercept(func(http.ResponseWriter, *http.Request) bool { <-release; return false })
	c := avroCodec(t, f.registry(t, nil), avroOrder)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Serialize(gone, "orders", order{}); !errors.Is(err, schema.ErrAway) || !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who has gone away: %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.Serialize(t.Context(), "orders", order{}); err != nil {
				t.Error(err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := f.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestReferences: a schema's imports are registered before it, and found by readers.
func TestReferences(t *testing.T) {
	f := newFake(t)
	d := schema.Definition{Type: schema.Avro, Text: `{"type":"record","name":"B","fields":[{"name":"a","type":"A"}]}`,
		References: []schema.Reference{{Name: "A", Definition: schema.Definition{Type: schema.Avro, Text: `{"type":"fixed","name":"A","size":1}`}}}}
	writer := f.registry(t, &registry.Config{Register: true, Subject: func(topic string) string { return "of-" + topic }})
	body, err := writer.Mark(t.Context(), "t", d, nil, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if !f.SubjectExists("of-t") || !f.SubjectExists("A") {
		t.Error("a subject is missing")
	}
	marked, err := f.registry(t, nil).Read(t.Context(), body)
	if err != nil || !reflect.DeepEqual(marked.Definition, d) || !bytes.Equal(marked.Body, []byte("x")) {
		t.Errorf("read %+v, %v", marked, err)
	}
}

func TestWrongConfig(t *testing.T) {
	if _, err := registry.New(nil, nil); err == nil {
		t.Error("a registry without a client")
	}
	client, err := sr.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.New(client, &registry.Config{Timeout: -1}); err == nil || !strings.Contains(err.Error(), "Timeout") {
		t.Error(err)
	}
}
