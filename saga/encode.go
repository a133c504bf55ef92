package saga

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/amends-dev/amends/saga/txn"
)

// MaxError is the longest error text that a state keeps, in bytes. A longer
// one is cut and says so.
const MaxError = 4096

// The versions of the encoding; a reader refuses others. What needs no word of
// operatedVersion is written in plainVersion, which older builds read too.
const (
	plainVersion    = 1
	operatedVersion = 2 // knows SKIPPED and UNDO_SKIPPED
)

type encodedState struct {
	V     int         `json:"v"`
	Phase string      `json:"phase"`
	Steps []StepState `json:"steps"`
	Cause *txn.Reason `json:"cause,omitempty"`
}

// Encode returns s as versioned JSON. Equal states give equal bytes.
func (s State) Encode() ([]byte, error) {
	data, err := json.Marshal(encodedState{V: s.version(), Phase: s.Phase.String(), Steps: s.Steps, Cause: s.Cause})
	if err != nil {
		return nil, fmt.Errorf("saga: encode state: %w", err)
	}
	return data, nil
}

func (s State) version() int {
	for i := range s.Steps {
		if p := s.Steps[i].Phase; p == Skipped || p == UndoSkipped {
			return operatedVersion
		}
	}
	return plainVersion
}

// DecodeState is the inverse of Encode. It never panics on any data: what it
// returns passes Check against d, which must be valid.
func DecodeState(d *Definition, data []byte) (State, error) {
	var version struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return State{}, fmt.Errorf("saga: decode state: %w", err)
	}
	if version.V != plainVersion && version.V != operatedVersion {
		return State{}, fmt.Errorf("saga: decode state: version is %d, this build reads %d and %d",
			version.V, plainVersion, operatedVersion)
	}
	var e encodedState
	if err := unmarshalStrict(data, &e); err != nil {
		return State{}, fmt.Errorf("saga: decode state: %w", err)
	}
	phase, err := txn.ParseState(e.Phase)
	if err != nil {
		return State{}, fmt.Errorf("saga: decode state: phase: %w", err)
	}
	for i := range e.Steps {
		if len(e.Steps[i].Reply) == 0 {
			e.Steps[i].Reply = nil
		}
	}
	s := State{Phase: phase, Steps: e.Steps, Cause: e.Cause}
	if err := s.Check(d); err != nil {
		return State{}, fmt.Errorf("saga: decode state: %w", err)
	}
	return s, nil
}

// clip makes text fit to be stored: valid UTF-8, at most MaxError bytes.
func clip(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= MaxError {
		return text
	}
	note := fmt.Sprintf("… (truncated, %d bytes in all)", len(text))
	cut := MaxError - len(note)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + note
}
