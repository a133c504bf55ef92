package inbox_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

func TestKeys(t *testing.T) {
	long := strings.Repeat("i", 600)
	for _, tc := range []struct{ source, id, want string }{
		{"orders", "1", "orders\x001"},
		{"orders", "a/b", "orders\x00a/b"},
		{"orders", long, "orders\x00sha256:"},
	} {
		key, err := inbox.New(outbox.SQLite, tc.source).Key(tc.id)
		if err != nil || !strings.HasPrefix(key, tc.want) || len(key) > inbox.MaxKey {
			t.Errorf("%q/%q: key %q, %v", tc.source, tc.id, key, err)
		}
	}
	for _, tc := range []struct{ source, id, want string }{
		{"", "1", "source"},
		{strings.Repeat("s", 300), "1", "source"},
		{"a\x00b", "1", "NUL"},
		{"orders", "", "id is empty"},
	} {
		_, err := inbox.New(outbox.SQLite, tc.source).Key(tc.id)
		if !errors.Is(err, inbox.ErrKey) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q/%q: error %v, want one about %s", tc.source, tc.id, err, tc.want)
		}
	}
}
