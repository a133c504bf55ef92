package cloudevents

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"unicode/utf8"
)

// encode writes the event in the JSON event format.
func (e *Event) encode() ([]byte, error) {
	out := map[string]any{}
	for name, value := range e.attributes() {
		out[name] = value
	}
	if e.DataContentType != "" {
		out["datacontenttype"] = e.DataContentType
	}
	switch {
	case len(e.Data) == 0:
	case isJSON(e.DataContentType) && json.Valid(e.Data) && utf8.Valid(e.Data):
		out["data"] = json.RawMessage(e.Data)
	case isJSON(e.DataContentType) && e.DataContentType != "":
		return nil, fmt.Errorf("%w: %w", ErrInvalid, attribute("data", "is not JSON, as datacontenttype says"))
	default:
		out["data_base64"] = e.Data
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("cloudevents: encode: %w", err)
	}
	return bytes.TrimSuffix(body.Bytes(), []byte("\n")), nil
}

// isJSON tells whether data of a media type is JSON; without one it is.
func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	_, subtype, _ := strings.Cut(media, "/")
	return contentType == "" || err == nil && (subtype == "json" || strings.HasSuffix(subtype, "+json"))
}

// decode reads an event in the JSON event format. A member that comes twice is
// refused: readers would disagree about which one counts.
func decode(contentType string, body []byte) (Event, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || media != jsonFormat {
		return Event{}, fmt.Errorf("%w: content-type %q: only %s is known", ErrInvalid, contentType, jsonFormat)
	}
	members, err := object(body)
	if err != nil {
		return Event{}, fmt.Errorf("%w: the body is not a JSON object: %w", ErrInvalid, err)
	}
	if members["specversion"] == nil {
		return Event{}, fmt.Errorf("%w: %w", ErrInvalid, attribute("specversion", "is missing"))
	}
	var e Event
	for name, raw := range members {
		if name == "data" || name == "data_base64" {
			continue
		}
		text, ok, err := attributeText(name, raw)
		if err == nil && ok {
			err = e.set(name, text)
		}
		if err != nil {
			return Event{}, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	if err := e.setData(members); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return e, nil
}

// object reads the members of a JSON object.
func object(body []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.Join(errors.New("it does not begin with {"), err)
	}
	members := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := t.(string) // the decoder takes nothing else there
		if _, twice := members[name]; twice {
			return nil, fmt.Errorf("member %q comes twice", name)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		members[name] = raw
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	return members, nil
}

// attributeText is the canonical text of an attribute's JSON value: a string, a
// boolean or a 32-bit integer. null is as good as absent.
func attributeText(name string, raw json.RawMessage) (text string, ok bool, err error) {
	var value any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&value); err != nil {
		return "", false, attribute(name, "is not JSON: %w", err)
	}
	switch v := value.(type) {
	case nil:
		return "", false, nil
	case string:
		return v, true, nil
	case bool:
		return fmt.Sprint(v), true, nil
	case json.Number:
		var n int32
		if json.Unmarshal(raw, &n) == nil {
			return fmt.Sprint(n), true, nil
		}
	}
	return "", false, attribute(name, "is neither a string, a boolean nor an integer of 32 bits")
}

// setData sets Data from the members data or data_base64.
func (e *Event) setData(members map[string]json.RawMessage) error {
	data, coded := members["data"], members["data_base64"]
	switch {
	case data != nil && coded != nil:
		return attribute("data", "is there twice, also as data_base64")
	case coded != nil:
		var text string
		if err := json.Unmarshal(coded, &text); err != nil {
			return attribute("data_base64", "is not a string: %w", err)
		}
		plain, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return attribute("data_base64", "is not Base64: %w", err)
		}
		if len(plain) > 0 {
			e.Data = plain
		}
	case data != nil && isJSON(e.DataContentType):
		e.Data = data
		if e.DataContentType == "" {
			e.DataContentType = "application/json" // what its absence means in this format, and in no other
		}
	case data != nil:
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			e.Data = data // a value that is no text stands for itself
		} else if text != "" {
			e.Data = []byte(text)
		}
	}
	return nil
}
