package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SignatureHeader is the header of a webhook's request that holds what Sign
// returns.
const SignatureHeader = "Amends-Signature"

// ErrSignature says that a request was not signed with the secret, or too long
// ago.
var ErrSignature = errors.New("notify: signature does not hold")

// Sign returns "t=T,v1=S": T is the time in Unix seconds and S the HMAC-SHA256,
// in hexadecimal, of T, a full stop and the body. With several secrets there
// are several v1.
func Sign(at time.Time, body []byte, secrets ...string) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	var b strings.Builder
	b.WriteString("t=" + stamp)
	for _, s := range secrets {
		b.WriteString(",v1=" + hex.EncodeToString(mac(stamp, body, s)))
	}
	return b.String()
}

// Verify is for those who receive a webhook: it returns nil when one signature
// of the header was made of the body with the secret, at most tolerance before
// or after now; otherwise ErrSignature.
func Verify(header string, body []byte, secret string, now time.Time, tolerance time.Duration) error {
	stamp, good := "", false
	for part := range strings.SplitSeq(header, ",") {
		switch name, value, _ := strings.Cut(part, "="); name {
		case "t":
			stamp = value
		case "v1":
			sum, err := hex.DecodeString(value)
			good = good || err == nil && hmac.Equal(sum, mac(stamp, body, secret))
		}
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	switch {
	case secret == "" || err != nil || !good:
		return fmt.Errorf("%w: not made with this secret", ErrSignature)
	case now.Sub(time.Unix(seconds, 0)).Abs() > tolerance:
		return fmt.Errorf("%w: made at %s, which is not within %v of now", ErrSignature,
			time.Unix(seconds, 0).UTC().Format(time.RFC3339), tolerance)
	}
	return nil
}

func mac(stamp string, body []byte, secret string) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(stamp + ".")) // never fails
	h.Write(body)
	return h.Sum(nil)
}
