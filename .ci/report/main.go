// Command report runs `go test -json …` and says briefly what happened: one
// line per package as it ends, the whole output of what failed and nothing of
// what passed, then what was skipped, what was not covered, and the counts.
//
//	report go test -json -race ./...
//
// It fails when the command fails. With AMENDS_REQUIRE_SERVICES=1 it also
// fails when a test skipped itself, or when none ran.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/amends-dev/amends/deploy/services"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: report COMMAND [ARG]...")
		os.Exit(2)
	}
	ok, err := run(os.Args[1:], os.Stdout, os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run starts the command, reports it and tells whether all is well.
func run(args []string, out io.Writer, getenv func(string) string) (bool, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	rep := newReport(out)
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			rep.line(line)
		}
		if err != nil {
			break // the command's own exit code says whether it was cut short
		}
	}
	err = cmd.Wait()
	strict := getenv("AMENDS_REQUIRE_SERVICES") == "1"
	fine := rep.finish(strict, func(s services.Service) (addr, why string) { return services.Find(s, ".", getenv) })
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return false, nil // its own words are printed above
	}
	return fine && err == nil, err
}
