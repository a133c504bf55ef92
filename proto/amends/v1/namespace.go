package amendsv1

import (
	"fmt"
	"regexp"
)

// NamespaceHeader is the metadata key by which a request names its namespace;
// absent: the only one of the caller's credentials, else the default one. Over
// HTTP it is a header of the same name.
const NamespaceHeader = "amends-namespace"

// MaxNamespace is the longest name of a namespace, in bytes.
const MaxNamespace = 62

var namespaceName = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)

var errNamespace = fmt.Errorf("a namespace is a-z, 0-9 and -, begins with a letter, does not end with -, and has at most %d bytes",
	MaxNamespace)

// CheckNamespace reports why a name cannot be that of a namespace; it does not
// repeat it, for it may be a secret in the wrong place. The empty name is that
// of the default one.
func CheckNamespace(name string) error {
	if name == "" || len(name) <= MaxNamespace && namespaceName.MatchString(name) {
		return nil
	}
	return errNamespace
}
