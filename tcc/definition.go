package tcc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/amends-dev/amends/saga/txn"
)

// MaxBranches is the largest number of branches of one transaction.
const MaxBranches = 256

// Retry says when a call whose outcome is unknown is tried again.
type Retry = txn.Retry

// Codec turns requests and replies into bytes and back.
type Codec = txn.Codec

// ErrInvalidDefinition is what every error about the content of a definition
// wraps.
var ErrInvalidDefinition = errors.New("tcc: invalid definition")

// Definition is what is known of a transaction when it begins. Its branches
// come later, with Try.
type Definition struct {
	Name    string        `json:"name"`    // for example "trip"
	Timeout time.Duration `json:"timeout"` // cancels, or checks, when it is undecided after this; more than 0
	Check   CheckBack     `json:"check,omitzero"`
}

// CheckBack is how the application of a transaction that is undecided at its
// deadline is asked whether its own work committed. The zero value is none:
// then the transaction cancels.
type CheckBack struct {
	Action string `json:"action"`         // "service.verb", for example "orders.placed"
	Retry  Retry  `json:"retry,omitzero"` // when it is asked again; Attempts is ignored: it is asked until it answers
}

// set reports whether there is one.
func (c *CheckBack) set() bool { return c.Action != "" }

func (c *CheckBack) validate() error {
	if *c == (CheckBack{}) {
		return nil
	}
	return errors.Join(txn.CheckAction("check.action", c.Action), c.Retry.Validate())
}

// Validate reports every mistake in d, joined, each naming the field. The
// error wraps ErrInvalidDefinition.
func (d *Definition) Validate() error {
	var errs []error
	if err := txn.CheckName("name", d.Name); err != nil {
		errs = append(errs, err)
	}
	if d.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout is %v, want more than 0: an undecided transaction holds reservations",
			d.Timeout))
	}
	if err := d.Check.validate(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w %q: %w", ErrInvalidDefinition, d.Name, errors.Join(errs...))
}

// Encode returns d as JSON. Equal definitions give equal bytes.
func (d *Definition) Encode() ([]byte, error) {
	data, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("tcc: encode definition %q: %w", d.Name, err)
	}
	return data, nil
}

// DecodeDefinition is the inverse of Encode. It validates what it read, and
// refuses fields that it does not know: a definition written by a newer
// version is never half understood.
func DecodeDefinition(data []byte) (*Definition, error) {
	d := new(Definition)
	if err := unmarshalStrict(data, d); err != nil {
		return nil, fmt.Errorf("tcc: decode definition: %w", err)
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
		return errors.New("more data behind the JSON value")
	}
	return nil
}
