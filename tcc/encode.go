package tcc

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

// The versions of the encoding; a reader refuses others. A state
// is written in the oldest version that has words for it, which older builds read
// too.
const (
	plainVersion    = 1
	operatedVersion = 2 // knows SKIPPED
	checkedVersion  = 3 // knows a check that is asked
)

type encodedState struct {
	V        int           `json:"v"`
	Phase    string        `json:"phase"`
	Decision string        `json:"decision,omitempty"`
	Branches []BranchState `json:"branches,omitempty"`
	Cause    *txn.Reason   `json:"cause,omitempty"`
	Checking *Checking     `json:"checking,omitempty"`
}

// Encode returns s as versioned JSON. Equal states give equal bytes.
func (s State) Encode() ([]byte, error) {
	e := encodedState{V: s.version(), Phase: s.Phase.String(), Branches: s.Branches, Cause: s.Cause, Checking: s.Checking}
	if s.Decision != 0 {
		e.Decision = s.Decision.String()
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("tcc: encode state: %w", err)
	}
	return data, nil
}

func (s State) version() int {
	if s.Checking != nil {
		return checkedVersion
	}
	for i := range s.Branches {
		if s.Branches[i].Phase == Skipped {
			return operatedVersion
		}
	}
	return plainVersion
}

// DecodeState is the inverse of Encode. It never panics on any data: what it
// returns passes Check.
func DecodeState(d *Definition, data []byte) (State, error) {
	s, err := decodeState(data)
	if err == nil {
		err = s.Check(d)
	}
	if err != nil {
		return State{}, fmt.Errorf("tcc: decode state: %w", err)
	}
	return s, nil
}

func decodeState(data []byte) (State, error) {
	var version struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return State{}, err
	}
	if version.V < plainVersion || version.V > checkedVersion {
		return State{}, fmt.Errorf("version is %d, this build reads %d to %d", version.V, plainVersion, checkedVersion)
	}
	var e encodedState
	if err := unmarshalStrict(data, &e); err != nil {
		return State{}, err
	}
	s := State{Branches: e.Branches, Cause: e.Cause, Checking: e.Checking}
	var err error
	if s.Phase, err = txn.ParseState(e.Phase); err != nil {
		return State{}, fmt.Errorf("phase: %w", err)
	}
	if e.Decision != "" {
		if s.Decision, err = txn.ParseState(e.Decision); err != nil {
			return State{}, fmt.Errorf("decision: %w", err)
		}
	}
	for i := range s.Branches {
		b := &s.Branches[i]
		if len(b.Payload) == 0 {
			b.Payload = nil
		}
		if len(b.Reply) == 0 {
			b.Reply = nil
		}
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
