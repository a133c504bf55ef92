package wire

import (
	"strconv"
	"strings"

	"github.com/amends-dev/amends/saga/txn"
)

// ParseReason is the inverse of txn.Reason.String, which is what a store keeps
// in Record.Reason. A text of another shape becomes the Message.
func ParseReason(s string) txn.Reason {
	r, rest := txn.Reason{}, s
	if quoted, ok := strings.CutPrefix(s, "step "); ok {
		prefix, err := strconv.QuotedPrefix(quoted)
		if err != nil {
			return txn.Reason{Message: s}
		}
		if r.Branch, err = strconv.Unquote(prefix); err != nil {
			return txn.Reason{Message: s}
		}
		if rest, ok = strings.CutPrefix(quoted[len(prefix):], ": "); !ok {
			return txn.Reason{Message: s}
		}
	}
	r.Code, r.Message, _ = strings.Cut(rest, ": ")
	switch r.Code {
	case txn.CodeRefused, txn.CodeExhausted, txn.CodeDeadline, txn.CodeAborted, txn.CodeAbandoned:
		return r
	}
	return txn.Reason{Message: s}
}
