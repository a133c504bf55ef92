package services

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// NewRabbitMQ prepares a RabbitMQ node with a user of its own and without
// plugins; lines are further ones of rabbitmq.conf ("max_message_size = 20000").
// Erlang's registry of nodes, epmd, runs beside it on a port of its own. The
// error is a MissingError when RabbitMQ or Erlang are not there.
func NewRabbitMQ(lines ...string) (_ *Process, err error) {
	home, err := findRabbitMQ()
	if err != nil {
		return nil, err
	}
	var ports [3]int // for clients, for Erlang, for epmd
	for i := range ports {
		if ports[i], err = FreePort(); err != nil {
			return nil, err
		}
	}
	dir, err := newDir(RabbitMQ)
	if err != nil {
		return nil, err
	}
	defer removeOnError(dir, &err)
	password := rand.Text()
	conf := fmt.Sprintf(rabbitConf, loopback(ports[0]), password) + strings.Join(lines, "\n") + "\n"
	for name, text := range map[string]string{"rabbitmq.conf": conf, "plugins": "[].\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("services: rabbitmq: %w", err)
		}
	}
	plugins, err := home.slim(dir)
	if err != nil {
		return nil, err
	}
	env := append(home.env(plugins),
		"HOME="+dir, // where Erlang keeps the node's cookie
		"ERL_EPMD_PORT="+strconv.Itoa(ports[2]), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME="+rabbitNode, "RABBITMQ_DIST_PORT="+strconv.Itoa(ports[1]), "RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_CONFIG_FILE="+filepath.Join(dir, "rabbitmq.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(dir, "plugins"),
		"RABBITMQ_MNESIA_BASE="+filepath.Join(dir, "data"), "RABBITMQ_LOG_BASE="+filepath.Join(dir, "logs"))
	return &Process{
		Service: RabbitMQ, Addr: fmt.Sprintf("amqp://amends:%s@%s/", password, loopback(ports[0])), Dir: dir,
		Path: home.program("erlexec"), Args: rabbitArgs, Env: env,
		// Started here, or the node would start one that nobody ends.
		Helper: &Process{Service: RabbitMQ, Dir: dir, Path: home.program("epmd"), Env: env},
	}, nil
}

const (
	rabbitNode = "rabbit@localhost"
	// rabbitConf: little memory, and no alarm on disks of tests.
	rabbitConf = `listeners.tcp.1 = %s
default_user = amends
default_pass = %s
vm_memory_high_watermark.absolute = 400MB
disk_free_limit.absolute = 1MB
log.console = true
log.console.level = warning
log.file = false
`
)

// rabbitArgs are those of the script rabbitmq-server, which would stand between
// us and the process; with two schedulers that do not spin.
var rabbitArgs = []string{
	"-noinput", "-s", "rabbit", "boot", "-boot", "start_sasl", "+W", "w", "+B", "i",
	"+P", "100000", "+t", "500000", "+S", "2:2", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
	"-syslog", "logger", "[]", "-syslog", "syslog_error_logger", "false",
	"-kernel", "prevent_overlapping_partitions", "false", "-kernel", "inet_dist_use_interface", "{127,0,0,1}",
}

// RabbitMQCtl runs a command of rabbitmqctl on a node of NewRabbitMQ's, and
// answers with what it prints.
func RabbitMQCtl(ctx context.Context, p *Process, args ...string) (string, error) {
	home, err := findRabbitMQ()
	if err != nil {
		return "", err
	}
	argv := append([]string{
		"+B", "-boot", "start_clean", "-noinput", "-hidden", "-kernel", "inet_dist_use_interface", "{127,0,0,1}",
		"-run", "escript", "start", "-escript", "main", "rabbitmqctl_escript",
		"-extra", filepath.Join(home.rabbit, "escript", "rabbitmqctl"),
	}, args...)
	cmd := exec.CommandContext(ctx, p.Path, argv...)
	cmd.Dir, cmd.Env = p.Dir, append(os.Environ(), p.Env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("services: rabbitmqctl %s: %w:\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// rabbitHome is where RabbitMQ and Erlang are.
type rabbitHome struct {
	rabbit  string // with the folders plugins and escript
	erlang  string // with the folder bin
	runtime string // erts-…/bin below erlang
	libs    string // of C, where they were unpacked too
}

func (h *rabbitHome) program(name string) string { return filepath.Join(h.runtime, name) }

// env is what the script erl would set, which knows its folder only where it
// was installed, and what rabbitmq-env would.
func (h *rabbitHome) env(plugins string) []string {
	env := []string{
		"ROOTDIR=" + h.erlang, "BINDIR=" + h.runtime, "EMU=beam", "PROGNAME=erl",
		"RABBITMQ_HOME=" + h.rabbit, "RABBITMQ_PLUGINS_DIR=" + plugins, "ERL_LIBS=" + plugins,
		"ERL_MAX_ETS_TABLES=50000", "ERL_MAX_PORTS=65536",
	}
	if h.libs != "" {
		env = append(env, "LD_LIBRARY_PATH="+h.libs)
	}
	return env
}

// slim makes a folder of links to what a node needs, and leaves out the plugins:
// looking through all of them takes 40 % of the CPU of a start.
func (h *rabbitHome) slim(dir string) (string, error) {
	all, err := filepath.Glob(filepath.Join(h.rabbit, "plugins", "*"))
	if err != nil {
		return "", fmt.Errorf("services: rabbitmq: %w", err)
	}
	out := filepath.Join(dir, "applications")
	if err := os.Mkdir(out, 0o700); err != nil {
		return "", fmt.Errorf("services: rabbitmq: %w", err)
	}
	for _, path := range all {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "rabbitmq_") && !strings.HasPrefix(name, "rabbitmq_prelaunch") {
			continue
		}
		if err := os.Symlink(path, filepath.Join(out, name)); err != nil {
			return "", fmt.Errorf("services: rabbitmq: %w", err)
		}
	}
	return out, nil
}

// findRabbitMQ finds RabbitMQ and Erlang, both installed or both unpacked by Install.
func findRabbitMQ() (*rabbitHome, error) {
	const fix = "install RabbitMQ, or on Debian run `make services`, which unpacks its package rabbitmq-server"
	packages := []string{"rabbitmq-server"}
	script, err := find(packages, fix, "rabbitmq-server")
	if err == nil {
		var erl string
		if erl, err = find(packages, fix, "erl"); err == nil {
			if h := newRabbitHome(besides(script), besides(erl)); h != nil {
				return h, nil
			}
			err = &MissingError{What: "what " + script + " and " + erl + " need is in no known folder", Packages: packages, Fix: fix}
		}
	}
	dir, e := debianFolder(RabbitMQ)
	if e != nil {
		return nil, e
	}
	h := newRabbitHome(filepath.Join(dir, "usr", "lib", "rabbitmq"), filepath.Join(dir, "usr", "lib", "erlang"))
	if h == nil {
		return nil, err
	}
	libs, e := filepath.Glob(filepath.Join(dir, "usr", "lib", "*-linux-gnu*"))
	if e != nil {
		return nil, fmt.Errorf("services: rabbitmq: %w", e)
	}
	h.libs = strings.Join(libs, ":")
	return h, nil
}

// besides is the folder above that of the program, behind all links.
func besides(program string) string {
	if p, err := filepath.EvalSymlinks(program); err == nil {
		program = p
	}
	return filepath.Dir(filepath.Dir(program))
}

// newRabbitHome is nil when something is missing. Debian has RabbitMQ in a
// folder of its version below the one of its scripts.
func newRabbitHome(rabbit, erlang string) *rabbitHome {
	homes, _ := filepath.Glob(filepath.Join(rabbit, "lib", "rabbitmq_server-*")) // the pattern is a good one
	for _, home := range append(homes, rabbit) {
		runtimes, _ := filepath.Glob(filepath.Join(erlang, "erts-*", "bin"))
		slices.Reverse(runtimes)
		for _, rt := range runtimes {
			h := &rabbitHome{rabbit: home, erlang: erlang, runtime: rt}
			if isThere(filepath.Join(home, "plugins")) && isThere(h.program("erlexec")) && isThere(h.program("epmd")) {
				return h
			}
		}
	}
	return nil
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// pingRabbitMQ opens a channel: the node takes connections before that works.
func pingRabbitMQ(ctx context.Context, url string) error {
	var d net.Dialer
	conn, err := amqp.DialConfig(url, amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		deadline, _ := ctx.Deadline()
		return c, errors.Join(c.SetDeadline(deadline))
	}})
	if err != nil {
		return err
	}
	_, err = conn.Channel()
	deadline, _ := ctx.Deadline()
	return errors.Join(err, conn.CloseDeadline(deadline))
}
