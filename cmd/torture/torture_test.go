package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/cmd/torture/internal/nemesis"
	"github.com/amends-dev/amends/cmd/torture/internal/scene"
	"github.com/amends-dev/amends/cmd/torture/internal/world"
	"github.com/amends-dev/amends/deploy/services"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// amendsProgram is the coordinators' program, built once.
var amendsProgram string

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && (os.Args[1] == world.Worker || os.Args[1] == world.Reader) { // a process that a test started of itself
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "amends-torture-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	amendsProgram = filepath.Join(dir, "amends")
	build := exec.Command("go", "build", "-buildvcs=false", "-tags", "amends_invariants", "-o", amendsProgram, "../amends")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// TestTorture is the attack in small, on the shared servers: processes are
// killed, stopped and cut off under load, and every promise holds.
func TestTorture(t *testing.T) {
	conf, err := mysql.ParseDSN(servicestest.MySQL(t))
	if err != nil {
		t.Fatal(err)
	}
	conf.DBName = "" // it makes databases of its own
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := scene.Attack(ctx, scene.Config{
		Name: t.Name(), Amends: amendsProgram, Self: self, Dial: dial, Out: &told, Seed: 1,
		Servers: map[services.Service]string{
			services.MySQL: conf.FormatDSN(), services.Redis: servicestest.Redis(t),
			services.Kafka: strings.Join(servicestest.Kafka(t), ","),
		},
		For: 6 * time.Second, Rest: 90 * time.Second, Lease: time.Second, Patience: time.Minute,
		Coordinators: 3, Workers: 1, Relays: 1, Readers: 1, Clients: 8, Operators: 1, Rate: 30,
		Faults: []string{nemesis.Kill, nemesis.Stop, nemesis.Cut, nemesis.Slow}, Every: 700 * time.Millisecond,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, told.String())
	}
	var table bytes.Buffer
	if err := r.Print(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s\n%s", told.String(), table.String())
	switch {
	case r.Violations > 0:
		t.Errorf("%d violations", r.Violations)
	case r.Rounds < 2 || len(r.Ends) < 3 || r.Saw.Requests < 20:
		t.Error("it shows too little")
	}
}

func TestWrongFlagsAreReportedAtOnce(t *testing.T) {
	for _, of := range []struct {
		args []string
		want []string
	}{
		{[]string{"--faults", "kill", "--for", "0s", "--clients", "0", "--amends", "nowhere"}, []string{"--for is 0s", "--clients is 0", "--amends", "make build"}},
		{[]string{"--faults", "flood"}, []string{`fault "flood" is none of kill`}},
		{[]string{"--faults", "skew", "--skew", "0s"}, []string{"--skew is 0s"}},
		{[]string{"--faults", "none", "--other-binary", "nowhere"}, []string{"--other-binary"}},
		{[]string{"kills", "--lease", "1ms"}, []string{"--lease is 1ms"}},
		{[]string{"resume", "--in-flight", "0"}, []string{"--in-flight"}},
		{[]string{"--nonsense"}, []string{"nonsense"}},
	} {
		var errs bytes.Buffer
		if code := run(t.Context(), of.args, &errs, &errs); code != 2 {
			t.Errorf("%v: exit code %d, want 2", of.args, code)
		}
		for _, want := range of.want {
			if !strings.Contains(errs.String(), want) {
				t.Errorf("%v: %q does not say %q", of.args, errs.String(), want)
			}
		}
	}
}
