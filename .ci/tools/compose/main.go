// Command compose parses docker-compose.yml with the parser of Docker Compose
// itself and checks what nobody can see without an engine: that every service
// has a pinned image or a build and a health check, is published on loopback at
// most, and waits until the services that it speaks to are healthy; and that the
// coordinator has a database of its own, which MySQL makes.
//
// It lives in a module of its own, so that users of Amends do not inherit the
// parser.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// password stands for the user's: it holds what would break a URL or a shell.
const password = "on/ly@pa:rsed$"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: compose FILE [OVERRIDE]...")
		os.Exit(2)
	}
	files := strings.Join(os.Args[1:], " ")
	p, err := load(context.Background(), os.Args[1:])
	if err == nil {
		err = check(p)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "compose: %s: %v\n", files, err)
		os.Exit(1)
	}
	fmt.Printf("ok: %s: %d services parsed by the Compose parser (no engine has run them)\n", files, len(p.Services))
}

func load(ctx context.Context, files []string) (*types.Project, error) {
	opts, err := cli.NewProjectOptions(files, cli.WithName("amends"), cli.WithEnv([]string{"AMENDS_MYSQL_PASSWORD=" + password}))
	if err != nil {
		return nil, err
	}
	return opts.LoadProject(ctx)
}

func check(p *types.Project) error {
	errs := []error{checkDatabase(p)}
	for name, s := range p.Services {
		for _, err := range append(checkService(s), checkWaits(p, s)...) {
			errs = append(errs, fmt.Errorf("service %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func checkService(s types.ServiceConfig) []error {
	var errs []error
	if s.Build == nil && !pinned(s.Image) {
		errs = append(errs, fmt.Errorf("image %q has no version tag", s.Image))
	}
	if s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 {
		errs = append(errs, errors.New("no health check"))
	}
	if s.NetworkMode != "" {
		errs = append(errs, fmt.Errorf("network_mode %s: its ports are not Compose's to bind", s.NetworkMode))
	}
	for _, port := range s.Ports {
		if port.HostIP != "127.0.0.1" {
			errs = append(errs, fmt.Errorf("port %d is published beyond loopback", port.Target))
		}
	}
	return errs
}

func pinned(image string) bool {
	_, tag, ok := strings.Cut(image, ":")
	return ok && tag != "" && tag != "latest"
}

// checkWaits finds services whose addresses are in the environment or the
// command of another one that does not wait for them.
func checkWaits(p *types.Project, s types.ServiceConfig) []error {
	var errs []error
	for dep, how := range s.DependsOn {
		if how.Condition != types.ServiceConditionHealthy {
			errs = append(errs, fmt.Errorf("waits for %s to be %s, want %s", dep, how.Condition, types.ServiceConditionHealthy))
		}
	}
	said := strings.Join(s.Command, "\n")
	for _, value := range s.Environment {
		if value != nil {
			said += "\n" + *value
		}
	}
	for other := range p.Services {
		address := regexp.MustCompile(`\b` + regexp.QuoteMeta(other) + `:\d+\b`)
		if _, waits := s.DependsOn[other]; other != s.Name && !waits && address.MatchString(said) {
			errs = append(errs, fmt.Errorf("speaks to %s, and does not wait until it is healthy (depends_on)", other))
		}
	}
	return errs
}

// dsn is the driver's form: with a password of any characters it stays legible.
var dsn = regexp.MustCompile(`^(\w+):(.+)@tcp\((\w+):3306\)/(\w+)$`)

// checkDatabase compares what the coordinator is told of its database with what
// MySQL is told to make.
func checkDatabase(p *types.Project) error {
	given := p.Services["coordinator"].Environment["AMENDS_MYSQL_DSN"]
	if given == nil {
		return errors.New("service coordinator: no AMENDS_MYSQL_DSN")
	}
	found := dsn.FindStringSubmatch(*given)
	if found == nil || found[2] != password {
		return fmt.Errorf("service coordinator: AMENDS_MYSQL_DSN is %q: want user:password@tcp(server:3306)/database", *given)
	}
	user, server, database := found[1], p.Services[found[3]], found[4]
	env := func(name string) string {
		if v := server.Environment[name]; v != nil {
			return *v
		}
		return ""
	}
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("service coordinator: AMENDS_MYSQL_DSN: "+format, args...))
	}
	if user != env("MYSQL_USER") || found[2] != env("MYSQL_PASSWORD") {
		wrong("user or password are not those of service %s", found[3])
	}
	if database == env("MYSQL_DATABASE") {
		wrong("database %s is that of the services: give the coordinator its own", database)
	}
	var made string
	for _, c := range server.Configs {
		if strings.HasPrefix(c.Target, "/docker-entrypoint-initdb.d/") {
			made += p.Configs[c.Source].Content
		}
	}
	for _, want := range []string{"CREATE DATABASE " + database + ";", fmt.Sprintf("ON %s.* TO '%s'@'%%';", database, user)} {
		if !strings.Contains(made, want) {
			wrong("nothing in the first start of service %s says %q", found[3], want)
		}
	}
	return errors.Join(errs...)
}
