package amendsv1_test

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/amends-dev/amends/proto/amends/v1"
)

// TestAuditHash holds the digest of trails that exist: it never changes.
func TestAuditHash(t *testing.T) {
	at := time.UnixMicro(1_700_000_000_000_001)
	hash := func(prev []byte, namespace, gid string, seq int64, at time.Time, kind, data string) string {
		return hex.EncodeToString(amendsv1.AuditHash(prev, namespace, gid, seq, at, kind, []byte(data)))
	}
	want := hash(nil, "", "g", 1, at, "started", `{}`)
	if known := "94e798c6af09287171e6d75c824c19c34d7bc9d7650680ba3cb615ae3f00c357"; want != known {
		t.Errorf("got %s, want %s", want, known)
	}
	for name, other := range map[string]string{
		"prev":      hash([]byte{1}, "", "g", 1, at, "started", `{}`),
		"namespace": hash(nil, "n", "g", 1, at, "started", `{}`),
		"gid":       hash(nil, "", "h", 1, at, "started", `{}`),
		"seq":       hash(nil, "", "g", 2, at, "started", `{}`),
		"at":        hash(nil, "", "g", 1, at.Add(time.Microsecond), "started", `{}`),
		"type":      hash(nil, "", "g", 1, at, "replied", `{}`),
		"data":      hash(nil, "", "g", 1, at, "started", `{"a":1}`),
		"borders":   hash(nil, "", "gs", 1, at, "tarted", `{}`),
	} {
		if other == want {
			t.Errorf("another %s has the same hash", name)
		}
	}
}
