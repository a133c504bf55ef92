package outbox

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// lagging is a script that is away at first.
type lagging struct {
	*script
	there atomic.Bool
}

// Open implements Source.
func (l *lagging) Open(part int, from string, wake func()) (SourceStream, error) {
	if !l.there.Load() {
		return nil, errors.New("away")
	}
	return l.script.Open(part, from, wake)
}

// TestLaggingSource brings, once it is there, what was committed before its stream was opened, as a server does that is
// behind: the relay has read it from the table, and passes it over.
func TestLaggingSource(t *testing.T) {
	db, s, log := openMySQL(t, func(*mysql.Config) {}), &lagging{script: &script{}}, &bodies{}
	scripted(t, db, s, log)
	before := []SourceRow{insertBody(t, db, "1"), insertBody(t, db, "2")}
	eventually(t, "what is polled", func() bool { return log.String() == "1 2" })
	s.there.Store(true)
	eventually(t, "the stream", s.followed)
	s.say(before...)
	s.say(insertBody(t, db, "3"))
	eventually(t, "the next", func() bool { return strings.HasSuffix(log.String(), "3") })
	if got := log.String(); got != "1 2 3" {
		t.Errorf("published: %s", got)
	}
	eventually(t, "an empty table", func() bool { return rowsLeft(t, db) == 0 })
}
