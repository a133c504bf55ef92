package api

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// The bounds of what operators ask for.
const (
	maxOperatorReason = 1024 // bytes
	defaultRate       = 50   // transactions per second
	minRate           = 0.001
	maxRate           = 1000
)

// bulkVerbs are about a transaction as a whole.
var bulkVerbs = []amendsv1.Verb{
	amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_ABORT, amendsv1.Verb_VERB_PAUSE,
	amendsv1.Verb_VERB_RESUME, amendsv1.Verb_VERB_ABANDON,
}

// invalid is an ErrInvalidArgument that names its field.
func invalid(field, format string, args ...any) error {
	return amendsv1.ErrInvalidArgument.With("%s %s", field, fmt.Sprintf(format, args...)).WithMetadata("field", field)
}

// verbName is the verb as filters and people write it, for example "RETRY_NOW".
func verbName(v amendsv1.Verb) string { return strings.TrimPrefix(v.String(), "VERB_") }

// allowVerb is about what depends on the verb, and not on the RPC alone.
func allowVerb(c Caller, v amendsv1.Verb) error {
	if v == amendsv1.Verb_VERB_ABANDON && !slices.Contains(c.Roles, amendsv1.Role_ROLE_BREAK_GLASS) {
		return amendsv1.ErrPermission.With("%s needs the break-glass role", verbName(v)).
			WithMetadata("verb", verbName(v)).WithMetadata("role", "break-glass")
	}
	return nil
}

// checkOperatorReason sees that whoever reads the trail learns why.
func checkOperatorReason(reason string) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return invalid("reason", "is empty: say why, for the audit trail")
	case len(reason) > maxOperatorReason:
		return invalid("reason", "has %d bytes, at most %d are allowed", len(reason), maxOperatorReason)
	case !utf8.ValidString(reason):
		return invalid("reason", "is not valid UTF-8")
	}
	return nil
}

// checkRequestID lets an absent one pass. Those that a bulk gives to its verbs
// are the bulk's own behind a word.
func checkRequestID(id string) error {
	return checkOptional("request_id", strings.TrimPrefix(id, "bulk/"))
}

func checkOptional(field, name string) error {
	if name == "" {
		return nil
	}
	if err := txn.CheckName(field, name); err != nil {
		return amendsv1.ErrInvalidArgument.With("%v", err).WithMetadata("field", field)
	}
	return nil
}

// checkBranch asks for one where the verb is about one. That of COMPLETE_STEP may
// be a check, which has no name.
func checkBranch(v amendsv1.Verb, branch string) error {
	if branch == "" && v != amendsv1.Verb_VERB_COMPLETE_STEP && !slices.Contains(bulkVerbs, v) {
		return invalid("branch", "is empty: %s is about one step or branch, name it", verbName(v))
	}
	return checkOptional("branch", branch)
}

func checkBulkVerb(v amendsv1.Verb) error {
	if slices.Contains(bulkVerbs, v) {
		return nil
	}
	names := make([]string, len(bulkVerbs))
	for i, v := range bulkVerbs {
		names[i] = verbName(v)
	}
	return invalid("verb", "is %s: in bulk, %s are possible", verbName(v), strings.Join(names, ", "))
}

// checkRate applies the default.
func checkRate(rate float64) (float64, error) {
	switch {
	case rate == 0:
		return defaultRate, nil
	case math.IsNaN(rate) || rate < minRate || rate > maxRate:
		return 0, invalid("rate", "is %v, want 0 (%d) or %v to %d transactions per second",
			rate, defaultRate, minRate, maxRate)
	}
	return rate, nil
}
