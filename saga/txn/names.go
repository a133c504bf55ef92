package txn

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest gid, step or action name, in bytes.
const MaxName = 128

// CheckName reports why a name cannot be used: empty, over MaxName bytes, not
// UTF-8, or holding a space or control character. field names it in the error.
func CheckName(field, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s is empty", field)
	case len(name) > MaxName:
		return fmt.Errorf("%s is %d bytes long, at most %d are allowed", field, len(name), MaxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s %q is not valid UTF-8", field, name)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("%s %q holds a space or control character", field, name)
	}
	return nil
}

// CheckAction is CheckName for actions, which also need a service before the
// last dot and a verb behind it: "accounts.debit".
func CheckAction(field, name string) error {
	if err := CheckName(field, name); err != nil {
		return err
	}
	if service, verb := SplitAction(name); service == "" || verb == "" {
		return fmt.Errorf("%s %q names no service: write \"service.verb\", for example \"accounts.debit\"", field, name)
	}
	return nil
}

// SplitAction cuts an action's name at its last dot into service and verb.
func SplitAction(name string) (service, verb string) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}
