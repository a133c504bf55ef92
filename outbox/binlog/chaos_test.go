package binlog_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/binlog"
)

// TestMain is the relay's process, too: see child.
func TestMain(m *testing.M) {
	if text := os.Getenv("BINLOG_TEST_RELAY"); text != "" {
		if err := runChild([]byte(text)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is what a relay's process is told.
type child struct {
	DSN    string
	File   string // what it publishes is appended here
	Config binlog.Config
	Log    *kafkaLog // it publishes to this instead
	Poll   bool      // without a source
}

// runChild relays until it is killed. Like a log it takes whole batches, so what
// it has acknowledged is in the file.
func runChild(text []byte) error {
	var c child
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	db, err := openDB(c.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	cfg := relayConfig(nil)
	c.Config.Logger = quiet()
	if !c.Poll {
		if cfg.Source, err = binlog.New(c.Config); err != nil {
			return err
		}
	}
	box := outbox.New(outbox.MySQL, &outbox.Config{MaxRows: -1})
	if c.Log != nil {
		return c.Log.relay(box, db, cfg)
	}
	f, err := os.OpenFile(c.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return outbox.NewRelay(box, db, &fileLog{f: f}, cfg).Run(context.Background())
}

// fileLog appends the messages of a batch with one write, which other processes'
// do not mix with.
type fileLog struct{ f *os.File }

// Publish implements outbox.Publisher.
func (l *fileLog) Publish(_ context.Context, msgs []outbox.Message) []error {
	var b bytes.Buffer
	for _, m := range msgs {
		fmt.Fprintf(&b, "%s %s\n", m.Key, m.Body)
	}
	errs := make([]error, len(msgs))
	if _, err := l.f.Write(b.Bytes()); err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

func readFile(t testing.TB, path string) []outbox.Message {
	t.Helper()
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var msgs []outbox.Message
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		key, body, _ := strings.Cut(lines.Text(), " ")
		msgs = append(msgs, outbox.Message{Key: key, Body: []byte(body)})
	}
	return msgs
}

// process starts a relay in a process of its own.
func (h *harness) process(file string) *exec.Cmd {
	h.Helper()
	return h.child(child{File: file})
}

// child starts a relay in a process of its own, at this database.
func (h *harness) child(c child) *exec.Cmd {
	h.Helper()
	c.DSN, c.Config = h.dsn, h.config()
	c.Config.Logger = nil
	text, err := json.Marshal(c) //nolint:staticcheck // without TLS
	h.must(err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BINLOG_TEST_RELAY="+string(text))
	cmd.Stderr = os.Stderr
	h.must(cmd.Start())
	h.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// TestFaults has the tests that hurt a server, one after the other.
func TestFaults(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	for _, tc := range []struct {
		name string
		mode binlog.Mode
		fn   func(h *harness)
	}{
		{"TableProcesses", binlog.ModeTable, testProcesses},
		{"LogProcesses", binlog.ModeLog, testProcesses},
		{"TableServerRestarts", binlog.ModeTable, testServerRestarts},
		{"LogServerRestarts", binlog.ModeLog, testServerRestarts},
		{"PausedServer", binlog.ModeTable, testPausedServer},
		{"TablePurged", binlog.ModeTable, testTablePurged},
		{"LogPurged", binlog.ModeLog, testLogPurged},
		{"Alarm", binlog.ModeLog, testAlarm},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.fn(newHarness(t, server, tc.mode)) })
	}
}

// testProcesses has two relays in processes fight for the partitions: one is
// stopped for longer than its lease, and resumed, and the other is killed.
func testProcesses(h *harness) {
	file := filepath.Join(h.TempDir(), "log")
	stop := h.load(2 * time.Millisecond)
	a, b := h.process(file), h.process(file)
	more := func() {
		h.Helper()
		n := len(readFile(h.TB, file))
		h.until("more messages", func() bool { return len(readFile(h.TB, file)) > n+50 })
	}
	more()
	h.must(a.Process.Signal(syscall.SIGSTOP))
	time.Sleep(1500 * time.Millisecond) // longer than the lease: b takes over
	more()
	h.must(a.Process.Signal(syscall.SIGCONT))
	more()
	h.must(b.Process.Kill())
	_ = b.Wait() // it was killed
	more()
	h.process(file)
	more()
	stop()
	h.result(func() []outbox.Message { return readFile(h.TB, file) })
	h.empty()
}

// testServerRestarts stops and kills the database under load.
func testServerRestarts(h *harness) {
	r := h.relay(h.log)
	h.following(r)
	stop := h.load(2 * time.Millisecond)
	some := func() {
		h.Helper()
		n := h.log.Len()
		h.until("more messages", func() bool { return h.log.Len() > n+100 })
	}
	for _, away := range []func(){h.server.Kill, h.server.Stop} {
		some()
		away()
		h.server.Start()
	}
	some()
	stop()
	h.result(h.log.Messages)
	h.empty()
}

// testPausedServer stops the server without closing a connection: silence ends
// the session, and what is committed afterwards is published.
func testPausedServer(h *harness) {
	r := h.relay(h.log)
	h.following(r)
	h.server.Pause()
	h.until("the silence to be noticed", func() bool { return !r.src.Stats().Reading })
	h.server.Resume()
	stop := h.load(2 * time.Millisecond)
	h.until("a new session", func() bool { return r.src.Stats().Sessions > 1 && r.src.Stats().Reading })
	stop()
	h.result(h.log.Messages)
}

// testLogPurged deletes a part of the log that was not read, and is nowhere else.
func testLogPurged(h *harness) {
	out := &lines{}
	h.out = out.handler()
	r := h.relay(h.log)
	h.write("k", 1)
	h.until("the first", func() bool { return h.log.Len() == 1 })
	r.stop()
	h.write("k", 2) // which is lost
	h.purge()
	r = h.relay(h.log)
	h.until("the alarm", func() bool { return r.src.Stats().Lost > 0 })
	h.until("the range", func() bool { return strings.Contains(out.String(), "are lost, as far as they were not") })
	h.write("k", 3)
	if n := h.log.Len(); n != 1 {
		h.Errorf("%d messages were published behind the hole, want none without SkipLost", n-1)
	}
	r.stop()
	h.relay(h.log, func(c *binlog.Config, _ *outbox.RelayConfig) { c.SkipLost = true })
	h.until("what is behind it", func() bool { return h.log.Len() == 2 })
	if got := string(h.log.Messages()[1].Body); got != "3" {
		h.Errorf("message %s was published, want 3", got)
	}
}

// testTablePurged deletes what was not read while the tables have it, too.
func testTablePurged(h *harness) {
	r := h.relay(h.log)
	h.following(r)
	stop := h.load(2 * time.Millisecond)
	for range 5 {
		h.cut()
		h.purge()
		n := h.log.Len()
		h.until("more messages", func() bool { return h.log.Len() > n+20 })
	}
	stop()
	h.result(h.log.Messages)
	h.empty()
}

// purge deletes all files of the log but a new one.
func (h *harness) purge() {
	h.Helper()
	h.exec(`FLUSH BINARY LOGS`)
	var file, rest string
	var pos int64
	h.must(h.db.QueryRow(`SHOW MASTER STATUS`).Scan(&file, &pos, &rest, &rest))
	h.until("a purge", func() bool { // a file that is being read stays, with a warning
		h.exec(`PURGE BINARY LOGS TO '` + file + `'`)
		var first string
		var size int64
		rows, err := h.db.Query(`SHOW BINARY LOGS`)
		h.must(err)
		defer rows.Close()
		rows.Next()
		h.must(rows.Scan(&first, &size))
		h.must(rows.Err())
		return first == file
	})
}

// testAlarm has a relay that cannot publish, and a server that keeps its log for
// two seconds.
func testAlarm(h *harness) {
	out := &lines{}
	h.out = out.handler()
	down := errors.New("down")
	h.log.SetHook(func(_ context.Context, msgs []outbox.Message) []error {
		errs := make([]error, len(msgs))
		for i := range errs {
			errs[i] = down
		}
		return errs
	})
	r := h.relay(h.log)
	h.exec(`SET GLOBAL binlog_expire_logs_seconds = 2`)
	h.write("k", 1)
	h.until("the alarm", func() bool { return r.src.Stats().Alarms > 0 })
	if text := out.String(); !strings.Contains(text, "messages may be lost soon") {
		h.Errorf("nothing was logged: %s", text)
	}
	if s := r.src.Stats(); s.Behind == 0 || s.Left == 0 {
		h.Errorf("stats %+v", s)
	}
	h.log.SetHook(nil)
	h.until("the message", func() bool { return h.log.Len() == 1 })
	h.until("the end of the danger", func() bool { h.write("k", 2); return r.src.Stats().Behind <= time.Second })
}

// TestUnfitServer has servers and accounts that do not do.
func TestUnfitServer(t *testing.T) {
	t.Parallel()
	server := servicestest.StartMySQL(t, "--plugin-load-add=ha_blackhole") // no log
	h := newHarness(t, server, binlog.ModeTable)
	out := &lines{}
	h.out = out.handler()
	h.relay(h.log)
	h.write("k", 1)
	h.until("the message, from the table", func() bool { return h.log.Len() == 1 })
	h.until("the reason", func() bool { return strings.Contains(out.String(), "log_bin is OFF: set it to ON") })

	cfg := h.config()
	err := binlog.Convert(t.Context(), h.db, cfg)
	if !errors.Is(err, outbox.ErrConfig) || !strings.Contains(err.Error(), "log_bin") {
		t.Errorf("Convert: %v", err)
	}
	h.exec(`ALTER TABLE amends_outbox_1 ENGINE = BLACKHOLE`)
	if err := outbox.NewRelay(h.box, h.db, h.log, nil).Run(t.Context()); !errors.Is(err, outbox.ErrConfig) {
		t.Errorf("a relay that polls tables without rows: %v", err)
	}
}

// lines collects what is logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all of them.
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
