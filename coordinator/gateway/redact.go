package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/protobuf/proto"
)

// redacted stands for a value that is not shown.
const redacted = "[redacted]"

// masker hides fields of payloads, by name.
type masker map[string]bool

func newMasker(fields []string) masker {
	m := masker{}
	for _, f := range fields {
		m[strings.ToLower(f)] = true
	}
	return m
}

// rewrite hides what must not be shown of a response, just before it is sent.
// Responses belong to the caller alone, so that they can be changed in place.
func (m masker) rewrite(_ context.Context, response proto.Message) (any, error) {
	if len(m) == 0 {
		return response, nil
	}
	switch r := response.(type) {
	case interface{ GetTransaction() *amendsv1.Transaction }:
		for _, b := range r.GetTransaction().GetBranches() {
			b.Request, b.Reply = m.payload(b.Request), m.payload(b.Reply)
		}
	case *amendsv1.GetDeadLetterResponse:
		m.deadLetter(r.GetDeadLetter())
	}
	return response, nil
}

func (m masker) deadLetter(d *amendsv1.DeadLetter) {
	if d == nil {
		return
	}
	d.Body = m.payload(d.GetBody())
	for name := range d.GetHeaders() {
		if m[strings.ToLower(name)] {
			d.Headers[name] = redacted
		}
	}
}

func (m masker) payload(data []byte) []byte {
	if len(data) == 0 {
		return data
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // keeps every digit
	var v any
	if err := d.Decode(&v); err != nil || d.More() {
		return []byte(redacted + " not JSON: its fields cannot be told apart")
	}
	out, err := json.Marshal(m.hide(v))
	if err != nil {
		return []byte(redacted)
	}
	return out
}

func (m masker) hide(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if m[strings.ToLower(name)] {
				v[name] = redacted
			} else {
				v[name] = m.hide(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = m.hide(v[i])
		}
	}
	return v
}
