package amendsv1

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// AuditHash is the digest of an audit event: SHA-256 over the event's fields,
// each behind its length, the hash of the event before it among them. A trail
// whose every hash is right and whose every prev is the hash before it has not
// been edited. The time counts in microseconds. A gid outside of the default namespace
// stands behind its namespace and a zero byte, which neither can hold.
func AuditHash(prev []byte, namespace, gid string, seq int64, at time.Time, kind string, data []byte) []byte {
	h := sha256.New()
	number := func(v int64) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(v))
		h.Write(n[:])
	}
	field := func(b []byte) {
		number(int64(len(b)))
		h.Write(b)
	}
	field(prev)
	if namespace != "" {
		gid = namespace + "\x00" + gid
	}
	field([]byte(gid))
	number(seq)
	number(at.UnixMicro())
	field([]byte(kind))
	field(data)
	return h.Sum(nil)
}
