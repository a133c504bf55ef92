package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/metadata"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// FuzzToken: whatever stands for a token, only those that are good are taken,
// and each as what it is.
func FuzzToken(f *testing.F) {
	k, token := newKeyring(f), NewToken()
	dir := f.TempDir()
	file := openFile(f, dir, `{"tokens": [{"subject": "ann", "grants": ["viewer"], "sha256": "`+HashToken(token)+`"}],
		"issuers": [{"issuer": "`+iss+`", "audiences": ["amends"], "jwks_file": "keys.json"}]}`, map[string]string{"keys.json": k.set(f)})
	f.Add(token)
	f.Add(sign(f, jose.ES256, k.ec, "ec", claims(nil)))
	f.Add(sign(f, jose.RS256, k.rsa, "", claims(nil)))
	f.Add(sign(f, jose.EdDSA, k.ed, "ed", claims(nil)))
	f.Add(embedded(f, k))
	f.Fuzz(func(t *testing.T, s string) {
		id, err := file.Authenticate(context.Background(), Credentials{Token: s})
		switch {
		case s == "":
		case err != nil && (id != nil || !errors.Is(err, amendsv1.ErrUnauthenticated)):
			t.Fatalf("%q: %+v, %v", s, id, err)
		case err == nil && id.Subject == "ann" && s != token:
			t.Fatalf("%q is taken for the token", s)
		case err == nil && id.Subject != "ann" && id.Subject != "alice@example.com":
			t.Fatalf("%q is taken for %+v", s, id)
		}
	})
}

// FuzzClaims: of what an issuer has signed, only what is for us and now counts.
func FuzzClaims(f *testing.F) {
	k := newKeyring(f)
	file := trusting(f, k, map[string]any{"audiences": []string{"amends"}})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: k.ed}, nil)
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(claims(map[string]any{"exp": int64(1) << 40}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, payload []byte) {
		signed, err := signer.Sign(payload)
		if err != nil {
			return // not what is fuzzed
		}
		token, err := signed.CompactSerialize()
		if err != nil {
			return // not what is fuzzed
		}
		id, err := file.Authenticate(context.Background(), Credentials{Token: token})
		if err != nil {
			return
		}
		var c struct {
			Iss string  `json:"iss"`
			Aud any     `json:"aud"`
			Sub string  `json:"sub"`
			Exp float64 `json:"exp"`
		}
		if err := json.Unmarshal(payload, &c); err != nil {
			t.Fatalf("%s is taken and is not JSON: %v", payload, err)
		}
		if c.Iss != iss || !slices.Contains(texts(c.Aud), "amends") && c.Aud != "amends" ||
			c.Exp < float64(time.Now().Add(-2*leeway).Unix()) || c.Sub != id.Subject || id.check() != nil {
			t.Fatalf("%s is taken for %+v", payload, id)
		}
		checkGrants(t, id.Grants)
	})
}

func checkGrants(t *testing.T, grants []Grant) {
	t.Helper()
	for _, g := range grants {
		if again, err := ParseGrant(g.String()); err != nil || again != g {
			t.Fatalf("grant %+v: %+v, %v", g, again, err)
		}
	}
}

// FuzzFile: a file is understood or refused, and the refusal shows no secret.
func FuzzFile(f *testing.F) {
	dir := f.TempDir()
	for _, text := range []string{
		withToken("ann", "one", `, "expires": "2030-01-01T00:00:00Z"`),
		`{"certificates": [{"uri": "spiffe://x/y", "subject": "s", "grants": ["service@shop"], "services": ["*"]}]}`,
		`{"issuers": [{"issuer": "https://x", "audiences": ["a"], "jwks_url": "https://x/k", "roles": {"ops": ["operator@*"]}, "algorithms": ["ES256"]}]}`,
		`{"tokens": [{"subject": "ann", "grants": ["` + NewToken() + `"], "sha256": "` + NewToken() + `"}]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseFile(data, dir, quiet)
		if err != nil {
			if text := err.Error(); hideSecrets(text) != text && !strings.Contains(text, "jwks_file") {
				t.Fatalf("%s\nshows a secret: %s", data, text)
			}
			return
		}
		if len(c.tokens)+len(c.certificates)+len(c.issuers) == 0 {
			t.Fatalf("%s is empty", data)
		}
		for _, token := range c.tokens {
			checkGrants(t, token.id.Grants)
			if err := token.id.check(); err != nil || len(token.id.Grants) == 0 {
				t.Fatalf("%s: %+v: %v", data, token.id, err)
			}
		}
		for name, by := range c.issuers {
			if name == "" || len(by.audiences) == 0 || len(by.algorithms) == 0 || by.keys == nil {
				t.Fatalf("%s: %+v", data, by)
			}
		}
	})
}

// FuzzHeaders: metadata from anywhere.
func FuzzHeaders(f *testing.F) {
	f.Add("Bearer "+NewToken(), "shop")
	f.Add("bearer  x", "")
	f.Add("Basic dTpw", "*")
	f.Fuzz(func(t *testing.T, header, namespace string) {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.MD{"authorization": {header}, amendsv1.NamespaceHeader: {namespace}})
		c, err := credentialsOf(ctx)
		if err == nil && (c.Token == "" || strings.ContainsAny(c.Token, " \r\n\x00") || !strings.HasSuffix(header, c.Token)) {
			t.Fatalf("%q: token %q", header, c.Token)
		}
		got, nsErr := namespaceOf(ctx, &Identity{Subject: "x"})
		if nsErr == nil && (got != namespace || amendsv1.CheckNamespace(got) != nil || len(got) > amendsv1.MaxNamespace) {
			t.Fatalf("%q: namespace %q", namespace, got)
		}
		if _, secret, _ := strings.Cut(header, " "); len(secret) > 24 && strings.Contains(fmt.Sprint(err, nsErr), secret) {
			t.Fatalf("%q is in %v, %v", secret, err, nsErr)
		}
	})
}

// FuzzGrant: what is read is written as it was.
func FuzzGrant(f *testing.F) {
	for _, s := range []string{"viewer", "operator@shop", "break-glass@*", "service@a-1", "viewer@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if g, err := ParseGrant(s); err == nil && g.String() != s {
			t.Fatalf("%q is read as %+v, written %q", s, g, g)
		}
	})
}

// FuzzKeys: what is fetched from an issuer.
func FuzzKeys(f *testing.F) {
	k := newKeyring(f)
	f.Add([]byte(k.set(f)))
	f.Add([]byte(jwks(f, jose.JSONWebKey{Key: k.ec, KeyID: "private"})))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if err == nil && len(keys) == 0 {
			t.Fatal("no keys and no error")
		}
		for i := range keys {
			if !keys[i].IsPublic() || !keys[i].Valid() {
				t.Fatalf("key %d: %+v", i, keys[i])
			}
		}
	})
}
