// Command services gives the tests real servers: MySQL, Redis, Kafka, RabbitMQ
// and NATS.
//
//	services up                 starts what is not there, and leaves it running
//	services down               ends and removes what was started
//	services env                prints export lines for a shell: eval "$(services env)"
//	services restart [-kill] X  restarts mysql, redis, kafka, rabbitmq or nats on the same address and data
//	services with COMMAND…      up, COMMAND with the addresses in its environment, down
//
// A service is, in this order: what AMENDS_MYSQL_DSN, AMENDS_REDIS_ADDR,
// AMENDS_KAFKA_BROKERS, AMENDS_RABBITMQ_URL and AMENDS_NATS_URL name; a container, where Docker's engine answers; a
// process on a free port of 127.0.0.1 with its data in a temporary folder. What
// was started is remembered in .amends/services.json. As root on Debian,
// missing packages are installed, and those of RabbitMQ and NATS are unpacked
// into the user's cache (for that no root is needed), unless
// AMENDS_SERVICES_INSTALL=no.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"github.com/amends-dev/amends/deploy/services"
)

const usage = "usage: services up | down | env | restart [-kill] mysql|redis|kafka|rabbitmq|nats | with COMMAND [ARG]..."

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	root, err := services.Root(".")
	if err == nil {
		err = newTool(root, os.Stderr).run(os.Args[1], os.Args[2:])
	}
	os.Exit(exitCode(err, os.Stderr))
}

// exitCode is that of the command of with, which has said why; else 1 and the error.
func exitCode(err error, out io.Writer) int {
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // joined with another error, it is not all there is to say
		return max(1, exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	return 0
}

// tool is the command in a work tree.
type tool struct {
	root   string
	out    io.Writer // for people
	getenv func(string) string
	which  []services.Service // that it is for: all, except in tests
	mu     sync.Mutex         // guards out
}

func newTool(root string, out io.Writer) *tool {
	return &tool{root: root, out: out, getenv: os.Getenv, which: services.All}
}

func (t *tool) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "services: "+format+"\n", args...)
}

func (t *tool) run(verb string, args []string) error {
	if verb == "with" && len(args) > 0 {
		return t.with(args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case verb == "up" && len(args) == 0:
		return t.upAndKeep(ctx)
	case verb == "down" && len(args) == 0:
		return t.down(ctx)
	case verb == "env" && len(args) == 0:
		return t.env(os.Stdout)
	case verb == "restart" && len(args) == 1:
		return t.restart(ctx, services.Service(args[0]), false)
	case verb == "restart" && len(args) == 2 && args[0] == "-kill":
		return t.restart(ctx, services.Service(args[1]), true)
	}
	return errors.New(usage)
}

// upAndKeep is `make services`: what it starts stays until `make services-down`,
// and whoever asks for services wants all of them.
func (t *tool) upAndKeep(ctx context.Context) error {
	err := t.up(ctx, true)
	if err == nil {
		err = t.missing()
	}
	if err == nil {
		t.say(`all there; go test finds them by .amends/services.json, a shell by: eval "$(bin/services env)"`)
	}
	return err
}

// missing is an error that names the services that are not there, and why.
func (t *tool) missing() error {
	var errs []error
	for _, s := range t.which {
		if addr, why := services.Find(s, t.root, t.getenv); addr == "" {
			errs = append(errs, fmt.Errorf("services: no %s: %s", s.Title(), why))
		}
	}
	return errors.Join(errs...)
}
