package auth

import (
	"crypto/x509"
	"slices"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// certificate is a name in client certificates; one of the three is set.
type certificate struct {
	uri, dns, cn string
	id           Identity
}

// carriedBy tells whether a certificate has this name, all of it: there are no
// wildcards.
func (c *certificate) carriedBy(cert *x509.Certificate) bool {
	switch {
	case c.uri != "":
		for _, u := range cert.URIs {
			if u.String() == c.uri {
				return true
			}
		}
		return false
	case c.dns != "":
		return slices.Contains(cert.DNSNames, c.dns)
	}
	return c.cn != "" && cert.Subject.CommonName == c.cn
}

// byCertificate finds the first entry that a verified certificate carries.
func byCertificate(all []certificate, cert *x509.Certificate) (*Identity, error) {
	for i := range all {
		if all[i].carriedBy(cert) {
			return &all[i].id, nil
		}
	}
	return nil, amendsv1.ErrUnauthenticated.With("no name in the client certificate is one that is known")
}
