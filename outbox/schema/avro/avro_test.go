package avro_test

import (
	"errors"
	"testing"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/schema"
	"github.com/amends-dev/amends/outbox/schema/avro"
)

type order struct {
	ID   string  `avro:"id"`
	Note *string `avro:"note"`
}

const text = `{"type":"record","name":"Order","fields":[{"name":"id","type":"string"},{"name":"note","type":["null","string"],"default":null}]}`

func TestCodec(t *testing.T) {
	c, err := avro.New[order](text, nil)
	if err != nil {
		t.Fatal(err)
	}
	note := "x"
	m, err := schema.Message(t.Context(), c, outbox.Message{Topic: "orders"}, order{"a", &note})
	if err != nil || string(m.Body) != "\x02a\x02\x02x" || m.Headers[schema.ContentType] != "application/avro" {
		t.Fatalf("%q, %v", m.Body, err)
	}
	if got, err := c.Deserialize(t.Context(), m); err != nil || got.ID != "a" || *got.Note != "x" {
		t.Errorf("%v, %v", got, err)
	}
	for _, body := range []string{"", "\x02", "\x02a\x00x", "\x02a\x08", "\xff\xff\xff\xff\x0f"} {
		got, err := c.Deserialize(t.Context(), outbox.Message{Body: []byte(body)})
		if !errors.Is(err, schema.ErrBody) || got != (order{}) {
			t.Errorf("%q: %v, %v", body, got, err)
		}
	}
	other, err := avro.New[map[string]any](text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Serialize(t.Context(), "orders", map[string]any{"id": 5}); !errors.Is(err, schema.ErrValue) {
		t.Errorf("a wrong value: %v", err)
	}
	if _, err := avro.New[order](`{"type":"order"}`, nil); !errors.Is(err, schema.ErrSchema) {
		t.Error(err)
	}
}
