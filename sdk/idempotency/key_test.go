package idempotency

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	long := strings.Repeat("x", MaxKey)
	for _, c := range []struct {
		name     string
		lines    []string
		unquoted bool
		want     string // "": refused
	}{
		{"string", []string{`"8e03978e-40d5"`}, false, "8e03978e-40d5"},
		{"spaces around", []string{`  "a b" `}, false, "a b"},
		{"escapes", []string{`"a\"\\"`}, false, `a"\`},
		{"parameters", []string{`"a";v=1;w`}, false, "a"},
		{"longest", []string{`"` + long + `"`}, false, long},
		{"too long", []string{`"` + long + `x"`}, false, ""},
		{"empty", []string{`""`}, false, ""},
		{"nothing", []string{``}, false, ""},
		{"token", []string{`abc`}, false, ""},
		{"number", []string{`12`}, false, ""},
		{"two lines", []string{`"a"`, `"b"`}, false, ""},
		{"list", []string{`"a", "b"`}, false, ""},
		{"no end", []string{`"a`}, false, ""},
		{"bytes that are no text", []string{"\"a\x80\""}, false, ""},
		{"control characters", []string{"\"a\x01\""}, false, ""},
		{"bad escape", []string{`"\n"`}, false, ""},
		{"unquoted", []string{`8e03978e-40d5`}, true, "8e03978e-40d5"},
		{"unquoted number", []string{`12`}, true, "12"},
		{"quoted where that is optional", []string{`"abc"`}, true, "abc"},
		{"unquoted with other characters", []string{`a b`}, true, ""},
		{"unquoted, two lines", []string{`a`, `b`}, true, ""},
	} {
		got, err := keyOf(http.Header{Header: c.lines}, c.unquoted)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, seed := range []string{`"a"`, `"a";b=1`, `a`, "\"\x00\"", `"\`} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, line string, unquoted bool) {
		key, err := keyOf(http.Header{Header: {line}}, unquoted)
		if (err == nil) != (key != "") || len(key) > MaxKey {
			t.Errorf("%q: %q, %v", line, key, err)
		}
	})
}

func TestDigestsKeepPartsApart(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{{"a", "bc"}, {"ab", "c"}, {"abc"}, {"", "abc"}, {"abc", ""}, {}, {""}, {"a", "b", "c"}} {
		d := string(digest(parts...))
		if other, ok := seen[d]; ok {
			t.Errorf("%q and %q have one digest", parts, other)
		}
		seen[d] = parts
	}
}

func TestFingerprints(t *testing.T) {
	of := func(method, target, body string, headers ...string) []byte {
		r := httptest.NewRequest(method, target, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Add(headers[i], headers[i+1])
		}
		return fingerprint(r, []byte(body))
	}
	base := of("POST", "/a?x=1", "body", "A", "1", "B", "2")
	if !bytes.Equal(base, of("POST", "/a?x=1", "body", "B", "2", "A", "1", "Date", "today")) {
		t.Error("headers and their order make another request")
	}
	for name, other := range map[string][]byte{
		"method": of("PATCH", "/a?x=1", "body"), "path": of("POST", "/b?x=1", "body"), "query": of("POST", "/a?x=2", "body"),
		"body": of("POST", "/a?x=1", "body2"), "none": of("POST", "/a?x=1", ""), "between": of("POST", "/a", "x=1body"),
		"escaped path": of("POST", "/%61?x=1", "body"),
	} {
		if bytes.Equal(base, other) {
			t.Errorf("another %s is the same request", name)
		}
	}
}
