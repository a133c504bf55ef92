package jsonschema_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/schema"
	"github.com/amends-dev/amends/outbox/schema/jsonschema"
)

type order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

const text = `{"type":"object","required":["id"],"properties":{"id":{"type":"string","minLength":1},"cents":{"type":"integer","minimum":0}}}`

func TestCodec(t *testing.T) {
	c, err := jsonschema.New[order](text, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := schema.Message(t.Context(), c, outbox.Message{Topic: "orders"}, order{"a", 5})
	if err != nil || string(m.Body) != `{"id":"a","cents":5}` || m.Headers[schema.ContentType] != "application/json" {
		t.Fatalf("%v, %v", m, err)
	}
	if got, err := c.Deserialize(t.Context(), m); err != nil || got != (order{"a", 5}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.Serialize(t.Context(), "orders", order{"a", -1}); !errors.Is(err, schema.ErrValue) || !strings.Contains(err.Error(), "cents") {
		t.Errorf("a wrong value: %v", err)
	}
	for _, body := range []string{"", "{", `{}`, `{"id":""}`, `{"id":"a","cents":1.5}`, `{"id":"a"}x`, `{"id":"a"}{"id":"b"}`} {
		got, err := c.Deserialize(t.Context(), outbox.Message{Body: []byte(body)})
		if !errors.Is(err, schema.ErrBody) || got != (order{}) {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
}

func TestWrongSchemas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "any.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", `{"type":"orders"}`, `{"$ref":"file://` + file + `"}`, `{"$ref":"http://127.0.0.1:1/x"}`} {
		if _, err := jsonschema.New[order](text, nil); !errors.Is(err, schema.ErrSchema) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
