package auth

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// openFile opens a file of a folder with others beside it.
func openFile(t testing.TB, dir, text string, beside map[string]string) *File {
	t.Helper()
	for name, text := range beside {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "auth.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func withToken(subject, token, more string) string {
	return `{"tokens": [{"subject": "` + subject + `", "grants": ["operator@shop"], "sha256": "` + HashToken(token) + `"` + more + `}]}`
}

func TestStaticTokens(t *testing.T) {
	one, two, old := NewToken(), NewToken(), NewToken()
	if len(one) != len(tokenPrefix)+43 || one == two {
		t.Fatalf("%q, %q", one, two)
	}
	f := openFile(t, t.TempDir(), `{"tokens": [
		{"subject": "ann", "grants": ["operator@shop", "viewer@*"], "sha256": "`+strings.ToUpper(HashToken(one))+`", "expires": "2999-01-01T00:00:00Z"},
		{"subject": "accounts", "grants": ["service"], "services": ["accounts"], "sha256": "`+HashToken(two)+`"},
		{"subject": "bob", "grants": ["viewer"], "sha256": "`+HashToken(old)+`", "expires": "2001-01-01T00:00:00Z"}
	]}`, nil)
	for token, want := range map[string]*Identity{
		one:              {Subject: "ann", Grants: []Grant{{"shop", operator}, {"*", viewer}}},
		two:              {Subject: "accounts", Grants: []Grant{{"", service}}, Services: []string{"accounts"}},
		old:              nil,
		NewToken():       nil,
		one + "x":        nil,
		one[:10]:         nil,
		HashToken(one):   nil, // who reads the file has no token
		tokenPrefix:      nil,
		"a.b.c":          nil,
		"...":            nil,
		"eyJ.eyJ.x":      nil,
		"\x00\xff\n,\"'": nil,
	} {
		id, err := f.Authenticate(t.Context(), Credentials{Token: token})
		if want == nil && (!errors.Is(err, amendsv1.ErrUnauthenticated) || id != nil) || want != nil && !reflect.DeepEqual(id, want) {
			t.Errorf("%q: %+v, %v, want %+v", token, id, err, want)
		}
	}
	if id, err := f.Authenticate(t.Context(), Credentials{}); id != nil || err != nil {
		t.Errorf("nothing: %+v, %v", id, err)
	}
}

func TestCertificates(t *testing.T) {
	f := openFile(t, t.TempDir(), `{"certificates": [
		{"uri": "spiffe://example.org/accounts", "subject": "accounts", "grants": ["service"], "services": ["accounts"]},
		{"dns": "ops.example.org", "subject": "ops", "grants": ["operator"]},
		{"cn": "ann", "subject": "ann@example.org", "grants": ["viewer"]}
	]}`, nil)
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return []*url.URL{u}
	}
	until := time.Now().Add(time.Hour)
	for _, c := range []struct {
		cert x509.Certificate
		want string
	}{
		{x509.Certificate{NotAfter: until, URIs: uri("spiffe://example.org/accounts")}, "accounts"},
		{x509.Certificate{NotAfter: until, URIs: uri("spiffe://example.org/accounts/x")}, ""},
		{x509.Certificate{NotAfter: until, URIs: uri("spiffe://evil.org/accounts")}, ""},
		{x509.Certificate{NotAfter: until, DNSNames: []string{"x", "ops.example.org"}}, "ops"},
		{x509.Certificate{NotAfter: until, DNSNames: []string{"*.example.org"}}, ""},
		{x509.Certificate{NotAfter: until, Subject: pkix.Name{CommonName: "ann"}}, "ann@example.org"},
		{x509.Certificate{NotAfter: until, Subject: pkix.Name{CommonName: "ops.example.org"}}, ""},
		{x509.Certificate{NotAfter: until, DNSNames: []string{"ann"}}, ""},
		{x509.Certificate{NotAfter: until}, ""},
		{x509.Certificate{NotAfter: time.Now().Add(-time.Second), Subject: pkix.Name{CommonName: "ann"}}, ""},
	} {
		id, err := f.Authenticate(t.Context(), Credentials{Certificate: &c.cert})
		if c.want == "" && !errors.Is(err, amendsv1.ErrUnauthenticated) || c.want != "" && (id == nil || id.Subject != c.want) {
			t.Errorf("%v %v %v: %+v, %v, want %q", c.cert.URIs, c.cert.DNSNames, c.cert.Subject, id, err, c.want)
		}
	}
}

// TestReload: a change counts a second later; one that cannot be read does not,
// and is said once.
func TestReload(t *testing.T) {
	dir, log := t.TempDir(), &logged{}
	path := write(t, dir, "auth.json", withToken("ann", "one", ""))
	synctest.Test(t, func(t *testing.T) {
		f, err := OpenFile(path, log.logger())
		if err != nil {
			t.Fatal(err)
		}
		knows := func(token string) bool {
			time.Sleep(reloadEvery)
			id, _ := f.Authenticate(context.Background(), Credentials{Token: token}) // nil is the answer
			return id != nil
		}
		step := func(name string, one, two bool) {
			t.Helper()
			if gotOne, gotTwo := knows("one"), knows("two"); gotOne != one || gotTwo != two {
				t.Errorf("%s: knows one %v, two %v", name, gotOne, gotTwo)
			}
		}
		step("at first", true, false)
		write(t, dir, "auth.json", withToken("bobby", "two", ""))
		step("changed", false, true)
		write(t, dir, "auth.json", `{"tokens": [`)
		step("broken", false, true)
		if err := os.Rename(write(t, dir, "next", withToken("ann", "one", "")), path); err != nil {
			t.Fatal(err)
		}
		step("replaced", true, false)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		step("gone", true, false)
		if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
			t.Errorf("%d errors in the log, want 2:\n%s", n, log)
		}
	})
}

// TestWrongFiles: every mistake is named, and none of what might be a secret.
func TestWrongFiles(t *testing.T) {
	secret := NewToken()
	id := `"subject": "ann", "grants": ["viewer"]`
	issuer := `"issuer": "https://x", "audiences": ["amends"]`
	for text, want := range map[string]string{
		``:                               "EOF",
		`[]`:                             "cannot unmarshal array",
		`{}`:                             "nobody could call",
		`{"tokens": []} {}`:              "more after",
		`{"token": []}`:                  `unknown field "token"`,
		`{"` + secret + `": 1}`:          `unknown field "[hidden]"`,
		`{"tokens": ["` + secret + `"]}`: "cannot unmarshal string",
		`{"tokens": [{` + id + `}]}`:     "tokens[0]: sha256: want the 64",
		`{"tokens": [{` + id + `, "sha256": "` + secret + `"}]}`:                                                           "never the token",
		`{"tokens": [{` + id + `, "sha256": "` + HashToken("x") + `00"}]}`:                                                 "want the 64",
		`{"tokens": [{` + id + `, "sha256": "` + strings.Repeat("ä", 32) + `"}]}`:                                          "want the 64",
		`{"tokens": [{` + id + `, "sha256": "` + HashToken("x") + `"}, {` + id + `, "sha256": "` + HashToken("x") + `"}]}`: "tokens[1]: sha256: the same token",
		`{"tokens": [{"sha256": "` + HashToken("x") + `"}]}`:                                                               "the subject is empty\ngrants is empty",
		`{"tokens": [{"subject": "in-process", "grants": ["viewer"], "sha256": "` + HashToken("x") + `"}]}`:                "coordinator's own",
		`{"tokens": [{"subject": "a", "grants": ["admin", "` + secret + `"], "sha256": "` + HashToken("x") + `"}]}`:        `grant "admin"`,
		`{"tokens": [{"subject": "a", "grants": ["viewer"], "services": ["", "b"], "sha256": "` + HashToken("x") + `"}]}`:  "services count only with",
		`{"tokens": [{"subject": "a", "grants": ["viewer"], "expires": "tomorrow", "sha256": "` + HashToken("x") + `"}]}`:  "parsing time",
		`{"certificates": [{` + id + `}]}`:                                                                                 "certificates[0]: want one of uri",
		`{"certificates": [{` + id + `, "uri": "a", "cn": "b"}]}`:                                                          "want one of uri",
		`{"certificates": [{` + id + `, "cn": "b"}, {` + id + `, "cn": "b"}]}`:                                             "certificates[1]: the same name",
		`{"issuers": [{}]}`: "issuer is empty",
		`{"issuers": [{"issuer": "https://x", "jwks_url": "https://x/keys"}]}`:                                                    "audiences: want",
		`{"issuers": [{` + issuer + `, "jwks_file": "keys.json", "jwks_url": "https://x/k"}]}`:                                    "jwks_file and jwks_url: want one",
		`{"issuers": [{"issuer": "http://x", "audiences": ["amends"]}]}`:                                                          "issuer: want https, not http, to discover",
		`{"issuers": [{"issuer": "https://u:hunter2@x", "audiences": ["amends"]}]}`:                                               "without a user",
		`{"issuers": [{"issuer": "accounts", "audiences": ["amends"]}]}`:                                                          "issuer: want https",
		`{"payloads": {"roles": ["root", "service"], "redact": ["card", "a..b", ""]}}`:                                            "payloads: roles[0]: \"root\" is none: want viewer, operator or break-glass\nredact[1]: want the name of a field, or a path of names with dots between\nredact[2]",
		`{"payloads": {"roles": ["service"]}}`:                                                                                    "a service sees no payloads but its own",
		`{"payloads": {"shown": []}}`:                                                                                             "unknown field",
		`{"quotas": {"shop": {"live": -1, "starts_per_second": -2, "burst": -3}}}`:                                                "quotas[\"shop\"]: live is -1: want 1 or more, or leave it out\nstarts_per_second is -2: want more than 0, or leave it out\nburst is -3",
		`{"quotas": {"shop": {"burst": 3}}}`:                                                                                      "with starts_per_second",
		`{"quotas": {"Shop!": {"live": 3}}}`:                                                                                      "quotas[\"Shop!\"]",
		`{"quotas": {"shop": {"lives": 3}}}`:                                                                                      "unknown field",
		`{"issuers": [{` + issuer + `, "jwks_file": "absent.json"}]}`:                                                             "absent.json",
		`{"issuers": [{` + issuer + `, "jwks_file": "keys.json"}]}`:                                                               "no key in it",
		`{"issuers": [{` + issuer + `, "jwks_url": "http://x/keys"}]}`:                                                            "want https",
		`{"issuers": [{` + issuer + `, "jwks_url": "https://u:hunter2@x/keys"}]}`:                                                 "without a user",
		`{"issuers": [{` + issuer + `, "jwks_url": "x"}]}`:                                                                        "jwks_url: want",
		`{"issuers": [{` + issuer + `, "jwks_url": "https://x/k", "algorithms": ["HS256"]}]}`:                                     `algorithms: "HS256"`,
		`{"issuers": [{` + issuer + `, "jwks_url": "https://x/k", "roles": {"a": ["root"]}}]}`:                                    `grant "root"`,
		`{"issuers": [{` + issuer + `, "jwks_url": "https://x/k"}, {` + issuer + `, "jwks_url": "http://127.0.0.1:80/k"}]}`:       "issuers[1]: the same issuer",
		`{"issuers": [{` + issuer + `, "jwks_url": "https://x/k"}], "tokens": [{` + id + `}], "certificates": [{` + id + `}]}`:    "tokens[0]",
		`{"tokens": [{` + id + `, "sha256": 7}]}`:                                                                                 "cannot unmarshal number",
		`{"tokens": [{"subject": "` + strings.Repeat("a", 257) + `", "grants": ["viewer"], "sha256": "` + HashToken("x") + `"}]}`: "257 bytes",
	} {
		dir := t.TempDir()
		write(t, dir, "keys.json", `{"keys":[]}`)
		_, err := OpenFile(write(t, dir, "auth.json", text), quiet)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, want %q", text, err, want)
		} else if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s\nthe error shows the secret: %v", text, err)
		}
	}
	if _, err := OpenFile(filepath.Join(t.TempDir(), "absent"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := OpenFile(write(t, t.TempDir(), "big", strings.Repeat(" ", maxFile+1)), nil); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("big: %v", err)
	}
}

// TestDocumentedFile: the file in docs/security.md is one.
func TestDocumentedFile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "```json\n")
	doc, _, _ := strings.Cut(after, "```")
	c, err := parseFile([]byte(doc), t.TempDir(), quiet)
	if err != nil || len(c.tokens) != 2 || len(c.certificates) != 1 || len(c.issuers) != 1 {
		t.Errorf("%v\n%s", err, doc)
	}
}
