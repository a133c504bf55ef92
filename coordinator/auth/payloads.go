package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// redacted stands for what is not shown. In JSON it is a string.
const redacted = "[redacted]"

// Payloads says to whom payloads are shown: requests and replies of branches,
// and the bodies and headers of dead letters. What a service gets and gives is
// its own, and is never redacted. The zero value shows them whole to operators.
type Payloads struct {
	// Roles are those that are shown payloads, beside break-glass. Empty:
	// operator. To others a payload is "[redacted]".
	Roles []amendsv1.Role
	// Redact are the JSON fields whose values are "[redacted]" in what is
	// shown, to all but break-glass. A name stands for the field at any depth,
	// "card.number" for the field number of any card; lists in between do not
	// count, nor does case. When there are any, a payload that is not JSON is
	// not shown: its fields cannot be told apart.
	Redact []string
}

// ruler is an Authenticator that says to whom payloads are shown.
type ruler interface{ Payloads() Payloads }

// Payloads are those of the file as it is now.
func (f *File) Payloads() Payloads { return f.content.get().payloads }

// Payloads are those of the first Authenticator that has any.
func (chain Chain) Payloads() Payloads {
	for _, a := range chain {
		if r, ok := a.(ruler); ok {
			return r.Payloads()
		}
	}
	return Payloads{}
}

// check reports every mistake.
func (p Payloads) check() error {
	var errs []error
	for i, path := range p.Redact {
		if path == "" || slices.Contains(strings.Split(path, "."), "") {
			errs = append(errs, fmt.Errorf("redact[%d]: want the name of a field, or a path of names with dots between", i))
		}
	}
	if slices.Contains(p.Roles, amendsv1.Role_ROLE_SERVICE) {
		errs = append(errs, errors.New("roles: a service sees no payloads but its own"))
	}
	return errors.Join(errs...)
}

// sees tells whether a caller is shown payloads without breaking glass, and
// whether whole.
func (p Payloads) sees(c Caller) (shown, whole bool) {
	roles := p.Roles
	if len(roles) == 0 {
		roles = []amendsv1.Role{amendsv1.Role_ROLE_OPERATOR}
	}
	return c.Has(roles...), len(p.Redact) == 0
}

// show hides what the caller of a method is not to see of its answer, in place:
// an answer is the caller's alone. What only break-glass was shown is in the
// log.
func (g *Guard) show(ctx context.Context, method string, answer any) {
	if g.payloads == nil {
		return
	}
	c, _ := FromContext(ctx) // absent: of a method for everybody, and sees nothing
	rule := g.payloads()
	shown, whole := rule.sees(c)
	switch {
	case shown && whole:
	case c.Has(amendsv1.Role_ROLE_BREAK_GLASS):
		if of, had := eachPayload(answer, func(b []byte) []byte { return b }); had {
			g.log.WarnContext(ctx, "auth: break-glass was shown payloads", "subject", c.Subject, "method", short(method),
				"namespace", c.Namespace, "of", of)
		}
	case shown:
		eachPayload(answer, rule.redact)
	default:
		eachPayload(answer, func([]byte) []byte { return []byte(`"` + redacted + `"`) })
	}
}

// Every answer with a payload in it is one of these: a test walks all that are
// defined.
type (
	withTransaction interface{ GetTransaction() *amendsv1.Transaction }
	withDeadLetter  interface{ GetDeadLetter() *amendsv1.DeadLetter }
)

// eachPayload turns each payload of an answer, and returns what they belong to
// and whether there are any. A header is turned as the JSON object of itself.
func eachPayload(answer any, turn func([]byte) []byte) (of string, had bool) {
	field := func(at *[]byte) {
		if len(*at) > 0 {
			*at, had = turn(*at), true
		}
	}
	if m, ok := answer.(withTransaction); ok {
		of = m.GetTransaction().GetGid()
		for _, b := range m.GetTransaction().GetBranches() {
			field(&b.Request)
			field(&b.Reply)
		}
	}
	if m, ok := answer.(withDeadLetter); ok && m.GetDeadLetter() != nil {
		of = m.GetDeadLetter().GetId()
		field(&m.GetDeadLetter().Body)
		for name, value := range m.GetDeadLetter().GetHeaders() {
			m.GetDeadLetter().Headers[name], had = turnHeader(name, value, turn), true
		}
	}
	return of, had
}

// turnHeader asks what becomes of a field with a header's name and value.
func turnHeader(name, value string, turn func([]byte) []byte) string {
	asked, err := json.Marshal(map[string]string{name: value})
	if err != nil { // texts always encode
		return redacted
	}
	var told map[string]string
	if json.Unmarshal(turn(asked), &told) != nil {
		return redacted // all of it
	}
	return told[name]
}

// redact hides the fields of a payload that are not shown to anybody.
func (p Payloads) redact(payload []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber() // keeps every digit
	var v any
	if err := d.Decode(&v); err != nil || d.More() {
		return []byte(`"` + redacted + `"`)
	}
	out, err := json.Marshal(p.hide(v, nil))
	if err != nil {
		return []byte(`"` + redacted + `"`)
	}
	return out
}

// hide is v, which stands at a path, less what is redacted.
func (p Payloads) hide(v any, path []string) any {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if at := append(path, name); p.redacts(at) { //nolint:gocritic // the next name takes this one's place
				v[name] = redacted
			} else {
				v[name] = p.hide(value, at)
			}
		}
	case []any:
		for i := range v {
			v[i] = p.hide(v[i], path)
		}
	}
	return v
}

// redacts tells whether a path ends as one of Redact does.
func (p Payloads) redacts(path []string) bool {
	return slices.ContainsFunc(p.Redact, func(rule string) bool {
		names := strings.Split(rule, ".")
		return len(names) <= len(path) && slices.EqualFunc(names, path[len(path)-len(names):], strings.EqualFold)
	})
}
