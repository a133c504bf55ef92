package cloudevents

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/amends-dev/amends/outbox"
)

func placed() Event {
	return Event{
		ID: "4d47e190", Source: "/shop/orders", Type: "com.example.order.placed", Subject: "order 17",
		Time:            time.Date(2026, 11, 23, 9, 30, 0, 123456789, time.UTC),
		DataContentType: "application/json", DataSchema: "https://example.com/order.json",
		Extensions: map[string]string{"tenant": "łódź", "partitionkey": "customer 5", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		Data:       []byte(`{"order":17}`),
	}
}

// TestBinary holds the mapping against the example of the specification.
func TestBinary(t *testing.T) {
	m, err := Binary(placed(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	want := outbox.Message{
		ID: "4d47e190", Topic: "orders", Key: "customer 5", Body: []byte(`{"order":17}`),
		Headers: map[string]string{
			"ce_specversion": "1.0", "ce_id": "4d47e190", "ce_source": "/shop/orders", "ce_type": "com.example.order.placed",
			"ce_subject": "order 17", "ce_time": "2026-11-23T09:30:00.123456789Z", "ce_dataschema": "https://example.com/order.json",
			"ce_tenant": "łódź", "ce_partitionkey": "customer 5", "content-type": "application/json",
			"ce_traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			"traceparent":    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		},
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got  %v\nwant %v", m, want)
	}
}

func TestStructured(t *testing.T) {
	e := placed()
	m, err := Structured(e, "orders")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"data":{"order":17},"datacontenttype":"application/json","dataschema":"https://example.com/order.json",` +
		`"id":"4d47e190","partitionkey":"customer 5","source":"/shop/orders","specversion":"1.0","subject":"order 17",` +
		`"tenant":"łódź","time":"2026-11-23T09:30:00.123456789Z",` +
		`"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","type":"com.example.order.placed"}`
	if string(m.Body) != want {
		t.Errorf("got  %s\nwant %s", m.Body, want)
	}
	if m.Headers[ContentType] != "application/cloudevents+json; charset=UTF-8" || m.ID != e.ID || m.Key != "customer 5" {
		t.Errorf("message %v", m)
	}
	// Kafka's publisher adds attributes that a message does not have: they must not contradict the body.
	if m.Headers["ce_type"] != e.Type || m.Headers["ce_source"] != e.Source || m.Headers["ce_id"] != e.ID {
		t.Errorf("headers %v", m.Headers)
	}
}

func TestRoundTrips(t *testing.T) {
	for name, change := range map[string]func(*Event){
		"all":                     func(*Event) {},
		"least":                   func(e *Event) { *e = Event{ID: "1", Source: "s", Type: "t"} },
		"text":                    func(e *Event) { e.DataContentType, e.Data = "text/plain", []byte("any <text>") },
		"bytes":                   func(e *Event) { e.DataContentType, e.Data = "application/avro", []byte{0, 1, 0xff} },
		"bytes of no type":        func(e *Event) { e.DataContentType, e.Data = "", []byte{0, 1, 0xff} },
		"json with a suffix":      func(e *Event) { e.DataContentType, e.Data = "application/vnd.order+json", []byte(`[1,"<&>"]`) },
		"json string":             func(e *Event) { e.Data = []byte(`"text"`) },
		"json null":               func(e *Event) { e.Data = []byte(`null`) },
		"no data":                 func(e *Event) { e.Data = nil },
		"empty extension":         func(e *Event) { e.Extensions["empty"] = "" },
		"subject that is the key": func(e *Event) { e.Extensions = nil },
	} {
		e := placed()
		change(&e)
		for mode, write := range map[string]func(Event, string) (outbox.Message, error){"binary": Binary, "structured": Structured} {
			m, err := write(e, "t")
			if err != nil {
				t.Errorf("%s, %s: %v", name, mode, err)
				continue
			}
			got, err := Parse(m)
			if err != nil || !reflect.DeepEqual(got, e) {
				t.Errorf("%s, %s: %v\ngot  %+v\nwant %+v", name, mode, err, got, e)
			}
			if m.Key != e.Key() {
				t.Errorf("%s, %s: key %q", name, mode, m.Key)
			}
		}
	}
}

// TestErrorsNameTheAttribute: each mistake, and all at once.
func TestErrorsNameTheAttribute(t *testing.T) {
	for _, c := range []struct {
		want  string
		wrong func(*Event)
	}{
		{"attribute id is 129 bytes", func(e *Event) { e.ID = strings.Repeat("x", 129) }},
		{"attribute id holds the character U+0000", func(e *Event) { e.ID = "a\x00" }},
		{"attribute source is missing", func(e *Event) { e.Source = "" }},
		{"attribute source is not a URI", func(e *Event) { e.Source = "http://[" }},
		{"attribute type is missing", func(e *Event) { e.Type = "" }},
		{"attribute type", func(e *Event) { e.Type = "a\xff" }},
		{"attribute subject holds", func(e *Event) { e.Subject = "a\n" }},
		{"attribute time", func(e *Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"attribute datacontenttype", func(e *Event) { e.DataContentType = "json" + "/" }},
		{"attribute dataschema", func(e *Event) { e.DataSchema = "order.json" }},
		{`extension "Tenant"`, func(e *Event) { e.Extensions = map[string]string{"Tenant": "x"} }},
		{`extension ""`, func(e *Event) { e.Extensions = map[string]string{"": "x"} }},
		{"attribute data is no extension", func(e *Event) { e.Extensions = map[string]string{"data": "x"} }},
		{"attribute specversion is no extension", func(e *Event) { e.Extensions = map[string]string{"specversion": "0.3"} }},
		{"attribute tenant holds the character U+FFFE", func(e *Event) { e.Extensions = map[string]string{"tenant": "\ufffe"} }},
	} {
		e := placed()
		c.wrong(&e)
		_, err := Binary(e, "t")
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	_, err := Structured(Event{Subject: "\n", DataSchema: "x"}, "t")
	for _, want := range []string{"source", "type", "subject", "dataschema"} {
		if err == nil || !strings.Contains(err.Error(), "attribute "+want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	e := placed()
	e.Data = []byte("{")
	if _, err := Structured(e, "t"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "attribute data") {
		t.Error(err)
	}
	e.DataContentType = jsonFormat
	if _, err := Binary(e, "t"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "attribute datacontenttype") {
		t.Error(err)
	}
}

// TestParse reads what other producers write, and refuses what is wrong.
func TestParse(t *testing.T) {
	binary := func(more ...string) map[string]string {
		h := map[string]string{"ce_specversion": "1.0", "ce_id": "1", "ce_source": "s", "ce_type": "t"}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		return h
	}
	json := map[string]string{"content-type": "Application/CloudEvents+JSON; charset=utf-8"}
	const least = `"specversion":"1.0","id":"1","source":"s","type":"t"`
	for _, c := range []struct {
		name    string
		headers map[string]string
		body    string
		want    string // of the error; "": none
		check   func(Event) bool
	}{
		{name: "binary", headers: binary("ce_n", "x"), check: func(e Event) bool { return e.ID == "1" && e.Extensions["n"] == "x" }},
		{name: "no event", headers: map[string]string{"ce_id": "1"}, want: "no CloudEvent"},
		{name: "version 0.3", headers: binary("ce_specversion", "0.3"), want: "attribute specversion"},
		{name: "no id", headers: binary("ce_id", ""), want: "attribute id is missing"},
		{name: "bad time", headers: binary("ce_time", "yesterday"), want: "attribute time"},
		{name: "a name that is none", headers: binary("ce_My_Ext", "x"), want: `extension "My_Ext"`},
		{name: "content type twice", headers: binary("ce_datacontenttype", "text/plain"), want: "attribute datacontenttype"},

		{name: "structured", headers: json, body: `{` + least + `,"n":-7,"b":true,"o":null,"data":{ "a": 1 }}`, check: func(e Event) bool {
			return e.Extensions["n"] == "-7" && e.Extensions["b"] == "true" && len(e.Extensions) == 2 &&
				e.DataContentType == "application/json" && string(e.Data) == `{ "a": 1 }`
		}},
		{name: "text", headers: json, body: `{` + least + `,"datacontenttype":"text/xml","data":"<a/>"}`,
			check: func(e Event) bool { return string(e.Data) == "<a/>" }},
		{name: "a value of another type", headers: json, body: `{` + least + `,"datacontenttype":"text/xml","data":{"a":1}}`,
			check: func(e Event) bool { return string(e.Data) == `{"a":1}` }},
		{name: "not JSON", headers: json, body: `{` + least, want: "not a JSON object"},
		{name: "list", headers: json, body: `[]`, want: "not a JSON object"},
		{name: "empty", headers: json, want: "not a JSON object"},
		{name: "two documents", headers: json, body: `{` + least + `}{}`, want: "something follows"},
		{name: "twice", headers: json, body: `{` + least + `,"id":"2"}`, want: `member "id" comes twice`},
		{name: "not UTF-8", headers: json, body: "{" + least + ",\"n\":\"\xff\"}", want: "not UTF-8"},
		{name: "no version", headers: json, body: `{"id":"1","source":"s","type":"t"}`, want: "attribute specversion"},
		{name: "fraction", headers: json, body: `{` + least + `,"n":1.5}`, want: "attribute n"},
		{name: "too large a number", headers: json, body: `{` + least + `,"n":2147483648}`, want: "attribute n"},
		{name: "object", headers: json, body: `{` + least + `,"n":{}}`, want: "attribute n"},
		{name: "data twice", headers: json, body: `{` + least + `,"data":1,"data_base64":"AA=="}`, want: "attribute data"},
		{name: "bad Base64", headers: json, body: `{` + least + `,"data_base64":"*"}`, want: "attribute data_base64"},
		{name: "other format", headers: map[string]string{"content-type": "application/cloudevents+avro"}, want: "only application/cloudevents+json"},
		{name: "batch", headers: map[string]string{"content-type": "application/cloudevents-batch+json"}, body: "[]", want: "only application/cloudevents+json"},
	} {
		e, err := Parse(outbox.Message{Headers: c.headers, Body: []byte(c.body)})
		switch {
		case c.want == "" && (err != nil || !c.check(e)):
			t.Errorf("%s: %v, %+v", c.name, err, e)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		case err != nil && errors.Is(err, ErrInvalid) == errors.Is(err, ErrNotEvent):
			t.Errorf("%s: %v is neither or both", c.name, err)
		}
	}
}

func TestTrace(t *testing.T) {
	ctx, span := sdktrace.NewTracerProvider().Tracer("").Start(t.Context(), "x")
	defer span.End()
	e := Event{ID: "1", Source: "s", Type: "t", Extensions: map[string]string{"n": "x"}}
	traced := e.WithTrace(ctx)
	m, err := Binary(traced, "t")
	if err != nil {
		t.Fatal(err)
	}
	if trace := span.SpanContext().TraceID().String(); !strings.Contains(m.Headers["ce_traceparent"], trace) ||
		m.Headers["traceparent"] != m.Headers["ce_traceparent"] {
		t.Errorf("headers %v, trace %s", m.Headers, trace)
	}
	if len(e.Extensions) != 1 || len(traced.Extensions) != 2 {
		t.Errorf("extensions %v and %v", e.Extensions, traced.Extensions)
	}
	own := placed()
	if got := own.WithTrace(ctx); !maps.Equal(got.Extensions, own.Extensions) {
		t.Errorf("its own trace was replaced: %v", got.Extensions)
	}
	if got := e.WithTrace(t.Context()); len(got.Extensions) != 1 {
		t.Errorf("a trace from nowhere: %v", got.Extensions)
	}
}

func TestIDsAreMade(t *testing.T) {
	for mode, write := range map[string]func(Event, string) (outbox.Message, error){"binary": Binary, "structured": Structured} {
		m, err := write(Event{Source: "s", Type: "t"}, "t")
		if err != nil {
			t.Fatal(err)
		}
		e, err := Parse(m)
		if err != nil || e.ID == "" || e.ID != m.ID {
			t.Errorf("%s: event %q, message %q: %v", mode, e.ID, m.ID, err)
		}
	}
}

// FuzzParse: any message is an event or an error; what is an event is the same
// one after it was written and read again.
func FuzzParse(f *testing.F) {
	for _, write := range []func(Event, string) (outbox.Message, error){Binary, Structured} {
		m, err := write(placed(), "t")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.Headers[ContentType], "ce_subject", "x", m.Body)
	}
	f.Add("application/cloudevents+json", "", "", []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","data":[1 ,2]}`))
	f.Fuzz(func(t *testing.T, contentType, header, value string, body []byte) {
		m := outbox.Message{Body: body, Headers: map[string]string{
			"ce_specversion": "1.0", "ce_id": "1", "ce_source": "s", "ce_type": "t", ContentType: contentType, header: value,
		}}
		e, err := Parse(m)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotEvent) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if len(e.ID) > outbox.MaxID {
			return // cannot be written
		}
		for mode, write := range map[string]func(Event, string) (outbox.Message, error){"binary": Binary, "structured": Structured} {
			m, err := write(e, "t")
			if err != nil {
				if strings.Contains(err.Error(), "attribute data") { // not what its content type says
					continue
				}
				t.Fatalf("%s: %+v cannot be written: %v", mode, e, err)
			}
			again, err := Parse(m)
			if err != nil {
				t.Fatalf("%s: %+v cannot be read again: %v", mode, e, err)
			}
			if !sameEvent(e, again) {
				t.Fatalf("%s:\nwas %+v\nis  %+v", mode, e, again)
			}
		}
	})
}

func sameEvent(a, b Event) bool {
	if !a.Time.Equal(b.Time) || !bytes.Equal(compact(a.Data), compact(b.Data)) {
		return false
	}
	if a.DataContentType == "" && b.DataContentType == "application/json" { // the JSON format says what absence means
		b.DataContentType = ""
	}
	a.Time, b.Time, a.Data, b.Data = time.Time{}, time.Time{}, nil, nil
	return reflect.DeepEqual(a, b)
}

func compact(data []byte) []byte {
	var out bytes.Buffer
	if json.Compact(&out, data) != nil {
		return data
	}
	return out.Bytes()
}
