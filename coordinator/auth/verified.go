package auth

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

// Verifying a signature costs as much as all the rest of a request, so a token
// that was good is believed for a while.
const (
	verifiedFor = time.Minute
	maxVerified = 4096
)

// verifiedJWTs are those that were verified a moment ago, by their hash.
type verifiedJWTs struct {
	mu     sync.Mutex
	tokens map[[sha256.Size]byte]verifiedJWT
}

type verifiedJWT struct {
	id    *Identity
	until time.Time
}

func (v *verifiedJWTs) identity(ctx context.Context, issuers map[string]*issuer, token string) (*Identity, error) {
	hash := sha256.Sum256([]byte(token))
	v.mu.Lock()
	known, ok := v.tokens[hash]
	v.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.id, nil
	}
	id, expires, err := verifyJWT(ctx, issuers, token)
	if err == nil {
		v.keep(hash, id, expires)
	}
	return id, err
}

func (v *verifiedJWTs) keep(hash [sha256.Size]byte, id *Identity, expires time.Time) {
	until := time.Now().Add(verifiedFor)
	if expires.Before(until) {
		until = expires
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.tokens == nil || len(v.tokens) >= maxVerified {
		v.tokens = map[[sha256.Size]byte]verifiedJWT{} // what is in use comes back at once
	}
	v.tokens[hash] = verifiedJWT{id: id, until: until}
}
