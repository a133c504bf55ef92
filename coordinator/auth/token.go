package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// tokenPrefix begins every static token, so that scanners for secrets find
// those that strayed, and a token of the wrong kind is told apart.
const tokenPrefix = "amends_"

// NewToken returns a static token: 256 random bits behind "amends_". It is shown
// to its owner once; what is kept is its HashToken.
func NewToken() string {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails: it ends the program instead
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
}

// HashToken is what stands in a file for a token: its SHA-256, in hexadecimal.
// That is enough because a token is random and long, unlike a password: there
// is nothing to guess.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// staticToken is a token that is known by its hash.
type staticToken struct {
	hash    [sha256.Size]byte
	expires time.Time // zero: never
	id      Identity
}

// staticTokens compares a token with all that there are, in the same time
// whichever it is.
func staticTokens(all []staticToken, token string, now time.Time) (*Identity, error) {
	hash := sha256.Sum256([]byte(token))
	var found *staticToken
	for i := range all {
		if subtle.ConstantTimeCompare(hash[:], all[i].hash[:]) == 1 {
			found = &all[i]
		}
	}
	switch {
	case found == nil:
		return nil, amendsv1.ErrUnauthenticated.With("the token is not known")
	case !found.expires.IsZero() && !now.Before(found.expires):
		return nil, amendsv1.ErrUnauthenticated.With("the token of %s has expired", found.id.Subject)
	}
	return &found.id, nil
}

// secrets are what looks like one: static tokens, their hashes, and JWTs.
var secrets = regexp.MustCompile(tokenPrefix + `[A-Za-z0-9_-]{8,}|[0-9a-fA-F]{64}|eyJ[A-Za-z0-9_.-]{16,}`)

// hideSecrets is for text that somebody may have put a secret into by mistake.
func hideSecrets(s string) string { return secrets.ReplaceAllString(s, "[hidden]") }
