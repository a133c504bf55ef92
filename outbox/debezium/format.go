package debezium

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Format is what a converter of Kafka Connect makes of a text.
type Format uint8

const (
	// Plain is the text itself: org.apache.kafka.connect.storage.StringConverter,
	// io.debezium.converters.BinaryDataConverter, SimpleHeaderConverter; and of a
	// payload that the router expands (table.expand.json.payload), JsonConverter
	// with schemas.enable=false.
	Plain Format = iota
	// JSON is the text as a JSON string, in quotes and escaped: JsonConverter with
	// schemas.enable=false. Parse takes any JSON: what is no string is its own text.
	JSON
	// JSONSchema is the same within {"schema":…,"payload":…}: JsonConverter as it is
	// configured by default.
	JSONSchema
)

// stringSchema is how JsonConverter describes a text.
const stringSchema = `{"schema":{"type":"string","optional":false},"payload":%s}`

func (f Format) check(text string) error {
	if f != Plain && !utf8.ValidString(text) {
		return errors.New("it is not UTF-8, which a JSON string has to be: use the format Plain")
	}
	return nil
}

func (f Format) encode(text string) string {
	if f == Plain {
		return text
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) //nolint:errchkjson // a string always encodes
	quoted := string(bytes.TrimSuffix(out.Bytes(), []byte("\n")))
	if f == JSONSchema {
		return fmt.Sprintf(stringSchema, quoted)
	}
	return quoted
}

func (f Format) decode(s string) (string, error) {
	if f == Plain {
		return s, nil
	}
	raw := json.RawMessage(s)
	if f == JSONSchema {
		var in struct{ Schema, Payload json.RawMessage }
		if err := json.Unmarshal(raw, &in); err != nil || in.Payload == nil {
			return "", errors.Join(errors.New(`it is not of the form {"schema":…,"payload":…}`), err)
		}
		raw = in.Payload
	}
	var value *string
	switch err := json.Unmarshal(raw, &value); {
	case err == nil && value != nil:
		return *value, nil
	case err == nil:
		return "", nil // null
	case json.Valid(raw):
		return string(raw), nil
	}
	return "", errors.New("it is not JSON")
}
