package idempotency

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/dunglas/httpsfv"
)

// Header is the name of the request header.
const Header = "Idempotency-Key"

// MaxKey is the longest key, in bytes.
const MaxKey = 255

var errNoKey = errors.New("the request has no Idempotency-Key")

// keyOf reads the key: an item of a structured field (RFC 9651) that is a string.
// Its parameters mean nothing and are ignored.
func keyOf(h http.Header, unquoted bool) (string, error) {
	lines := h.Values(Header)
	if len(lines) == 0 {
		return "", errNoKey
	}
	key, bare := "", strings.TrimSpace(lines[0])
	if unquoted && len(lines) == 1 && isBare(bare) {
		key = bare
	} else {
		item, err := httpsfv.UnmarshalItem(lines)
		if err != nil {
			return "", fmt.Errorf(`it is not a string of a structured field, as in "8e03978e": %w`, err)
		}
		text, ok := item.Value.(string)
		if !ok {
			return "", errors.New(`it is not a string of a structured field: put it in double quotes, as in "8e03978e"`)
		}
		key = text
	}
	if key == "" {
		return "", errors.New("it is empty: use a random one, such as a UUID")
	}
	if len(key) > MaxKey {
		return "", fmt.Errorf("it is %d bytes long, at most %d are allowed", len(key), MaxKey)
	}
	return key, nil
}

func isBare(s string) bool {
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~:/+=", r)
	}
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !legal(r) })
}

// digest is the SHA-256 of parts, each behind its length, so that no two lists of
// parts are the same bytes.
func digest(parts ...string) []byte {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:]) // never fails
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// fingerprint tells two requests apart. Headers are not part of it: proxies
// reorder them and add their own, and a retry has another date.
func fingerprint(r *http.Request, body []byte) []byte {
	return digest(r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(body))
}
