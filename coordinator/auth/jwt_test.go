package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const iss = "https://login.example.com"

// keyring are an issuer's private keys, and their public halves.
type keyring struct {
	ec    *ecdsa.PrivateKey
	rsa   *rsa.PrivateKey
	ed    ed25519.PrivateKey
	other *ecdsa.PrivateKey // in no set
}

func newKeyring(t testing.TB) *keyring {
	t.Helper()
	k := &keyring{}
	var errs [4]error
	k.ec, errs[0] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.other, errs[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.rsa, errs[2] = rsa.GenerateKey(rand.Reader, minRSABits)
	_, k.ed, errs[3] = ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return k
}

func jwks(t testing.TB, keys ...jose.JSONWebKey) string {
	t.Helper()
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (k *keyring) set(t testing.TB) string {
	t.Helper()
	return jwks(t,
		jose.JSONWebKey{Key: k.ec.Public(), KeyID: "ec", Algorithm: "ES256", Use: "sig"},
		jose.JSONWebKey{Key: k.rsa.Public(), KeyID: "rsa", Algorithm: "RS256"},
		jose.JSONWebKey{Key: k.ed.Public(), KeyID: "ed"},
		jose.JSONWebKey{Key: k.other.Public(), KeyID: "enc", Use: "enc"})
}

func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opts = opts.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// claims are good ones, changed by changes; nil takes one out.
func claims(changes map[string]any) map[string]any {
	now := time.Now()
	all := map[string]any{
		"iss": iss, "aud": "amends", "sub": "alice@example.com", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"amends_roles": []string{"operator@shop", "something else", "viewer@*"},
	}
	maps.Copy(all, changes)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// trusting opens a file with one issuer, whose entry is changed by changes.
func trusting(t testing.TB, k *keyring, changes map[string]any) *File {
	t.Helper()
	dir := t.(interface{ TempDir() string }).TempDir()
	entry := map[string]any{"issuer": iss, "audiences": []string{"amends", "amends-cli"}, "jwks_file": "keys.json"}
	maps.Copy(entry, changes)
	doc, err := json.Marshal(map[string]any{"issuers": []any{entry}})
	if err != nil {
		t.Fatal(err)
	}
	return openFile(t, dir, string(doc), map[string]string{"keys.json": k.set(t)})
}

func TestJWT(t *testing.T) {
	k := newKeyring(t)
	f := trusting(t, k, nil)
	want := &Identity{Subject: "alice@example.com", Grants: []Grant{{"shop", operator}, {"*", viewer}}}
	for name, token := range map[string]string{
		"ES256":           sign(t, jose.ES256, k.ec, "ec", claims(nil)),
		"RS256":           sign(t, jose.RS256, k.rsa, "rsa", claims(nil)),
		"EdDSA":           sign(t, jose.EdDSA, k.ed, "ed", claims(nil)),
		"no key id":       sign(t, jose.ES256, k.ec, "", claims(nil)),
		"other audience":  sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"aud": []string{"x", "amends-cli"}})),
		"clocks differ":   sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"exp": time.Now().Add(-leeway / 2).Unix()})),
		"roles as a text": sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"amends_roles": "operator@shop admin viewer@*"})),
	} {
		id, err := f.Authenticate(t.Context(), Credentials{Token: token})
		if err != nil || id.Subject != want.Subject || !reflect.DeepEqual(id.Grants, want.Grants) || len(id.Services) != 0 {
			t.Errorf("%s: %+v, %v, want %+v", name, id, err, want)
		}
	}
}

// TestForgedJWT: what must not be believed, however it is made.
func TestForgedJWT(t *testing.T) {
	k := newKeyring(t)
	f := trusting(t, k, nil)
	good := sign(t, jose.ES256, k.ec, "ec", claims(nil))
	head, rest, _ := strings.Cut(good, ".")
	body, signature, _ := strings.Cut(rest, ".")
	encode := func(v string) string { return base64.RawURLEncoding.EncodeToString([]byte(v)) }
	published, err := json.Marshal(k.rsa.Public())
	if err != nil {
		t.Fatal(err)
	}
	forged := map[string]string{
		"no signature":         head + "." + body + ".",
		"alg none":             encode(`{"alg":"none"}`) + "." + body + ".",
		"alg none, signed":     encode(`{"alg":"none"}`) + "." + body + "." + signature,
		"other body":           head + "." + encode(`{"iss":"`+iss+`","aud":"amends","sub":"root","exp":9999999999}`) + "." + signature,
		"body is no object":    head + "." + encode(`7`) + "." + signature,
		"signature of another": sign(t, jose.ES256, k.other, "ec", claims(nil)),
		"without key id":       sign(t, jose.ES256, k.other, "", claims(nil)),
		"unknown key":          sign(t, jose.ES256, k.other, "nobody's", claims(nil)),
		"encryption key":       sign(t, jose.ES256, k.other, "enc", claims(nil)),
		"HS256, public key":    sign(t, jose.HS256, published, "rsa", claims(nil)),
		"key of another alg":   sign(t, jose.RS512, k.rsa, "rsa", claims(nil)),
		"crossed keys":         sign(t, jose.ES256, k.ec, "rsa", claims(nil)),
		"embedded key":         embedded(t, k),
		"other issuer":         sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"iss": "https://evil.example.com"})),
		"no issuer":            sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"iss": nil})),
		"other audience":       sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"aud": "billing"})),
		"no audience":          sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"aud": nil})),
		"expired":              sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})),
		"never expires":        sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"exp": nil})),
		"expires in words":     sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"exp": "tomorrow"})),
		"not yet":              sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"nbf": time.Now().Add(time.Minute).Unix()})),
		"issued tomorrow":      sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"iat": time.Now().Add(24 * time.Hour).Unix()})),
		"no subject":           sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"sub": nil})),
		"subject is a number":  sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"sub": 7})),
		"coordinator's own":    sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"sub": "in-process"})),
		"subject of two lines": sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"sub": "a\nlevel=INFO"})),
	}
	for name, token := range forged {
		if id, err := f.Authenticate(t.Context(), Credentials{Token: token}); !errors.Is(err, amendsv1.ErrUnauthenticated) || id != nil {
			t.Errorf("%s: %+v, %v, want ErrUnauthenticated", name, id, err)
		}
	}
	if id, err := f.Authenticate(t.Context(), Credentials{Token: good}); err != nil {
		t.Errorf("the good one: %+v, %v", id, err)
	}
}

// embedded is a token that brings the key that it is to be checked with.
func embedded(t testing.TB, k *keyring) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: k.other}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims(nil)).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestClaims(t *testing.T) {
	k := newKeyring(t)
	for _, c := range []struct {
		name   string
		entry  map[string]any
		claims map[string]any
		want   Identity
	}{
		{"other names", map[string]any{"subject_claim": "email", "roles_claim": "https://x/roles", "services_claim": "svc"},
			map[string]any{"email": "a@x", "https://x/roles": []string{"service"}, "svc": []string{"accounts"}},
			Identity{Subject: "a@x", Grants: []Grant{{"", service}}, Services: []string{"accounts"}}},
		{"groups", map[string]any{"roles_claim": "groups", "roles": map[string]any{"ops": []string{"operator@shop", "viewer@bank"}}},
			map[string]any{"groups": []any{"ops", "break-glass@*", 7, nil}},
			Identity{Subject: "alice@example.com", Grants: []Grant{{"shop", operator}, {"bank", viewer}}}},
		{"prefix", map[string]any{"subject_prefix": "corp:"}, map[string]any{"amends_roles": nil},
			Identity{Subject: "corp:alice@example.com"}},
		{"odd roles", nil, map[string]any{"amends_roles": map[string]any{"a": 1}}, Identity{Subject: "alice@example.com"}},
	} {
		token := sign(t, jose.ES256, k.ec, "ec", claims(c.claims))
		id, err := trusting(t, k, c.entry).Authenticate(t.Context(), Credentials{Token: token})
		if err != nil || !reflect.DeepEqual(*id, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, id, err, c.want)
		}
	}
}

// TestAlgorithms: an issuer may be held to fewer.
func TestAlgorithms(t *testing.T) {
	k := newKeyring(t)
	f := trusting(t, k, map[string]any{"algorithms": []string{"EdDSA"}})
	for alg, key := range map[jose.SignatureAlgorithm]crypto.PrivateKey{jose.ES256: k.ec, jose.EdDSA: k.ed} {
		_, err := f.Authenticate(t.Context(), Credentials{Token: sign(t, alg, key, "", claims(nil))})
		if (err == nil) != (alg == jose.EdDSA) {
			t.Errorf("%s: %v", alg, err)
		}
	}
	f = trusting(t, k, map[string]any{"algorithms": []string{"RS256", "RS512"}})
	if _, err := f.Authenticate(t.Context(), Credentials{Token: sign(t, jose.RS512, k.rsa, "rsa", claims(nil))}); err == nil {
		t.Error("a key was used for an algorithm that it is not for")
	}
}

// TestVerifiedOnce: a token that comes again is not verified again for a minute,
// nor believed for longer than it is valid, nor after the file has changed.
func TestVerifiedOnce(t *testing.T) {
	k := newKeyring(t)
	synctest.Test(t, func(t *testing.T) {
		f := trusting(t, k, nil)
		token := func(d time.Duration) string {
			return sign(t, jose.EdDSA, k.ed, "ed", claims(map[string]any{"exp": time.Now().Add(d).Unix()}))
		}
		short, long := token(10*time.Second), token(time.Hour)
		believed := func(when, token string, want bool) {
			t.Helper()
			if id, err := f.Authenticate(context.Background(), Credentials{Token: token}); (id != nil) != want || (err == nil) != want {
				t.Errorf("%s: %+v, %v", when, id, err)
			}
		}
		believed("short", short, true)
		believed("long", long, true)
		in := f.content.get()
		issuers := in.issuers
		in.issuers = nil // from here on nothing can be verified
		believed("long, again", long, true)
		believed("short, again", short, true)
		believed("changed", long+"A", false)
		time.Sleep(10*time.Second + leeway)
		believed("short, expired", short, false)
		believed("long, later", long, true)
		time.Sleep(verifiedFor)
		believed("long, a minute later", long, false)
		in.issuers = issuers
		believed("long, verified again", long, true)
		for i := range maxVerified + 10 {
			in.verified.keep(sha256.Sum256([]byte{byte(i), byte(i >> 8)}), &Identity{}, time.Now().Add(time.Hour))
		}
		if n := len(in.verified.tokens); n > maxVerified {
			t.Errorf("%d tokens are kept", n)
		}
	})
}
