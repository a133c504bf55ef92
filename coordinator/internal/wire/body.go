package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A record's body is the machine's state, or, where the engine has to keep
// something of its own beside it, an object of both.
const ownPrefix = `{"own":`

// JoinBody makes a body of a machine's state and what the engine keeps, each
// JSON; own may be empty.
func JoinBody(state, own []byte) []byte {
	if len(own) == 0 {
		return state
	}
	return bytes.Join([][]byte{[]byte(ownPrefix), own, []byte(`,"state":`), state, []byte(`}`)}, nil)
}

// SplitBody is the inverse of JoinBody.
func SplitBody(body []byte) (state, own []byte, err error) {
	if !bytes.HasPrefix(body, []byte(ownPrefix)) {
		return body, nil, nil
	}
	var both struct {
		Own   json.RawMessage `json:"own"`
		State json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(body, &both); err != nil {
		return nil, nil, fmt.Errorf("wire: body: %w", err)
	}
	return both.State, both.Own, nil
}
