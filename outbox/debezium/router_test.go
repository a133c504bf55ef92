package debezium

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/amends-dev/amends/outbox"
)

const (
	id      = "4d47e190-0402-4048-bc2c-89dd54343cdc"
	payload = `{"id": 1, "customerId": 123}`
	trace   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)

// documented are records as Debezium's documentation of the router shows them, and
// as its source (EventRouterDelegate) and Connect's converters make them.
var documented = []struct {
	name    string
	cfg     Config
	message outbox.Message
	event   Event
	lossy   bool // Message cannot make it
}{
	{
		name:    "defaults, converters of strings",
		message: outbox.Message{Topic: "outbox.event.order", Key: "1", Headers: map[string]string{"id": id, "eventType": "OrderCreated"}, Body: []byte(payload)},
		event:   Event{ID: id, AggregateType: "order", AggregateID: "1", Type: "OrderCreated", Payload: []byte(payload)},
	},
	{
		name:    "no type",
		cfg:     Config{TypeHeader: "-"},
		message: outbox.Message{Topic: "outbox.event.order", Key: "1", Headers: map[string]string{"id": id}, Body: []byte(payload)},
		event:   Event{ID: id, AggregateType: "order", AggregateID: "1", Payload: []byte(payload)},
	},
	{
		name: "JsonConverter without schemas, not expanded",
		cfg:  Config{Key: JSON, Value: JSON, TypeHeader: "type"},
		message: outbox.Message{Topic: "outbox.event.order", Key: `"1"`, Headers: map[string]string{"id": id, "type": "OrderCreated"},
			Body: []byte(`"{\"id\": 1, \"customerId\": 123}"`)},
		event: Event{ID: id, AggregateType: "order", AggregateID: "1", Type: "OrderCreated", Payload: []byte(payload)},
	},
	{
		name: "JsonConverter as it comes, not expanded",
		cfg:  Config{Key: JSONSchema, Value: JSONSchema, Header: JSONSchema},
		message: outbox.Message{Topic: "outbox.event.order",
			Key: `{"schema":{"type":"string","optional":false},"payload":"1"}`,
			Headers: map[string]string{
				"id":        `{"schema":{"type":"string","optional":false},"payload":"` + id + `"}`,
				"eventType": `{"schema":{"type":"string","optional":false},"payload":"OrderCreated"}`,
			},
			Body: []byte(`{"schema":{"type":"string","optional":false},"payload":"{\"id\": 1, \"customerId\": 123}"}`)},
		event: Event{ID: id, AggregateType: "order", AggregateID: "1", Type: "OrderCreated", Payload: []byte(payload)},
	},
	{
		name: "JsonConverter as it comes, expanded, nullable columns",
		cfg:  Config{Value: JSONSchema, Header: JSON},
		message: outbox.Message{Topic: "outbox.event.order", Key: "1",
			Headers: map[string]string{"id": `"` + id + `"`, "eventType": "null", "traceparent": `"` + trace + `"`, "tracestate": "a=b"},
			Body:    []byte(`{"schema":{"type":"struct","fields":[]},"payload":{"id": 1, "customerId": 123}}`)},
		event: Event{ID: id, AggregateType: "order", AggregateID: "1", Payload: []byte(payload),
			Headers: map[string]string{"traceparent": trace, "tracestate": "a=b"}},
		lossy: true,
	},
	{
		name: "another topic, further columns and a trace",
		cfg:  Config{Topic: "shop.${routedByValue}.v1"},
		message: outbox.Message{Topic: "shop.order.v1", Key: "1", Body: []byte(payload),
			Headers: map[string]string{"id": id, "eventType": "OrderCreated", "tenant": "a", "traceparent": trace}},
		event: Event{ID: id, AggregateType: "order", AggregateID: "1", Type: "OrderCreated", Payload: []byte(payload),
			Headers: map[string]string{"tenant": "a", "traceparent": trace}},
	},
	{
		name: "a trace, which no converter touches",
		cfg:  Config{Header: JSON},
		message: outbox.Message{Topic: "outbox.event.order", Key: "1", Body: []byte(payload),
			Headers: map[string]string{"id": `"` + id + `"`, "eventType": `"OrderCreated"`, "tenant": `"a"`, "traceparent": trace}},
		event: Event{ID: id, AggregateType: "order", AggregateID: "1", Type: "OrderCreated", Payload: []byte(payload),
			Headers: map[string]string{"tenant": "a", "traceparent": trace}},
	},
	{
		name:    "tombstone",
		cfg:     Config{Value: JSON},
		message: outbox.Message{Topic: "outbox.event.order", Key: "1", Headers: map[string]string{"id": id, "eventType": ""}},
		event:   Event{ID: id, AggregateType: "order", AggregateID: "1"},
		lossy:   true,
	},
	{
		name: "Amends, by way of Kafka",
		message: outbox.Message{ID: id, Topic: "outbox.event.order", Key: "1", Body: []byte(payload), Headers: map[string]string{
			"id": id, "eventType": "OrderCreated", "ce_id": id, "ce_source": "shop", "ce_specversion": "1.0", "ce_time": "2026-11-23T09:30:00Z", "ce_type": "outbox.event.order",
		}},
		event: Event{ID: id, AggregateType: "order", AggregateID: "1", Type: "OrderCreated", Payload: []byte(payload)},
		lossy: true,
	},
}

func TestDocumentedRecords(t *testing.T) {
	for _, c := range documented {
		t.Run(c.name, func(t *testing.T) {
			r, err := New(&c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Parse(c.message)
			if err != nil || !reflect.DeepEqual(got, c.event) {
				t.Errorf("%v\ngot  %+v\nwant %+v", err, got, c.event)
			}
			if c.lossy {
				return
			}
			m, err := r.Message(c.event)
			c.message.ID = c.event.ID
			if err != nil || !reflect.DeepEqual(m, c.message) {
				t.Errorf("%v\ngot  %+v\nwant %+v", err, m, c.message)
			}
		})
	}
}

func TestWrongMessages(t *testing.T) {
	good := func() outbox.Message {
		return outbox.Message{Topic: "outbox.event.order", Key: `"1"`, Headers: map[string]string{"id": `"1"`, "eventType": `"t"`, "tenant": `"a"`}, Body: []byte(`"x"`)}
	}
	r, err := New(&Config{Key: JSON, Value: JSON, Header: JSON})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Parse(good()); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*outbox.Message){
		"no header id":        func(m *outbox.Message) { delete(m.Headers, "id") },
		"header id is empty":  func(m *outbox.Message) { m.Headers["id"] = `""` },
		"header id: it is":    func(m *outbox.Message) { m.Headers["id"] = `x` },
		"header eventType":    func(m *outbox.Message) { m.Headers["eventType"] = `{` },
		"header tenant":       func(m *outbox.Message) { m.Headers["tenant"] = `x` },
		"the key: it is not":  func(m *outbox.Message) { m.Key = "a" },
		"the body: it is not": func(m *outbox.Message) { m.Body = []byte(`"`) },
		`topic "order"`:       func(m *outbox.Message) { m.Topic = "order" },
		`"outbox.event."`:     func(m *outbox.Message) { m.Topic = "outbox.event." },
	} {
		m := good()
		spoil(&m)
		if _, err := r.Parse(m); !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	schema, err := New(&Config{Value: JSONSchema})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{`"x"`, `{"schema":{}}`, `{`} {
		m := outbox.Message{Topic: "outbox.event.order", Headers: map[string]string{"id": "1"}, Body: []byte(body)}
		if _, err := schema.Parse(m); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestWrongEvents(t *testing.T) {
	r, err := New(&Config{Key: JSON, Value: JSONSchema, Header: JSON})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Message(Event{
		ID: "\xff", AggregateID: "\xff", Type: "\xff", Payload: []byte{0xff}, Headers: map[string]string{"id": "x", "eventType": "y"},
	})
	for _, want := range []string{"ID", "AggregateType", "AggregateID", "Type", "Payload", `Headers holds "id"`, `Headers holds "eventType"`} {
		if !errors.Is(err, ErrEvent) || !strings.Contains(err.Error(), "field "+want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if m, err := r.Message(Event{AggregateType: "order"}); err != nil || m.ID == "" || m.Headers["id"] != `"`+m.ID+`"` {
		t.Errorf("%v, %v", m, err)
	}
	_, err = New(&Config{Topic: "orders", TypeHeader: "id", Key: 9, Value: 9, Header: 9})
	for _, want := range []string{"Topic", "TypeHeader", "Key", "Value", "Header"} {
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "field "+want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestSpanContext(t *testing.T) {
	ctx, span := sdktrace.NewTracerProvider().Tracer("").Start(t.Context(), "x")
	defer span.End()
	got := SpanContext(ctx)
	if !strings.HasPrefix(got, "traceparent=00-"+span.SpanContext().TraceID().String()+"-") || !strings.HasSuffix(got, "\n") {
		t.Errorf("got %q", got)
	}
	if got := SpanContext(t.Context()); got != "" {
		t.Errorf("a trace from nowhere: %q", got)
	}
}

// FuzzParse: any message is an event or an error; what is an event is the same one
// after it was written and read again.
func FuzzParse(f *testing.F) {
	for _, c := range documented {
		f.Add(uint8(c.cfg.Value), c.message.Headers["id"], c.message.Headers["eventType"], c.message.Key, c.message.Body)
	}
	f.Fuzz(func(t *testing.T, format uint8, id, kind, key string, body []byte) {
		form := Format(format % 3)
		r, err := New(&Config{Key: form, Value: form, Header: form})
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.Parse(outbox.Message{Topic: "outbox.event.order", Key: key, Headers: map[string]string{"id": id, "eventType": kind}, Body: body})
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		m, err := r.Message(e)
		if err != nil {
			if errors.Is(err, ErrEvent) && form != Plain { // JSON takes bytes that are no UTF-8, and keeps them
				return
			}
			t.Fatalf("%+v cannot be written: %v", e, err)
		}
		again, err := r.Parse(m)
		if err != nil || again.ID != e.ID || again.Type != e.Type || again.AggregateID != e.AggregateID || string(again.Payload) != string(e.Payload) {
			t.Fatalf("%v\nwas %+v\nis  %+v", err, e, again)
		}
	})
}
