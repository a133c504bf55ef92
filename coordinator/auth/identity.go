package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// All stands for every namespace in a Grant, and for every service.
const All = "*"

// maxSubject is the longest subject, in bytes.
const maxSubject = 256

// roleNames are how files, claims and errors spell the roles.
var roleNames = map[string]amendsv1.Role{
	"viewer":      amendsv1.Role_ROLE_VIEWER,
	"operator":    amendsv1.Role_ROLE_OPERATOR,
	"break-glass": amendsv1.Role_ROLE_BREAK_GLASS,
	"service":     amendsv1.Role_ROLE_SERVICE,
}

// RoleName is how files, claims and errors spell a role: viewer, operator,
// break-glass or service.
func RoleName(r amendsv1.Role) string {
	for name, role := range roleNames {
		if role == r {
			return name
		}
	}
	return r.String()
}

// Grant is a role in a namespace.
type Grant struct {
	Namespace string // All: in every one; empty: the default one
	Role      amendsv1.Role
}

// String is the form that ParseGrant reads.
func (g Grant) String() string {
	if g.Namespace == "" {
		return RoleName(g.Role)
	}
	return RoleName(g.Role) + "@" + g.Namespace
}

// ParseGrant reads "operator@shop"; "viewer@*" is in every namespace, and
// "service" in the default one.
func ParseGrant(s string) (Grant, error) {
	name, namespace, named := strings.Cut(s, "@")
	role, ok := roleNames[name]
	switch {
	case !ok:
		return Grant{}, fmt.Errorf("auth: grant %q: want viewer, operator, break-glass or service before the @", shown(s))
	case named && namespace == "":
		return Grant{}, fmt.Errorf("auth: grant %q: for the default namespace leave the @ out", shown(s))
	case namespace != All:
		if err := amendsv1.CheckNamespace(namespace); err != nil {
			return Grant{}, fmt.Errorf("auth: grant %q: %w", shown(s), err)
		}
	}
	return Grant{Namespace: namespace, Role: role}, nil
}

// Identity is who somebody is, and what that allows.
type Identity struct {
	// Subject is the actor of audit events, for example "alice@example.com".
	Subject string
	// Grants are the roles. Roles do not include one another but for what the
	// table of methods says: an operator may read, a service may not.
	Grants []Grant
	// Services are the participants that it may answer for; All: every one.
	Services []string
}

// Caller is the Identity behind one request, in the request's namespace.
type Caller struct {
	Identity
	// Namespace is the one that the request asked for: the amends-namespace
	// header; without it the only one of the grants, else the default one.
	Namespace string
	// Authenticated is false where nobody is asked who they are.
	Authenticated bool
}

// Roles are the caller's in its namespace, in order.
func (c Caller) Roles() []amendsv1.Role {
	roles := make([]amendsv1.Role, 0, len(c.Grants))
	for _, g := range c.Grants {
		if g.Namespace == c.Namespace || g.Namespace == All {
			roles = append(roles, g.Role)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

// Has tells whether the caller has one of these roles in its namespace.
func (c Caller) Has(anyOf ...amendsv1.Role) bool {
	return slices.ContainsFunc(c.Grants, func(g Grant) bool {
		return (g.Namespace == c.Namespace || g.Namespace == All) && slices.Contains(anyOf, g.Role)
	})
}

// Namespaces are those that the identity has a role in, in order; All stands
// for every one.
func (i Identity) Namespaces() []string {
	all := make([]string, 0, len(i.Grants))
	for _, g := range i.Grants {
		all = append(all, g.Namespace)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// check reports what makes an identity unfit to be believed: its subject
// stands in audit trails and logs, and must not be mistaken for another.
func (i Identity) check() error {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }
	switch {
	case i.Subject == "":
		return errors.New("auth: the subject is empty")
	case i.Subject == inProcess:
		return fmt.Errorf("auth: subject %q is the coordinator's own", i.Subject)
	case len(i.Subject) > maxSubject:
		return fmt.Errorf("auth: a subject of %d bytes: at most %d are legal", len(i.Subject), maxSubject)
	case strings.ContainsFunc(i.Subject, odd):
		return errors.New("auth: the subject holds what cannot be printed")
	}
	return nil
}

// shown shortens what somebody wrote, which may be the wrong thing in the wrong
// place, to what helps to find it.
func shown(s string) string {
	const most = 24
	if s = hideSecrets(s); len(s) > most {
		return s[:most] + "…"
	}
	return s
}
