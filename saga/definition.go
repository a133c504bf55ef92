package saga

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/amends-dev/amends/saga/txn"
)

// MaxSteps is the largest number of steps of one saga.
const MaxSteps = 256

// Retry says when a call whose outcome is unknown is tried again.
type Retry = txn.Retry

// Codec turns requests and replies into bytes and back.
type Codec = txn.Codec

// Kind says how a step behaves when the saga turns back.
type Kind uint8

// The kinds of a step.
const (
	Compensatable Kind = iota // can be undone; the default
	Pivot                     // the point of no return: at most one step
	Retriable                 // has nothing to undo: comes after the pivot
)

var kindNames = [...]string{"compensatable", "pivot", "retriable"}

// String returns the lower-case name, for example "pivot".
func (k Kind) String() string {
	if k.Valid() {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Valid reports whether k is one of the kinds above.
func (k Kind) Valid() bool { return int(k) < len(kindNames) }

// MarshalText returns the name. It refuses a kind that is not valid.
func (k Kind) MarshalText() ([]byte, error) {
	if !k.Valid() {
		return nil, fmt.Errorf("saga: unknown kind %d", uint8(k))
	}
	return []byte(kindNames[k]), nil
}

// UnmarshalText is the inverse of MarshalText. It accepts nothing else.
func (k *Kind) UnmarshalText(text []byte) error {
	for i, name := range kindNames {
		if name == string(text) {
			*k = Kind(i)
			return nil
		}
	}
	return fmt.Errorf("saga: unknown kind %q (want one of %q)", text, kindNames)
}

// Definition is what one run of a saga does. It is plain data: it holds the
// encoded requests, so it differs from run to run. Don't change a definition
// once a State was made from it.
type Definition struct {
	Name    string        `json:"name"`              // of the saga, for example "transfer"
	Steps   []Step        `json:"steps"`             // 1 to MaxSteps
	Timeout time.Duration `json:"timeout,omitempty"` // turns back when not committed after this; 0: never
}

// Step is one step of a Definition.
type Step struct {
	Name    string `json:"name"`              // unique within the saga
	Action  string `json:"action"`            // "service.verb", for example "accounts.debit"
	Payload []byte `json:"payload,omitempty"` // the encoded request
	After   []int  `json:"after,omitempty"`   // indices, below its own, of what must be done first; none: starts at once
	Kind    Kind   `json:"kind,omitempty"`    // Compensatable when not set
	Retry   Retry  `json:"retry,omitzero"`    // when a call is tried again; zero values are defaults
}

// Encode returns d as JSON. Equal definitions give equal bytes. The error is
// not nil when d holds a value that JSON has no word for, which Validate
// reports too.
func (d *Definition) Encode() ([]byte, error) {
	data, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("saga: encode definition %q: %w", d.Name, err)
	}
	return data, nil
}

// DecodeDefinition is the inverse of Encode. It validates what it read, and
// refuses fields that it does not know: a definition written by a newer
// version is never half understood.
func DecodeDefinition(data []byte) (*Definition, error) {
	d := new(Definition)
	if err := unmarshalStrict(data, d); err != nil {
		return nil, fmt.Errorf("saga: decode definition: %w", err)
	}
	for i := range d.Steps { // empty and nil are the same once encoded
		if st := &d.Steps[i]; len(st.Payload) == 0 {
			st.Payload = nil
		}
		if st := &d.Steps[i]; len(st.After) == 0 {
			st.After = nil
		}
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return d, nil
}

// unmarshalStrict is json.Unmarshal that refuses unknown fields.
func unmarshalStrict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("more data behind the JSON value")
	}
	return nil
}

// pivot returns the index of the pivot step, -1 when there is none.
func (d *Definition) pivot() int {
	for i := range d.Steps {
		if d.Steps[i].Kind == Pivot {
			return i
		}
	}
	return -1
}
