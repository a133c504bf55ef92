package sealedstore_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amends-dev/amends/coordinator/store/sealedstore"
)

func TestWrongKeys(t *testing.T) {
	zero := base64.StdEncoding.EncodeToString(make([]byte, 32))
	short := base64.StdEncoding.EncodeToString(make([]byte, 16))
	for text, want := range map[string]string{
		"":                                  "want {",
		"x":                                 "no JSON",
		"{}":                                "there is none",
		file():                              "there is none",
		file("a") + "x":                     "follows",
		`{"keys": [], "more": 1}`:           "nothing else",
		`{"keys": [{"id": "a", "key": 5}]}`: "another type",
		`{"keys": [{"id": "a", "key": "` + secret("a") + `x"}]}`: "keys[0]: key is no base64",
		`{"keys": [{"id": "a", "key": "` + short + `"}]}`:        "key is 16 bytes long, want 32",
		`{"keys": [{"id": "a", "key": "` + zero + `"}]}`:         "one byte repeated",
		file("a", "b", "a"): `keys[2]: id "a" is there twice`,
		strings.Replace(file("a", "b"), secret("b"), secret("a"), 1): `keys[1]: id "b" has the key of id "a"`,
		file(""):                               "keys[0]: id",
		file("a b"):                            "keys[0]: id",
		file(strings.Repeat("xy", 17)):         "keys[0]: id",
		file("a") + strings.Repeat(" ", 1<<20): "over 1048576 bytes",
		`{"keys": [{"id": "a", "key": "` + short + `"}, {"id": "b", "key": "Zm9v"}]}`: "keys[1]",
	} {
		_, err := sealedstore.ParseKeys([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: error %v, want %q", text, err, want)
			continue
		}
		if strings.Contains(err.Error(), secret("a")[:8]) {
			t.Errorf("the error quotes a key: %v", err)
		}
	}
}

func TestReadKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	if _, err := sealedstore.ReadKeys(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("no file: %v", err)
	}
	for text, want := range map[string]string{file("a", "b"): "", "{": path} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := sealedstore.ReadKeys(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil {
			continue
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			if s := fmt.Sprintf(verb, k); strings.Contains(s, "k3y") || strings.Contains(s, "6b3379") {
				t.Errorf("%s shows the keys: %s", verb, s)
			}
		}
	}
}
