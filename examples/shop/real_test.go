package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/services"
	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/examples/shop/internal/demo"
)

// TestDemoOnRealServers takes away each process and each server that the demo
// takes away, once, while the shop is at work.
func TestDemoOnRealServers(t *testing.T) {
	t.Parallel() // most of its time is spent waiting
	servicestest.Native(t, services.Core...)
	tmp := t.TempDir()
	code, stdout, stderr := shopWith(t, environment("TMPDIR="+tmp), "demo", "--services", "real", "--amends", amendsProgram,
		"--orders", someOrders(t, 200), "--output", "json")
	var r demo.Result
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil || !r.OK {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	for _, name := range []string{"coordinator", "payment", "relay", "MySQL", "Redis", "Kafka"} {
		if r.Recovered[name] == 0 {
			t.Errorf("nothing was under way when %s went away: %v\n%s", name, r.Recovered, stderr)
		}
	}
	if len(r.Recovered) != 6 || len(r.LeftOut) > 0 || len(r.Died) > 0 {
		t.Errorf("recovered %v, left out %q, died %v", r.Recovered, r.LeftOut, r.Died)
	}
	if r.Orders == 0 || r.Committed == 0 || r.RolledBack["card declined"] == 0 || r.Rewarded == 0 ||
		r.Cancelled["out of stock"] == 0 {
		t.Errorf("%d orders, %d committed, rolled back %v, %d rewarded, cancelled %v",
			r.Orders, r.Committed, r.RolledBack, r.Rewarded, r.Cancelled)
	}
	leftNothing(t, tmp)
}

// TestDemoOnServersOfOthers restarts none of them and leaves nothing on them.
func TestDemoOnServersOfOthers(t *testing.T) {
	t.Parallel()
	dsn, redis, brokers := servicestest.MySQL(t), servicestest.Redis(t), servicestest.Kafka(t)
	env := environment("AMENDS_MYSQL_DSN="+dsn, "AMENDS_REDIS_ADDR="+redis, "AMENDS_KAFKA_BROKERS="+strings.Join(brokers, ","))
	code, stdout, stderr := shopWith(t, env, "demo", "--services", "real", "--amends", amendsProgram,
		"--orders", someOrders(t, 60), "--output", "json")
	var r demo.Result
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil || !r.OK {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if len(r.LeftOut) != 3 || len(r.Recovered) != 3 || r.Recovered["relay"] == 0 {
		t.Errorf("left out %q, recovered %v", r.LeftOut, r.Recovered)
	}
	prefix := regexp.MustCompile(`amends_shop_\w+_`).FindString(stderr)
	if prefix == "" {
		t.Fatalf("does not name its databases:\n%s", stderr)
	}
	left := databases(t, dsn)
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Transport: &kafka.Transport{}}
	topics, err := client.Metadata(t.Context(), &kafka.MetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range topics.Topics {
		left = append(left, topic.Name)
	}
	if slices.ContainsFunc(left, func(name string) bool { return strings.HasPrefix(name, prefix) }) {
		t.Errorf("left behind: %q", left)
	}
}

func databases(t *testing.T, dsn string) (names []string) {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), `SHOW DATABASES`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// TestServerThatDoesNotAnswer must not be replaced by another one.
func TestServerThatDoesNotAnswer(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := lis.Addr().String()
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	env := environment("TMPDIR="+tmp, "AMENDS_MYSQL_DSN=amends:secret@tcp("+nobody+")/")
	code, _, stderr := shopWith(t, env, "demo", "--services", "real", "--amends", amendsProgram)
	if code != 1 || !strings.Contains(stderr, "AMENDS_MYSQL_DSN is set, but") || strings.Contains(stderr, "secret") {
		t.Errorf("exit code %d:\n%s", code, stderr)
	}
	leftNothing(t, tmp)
}

// TestServerThatIsNotInstalled: nothing is found on this PATH.
func TestServerThatIsNotInstalled(t *testing.T) {
	tmp := t.TempDir()
	code, _, stderr := shopWith(t, environment("TMPDIR="+tmp, "PATH="+tmp), "demo", "--services", "real", "--amends", amendsProgram)
	for _, want := range []string{"no MySQL: ", "is not installed: install MariaDB", "set AMENDS_MYSQL_DSN", "make services"} {
		if code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, want 1 with %q:\n%s", code, want, stderr)
		}
	}
	leftNothing(t, tmp)
}

// TestInterruptedOnRealServers looks for servers that are left running.
func TestInterruptedOnRealServers(t *testing.T) {
	t.Parallel()
	servicestest.Native(t, services.Core...)
	tmp := t.TempDir()
	var stderr bytes.Buffer
	cmd := exec.Command(shopProgram, "demo", "--services", "real", "--amends", amendsProgram, "--rate", "20")
	cmd.Env, cmd.Stderr = environment("TMPDIR="+tmp), &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // gone already, unless the test failed
	awaitLine(t, stdout, "lines done")
	if n := len(processesOf(t, tmp)); n < 3 {
		t.Errorf("%d processes run on %s, want a server of each kind", n, tmp)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code tells
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v, want exit code 1; stderr:\n%s", cmd.ProcessState, stderr.String())
	}
	leftNothing(t, tmp)
}
