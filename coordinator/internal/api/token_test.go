package api

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

var list = listID("transactions", "", "state = RUNNING")

func same(gid string) string { return gid }

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func TestTokens(t *testing.T) {
	for _, p := range []pageToken{
		{Time: noon.Add(time.Microsecond), GID: "Bestellung-é/17"},
		{Time: noon, GID: strings.Repeat("x", 128)},
		{Seq: 1 << 60},
	} {
		token, err := p.encode(list)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeToken(token, list)
		if err != nil || !got.Time.Equal(p.Time) || got.GID != p.GID || got.Seq != p.Seq {
			t.Errorf("%+v became %+v, %v", p, got, err)
		}
	}
}

func TestBadTokens(t *testing.T) {
	good, err := pageToken{Time: noon, GID: "a"}.encode(list)
	if err != nil {
		t.Fatal(err)
	}
	start := `{"v":1,"l":"` + list + `"`
	for token, want := range map[string]string{
		"%%%":                       "not one of ours",
		"YQ":                        "not one of ours",
		good + "=":                  "not one of ours",
		good[:len(good)-3]:          "not one of ours",
		encode(start + `,"x":1}`):   "not one of ours",
		encode(start + `,"s":1}{}`): "not one of ours",
		encode(start + `,"s":-1}`):  "not one of ours",
		encode(start + `,"g":"a"}`): "not one of ours",
		encode(start + `}`):         "not one of ours",
		encode(start + `,"s":3}`):   "not one of ours", // of an event list
		encode(start + `,"g":"a b","t":"2026-11-01T00:00:00Z"}`): "not one of ours",
		encode(`{"v":2,"l":"` + list + `"}`):                     "another version",
		encode(`{"v":1,"l":"0"}`):                                "another list",
		encode(`null`):                                           "another version",
		strings.Repeat("A", 1<<20):                               "ours are shorter",
	} {
		_, err := cursor(token, list, same)
		if !errors.Is(err, amendsv1.ErrPageToken) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %s", token, err, want)
		}
	}
	for name, other := range map[string]string{
		"filter":    listID("transactions", "", "state = PARKED"),
		"namespace": listID("transactions", "acme", "state = RUNNING"),
		"kind":      listID("bulks", "", "state = RUNNING"),
	} {
		if _, err := cursor(good, other, same); !errors.Is(err, amendsv1.ErrPageToken) {
			t.Errorf("a token of another %s: %v", name, err)
		}
	}
	if c, err := cursor(good, list, func(gid string) string { return "key of " + gid }); err != nil || c.GID != "key of a" {
		t.Errorf("%v, %v", c, err)
	}
	if c, err := cursor("", list, same); c != nil || err != nil {
		t.Errorf("no token: %v, %v", c, err)
	}
}

func FuzzPageToken(f *testing.F) {
	for _, p := range []pageToken{{Time: noon, GID: "a"}, {Seq: 7}} {
		token, err := p.encode(list)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
	}
	f.Add("")
	f.Add(encode(`{"v":1,"l":"` + list + `","t":"9999-12-31T23:59:59+23:59","g":"\u0000"}`))
	f.Add("AAAA%")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := decodeToken(token, list)
		if err != nil {
			if !errors.Is(err, amendsv1.ErrPageToken) {
				t.Errorf("%q: %v is no ErrPageToken", token, err)
			}
			return
		}
		again, err := p.encode(list)
		if err != nil {
			t.Fatalf("%q was taken and cannot be made: %v", token, err)
		}
		if q, err := decodeToken(again, list); err != nil || !q.Time.Equal(p.Time) || q.GID != p.GID || q.Seq != p.Seq {
			t.Errorf("%q: %+v became %+v, %v", token, p, q, err)
		}
	})
}
