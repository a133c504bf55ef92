package wire

import "regexp"

var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// Traceparent returns a W3C trace context as it came, or nothing for what is
// none: a caller's tracing never makes a start fail, and no other text is kept.
func Traceparent(s string) string {
	if traceparent.MatchString(s) {
		return s
	}
	return ""
}
