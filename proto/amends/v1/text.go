package amendsv1

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The longest texts of an error that are sent, in bytes. They travel in HTTP/2
// headers, of which some peers take no more than 8 KiB in all.
const (
	maxMessage = 2048
	maxDetail  = 1024
)

// ValidText returns s with each byte that is no UTF-8 replaced by its escape,
// for example \xff. Protobuf strings must be UTF-8: a message that holds
// another one cannot be sent at all.
func ValidText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[0])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// shorten cuts valid UTF-8 down to about limit bytes, and says how many are
// missing.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s… (%d bytes more)", s[:cut], len(s)-cut)
}
