package auth

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// leeway is how far the clocks of an issuer and of a coordinator may differ.
const leeway = 30 * time.Second

// asymmetric are the algorithms whose verifier holds no secret: with the others,
// a public key taken for a shared one would sign anything.
var asymmetric = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// defaultAlgorithms are what issuers use, unless they say otherwise.
var defaultAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}

// keySet finds the keys that may have signed a token: those of the key id, or
// all of them where the token names none.
type keySet interface {
	find(ctx context.Context, keyID string) ([]jose.JSONWebKey, error)
}

// issuer signs JWTs that are believed.
type issuer struct {
	name          string
	audiences     []string
	algorithms    []jose.SignatureAlgorithm
	keys          keySet
	subjectClaim  string
	subjectPrefix string
	rolesClaim    string
	roles         map[string][]Grant // what a role in the claim stands for; nil: it is a grant
	servicesClaim string
	log           *slog.Logger
}

// looksLikeJWT tells JWTs from static tokens, which have no dots.
func looksLikeJWT(token string) bool { return strings.Count(token, ".") == 2 }

// verifyJWT returns the identity in a token, if one of the issuers has signed it
// for this audience and it is valid now, and when it expires. Errors of the
// library may show what is in a token, so they go nowhere.
func verifyJWT(ctx context.Context, issuers map[string]*issuer, token string) (*Identity, time.Time, error) {
	parsed, err := jwt.ParseSigned(token, asymmetric)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, time.Time{}, amendsv1.ErrUnauthenticated.With("the token is no JWT, or not signed with an asymmetric key")
	}
	var unverified struct {
		Issuer string `json:"iss"`
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&unverified); err != nil {
		return nil, time.Time{}, amendsv1.ErrUnauthenticated.With("the token's claims are no JSON object")
	}
	by := issuers[unverified.Issuer]
	if by == nil {
		return nil, time.Time{}, amendsv1.ErrUnauthenticated.With("the token's issuer is not one that is trusted")
	}
	claims, expires, err := by.verify(ctx, parsed)
	if err != nil {
		return nil, time.Time{}, err
	}
	id, err := by.identity(claims)
	return id, expires, err
}

// verify returns the claims of a token that is signed, and valid now.
func (by *issuer) verify(ctx context.Context, token *jwt.JSONWebToken) (claims map[string]any, expires time.Time, err error) {
	head := token.Headers[0]
	if !slices.Contains(by.algorithms, jose.SignatureAlgorithm(head.Algorithm)) {
		return nil, time.Time{}, amendsv1.ErrUnauthenticated.With("the token is signed with an algorithm that is not allowed for its issuer")
	}
	keys, err := by.keys.find(ctx, head.KeyID)
	if err != nil {
		return nil, time.Time{}, err
	}
	for _, key := range keys {
		if key.Algorithm != "" && key.Algorithm != head.Algorithm {
			continue
		}
		var standard jwt.Claims
		if token.Claims(key.Key, &standard, &claims) == nil {
			return claims, standard.Expiry.Time(), by.valid(&standard)
		}
	}
	return nil, time.Time{}, amendsv1.ErrUnauthenticated.With("the token is not signed with a key of %s", by.name)
}

// valid checks the claims that every token must have.
func (by *issuer) valid(c *jwt.Claims) error {
	if c.Expiry == nil {
		return amendsv1.ErrUnauthenticated.With("the token never expires: it needs the claim exp")
	}
	err := c.ValidateWithLeeway(jwt.Expected{Issuer: by.name, AnyAudience: by.audiences, Time: time.Now()}, leeway)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrExpired):
		return amendsv1.ErrUnauthenticated.With("the token has expired")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return amendsv1.ErrUnauthenticated.With("the token is not for %s", strings.Join(by.audiences, ", "))
	}
	return amendsv1.ErrUnauthenticated.With("the token is not valid yet")
}

// identity makes one of claims. Roles that mean nothing here count for nothing:
// an issuer may put those of others into the same claim.
func (by *issuer) identity(claims map[string]any) (*Identity, error) {
	subject, _ := claims[by.subjectClaim].(string)
	if subject == "" {
		return nil, amendsv1.ErrUnauthenticated.With("the token has no text in the claim %s", by.subjectClaim)
	}
	id := &Identity{Subject: by.subjectPrefix + subject, Services: texts(claims[by.servicesClaim])}
	if err := id.check(); err != nil {
		return nil, amendsv1.ErrUnauthenticated.With("the claim %s: %v", by.subjectClaim, err)
	}
	for _, role := range texts(claims[by.rolesClaim]) {
		if by.roles != nil {
			id.Grants = append(id.Grants, by.roles[role]...)
			continue
		}
		grant, err := ParseGrant(role)
		if err != nil {
			by.log.Debug("auth: a role that means nothing here", "subject", id.Subject, "issuer", by.name)
			continue
		}
		id.Grants = append(id.Grants, grant)
	}
	return id, nil
}

// texts reads a claim of several words: a list, or one text with spaces.
func texts(claim any) []string {
	switch claim := claim.(type) {
	case string:
		return strings.Fields(claim)
	case []any:
		words := make([]string, 0, len(claim))
		for _, v := range claim {
			if s, ok := v.(string); ok {
				words = append(words, s)
			}
		}
		return words
	}
	return nil
}
