package main

import (
	"strings"
	"testing"

	"github.com/amends-dev/amends/deploy/services"
)

func none(string) string { return "" }

// noKafka finds the others.
func noKafka(s services.Service) (addr, why string) {
	if s == services.Kafka {
		return "", "java is not installed"
	}
	return "somewhere", ""
}

func feed(lines string) (*report, *strings.Builder) {
	out := new(strings.Builder)
	r := newReport(out)
	for l := range strings.Lines(lines) {
		r.line([]byte(l))
	}
	return r, out
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name, events  string
		strict, fine  bool
		want, wantNot string
	}{
		{"passes quietly", `
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":1.2}
`, true, true, "1 passed, 0 failed, 0 skipped", "chatter"},
		{"shows a failure", `
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: broken\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}
`, false, false, "a_test.go:3: broken", ""},
		{"shows what a crash cut short", `
{"Action":"output","Package":"p","Test":"TestA","Output":"panic: boom\n"}
{"Action":"fail","Package":"p"}
`, false, false, "panic: boom", ""},
		{"shows a build failure", `
{"Action":"build-output","ImportPath":"p","Output":"x.go:1: undefined\n"}
{"Action":"fail","Package":"p","FailedBuild":"p"}
`, false, false, "x.go:1: undefined", ""},
		{"names a skip", skipped, false, true, "skipped: p TestA: a_test.go:3: no server", ""},
		{"a skip fails when services are required", skipped, true, false, "0 passed, 0 failed, 1 skipped", ""},
		{"no test fails when services are required", `{"Action":"skip","Package":"p"}`, true, false, "0 passed", ""},
		{"names what was not covered", "", false, true, "not covered: the tests on a real Kafka: java is not installed", ""},
		{"names what was covered", "", false, true, "\ncovered: a real Redis", "not covered: the tests on a real Redis"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, out := feed(strings.TrimPrefix(c.events, "\n"))
			if fine := r.finish(c.strict, noKafka); fine != c.fine {
				t.Errorf("fine is %v, want %v", fine, c.fine)
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("want %q in\n%s", c.want, out)
			}
			if c.wantNot != "" && strings.Contains(out.String(), c.wantNot) {
				t.Errorf("want no %q in\n%s", c.wantNot, out)
			}
		})
	}
}

const skipped = `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: no server\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}
`

func TestRunFailsWithItsCommand(t *testing.T) {
	if ok, err := run([]string{"false"}, new(strings.Builder), none); ok || err != nil {
		t.Errorf("run false: %v, %v, want a plain failure", ok, err)
	}
	if ok, err := run([]string{"true"}, new(strings.Builder), none); !ok || err != nil {
		t.Errorf("run true: %v, %v, want success", ok, err)
	}
	if _, err := run([]string{"/no/such/command"}, new(strings.Builder), none); err == nil {
		t.Error("run of no command gave no error")
	}
}
