// Command compose parses docker-compose.yml with the parser of Docker Compose
// itself and checks what nobody can see without an engine: that every service
// has a pinned image or a build, a health check, and depends only on services
// that exist and that it can wait for.
//
// It lives in a module of its own, so that users of Amends do not inherit the
// parser.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: compose FILE [OVERRIDE]...")
		os.Exit(2)
	}
	p, err := load(context.Background(), os.Args[1:])
	if err == nil {
		err = check(p)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "compose: %s: %v\n", strings.Join(os.Args[1:], " "), err)
		os.Exit(1)
	}
	fmt.Printf("ok: %s: %d services parsed by the Compose parser (no engine has run them)\n", strings.Join(os.Args[1:], " "), len(p.Services))
}

func load(ctx context.Context, files []string) (*types.Project, error) {
	opts, err := cli.NewProjectOptions(files, cli.WithName("amends"), cli.WithEnv([]string{"AMENDS_MYSQL_PASSWORD=only-parsed"}))
	if err != nil {
		return nil, err
	}
	return opts.LoadProject(ctx)
}

func check(p *types.Project) error {
	var errs []error
	for name, s := range p.Services {
		if s.Build == nil && !pinned(s.Image) {
			errs = append(errs, fmt.Errorf("service %s: image %q has no version tag", name, s.Image))
		}
		if s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 {
			errs = append(errs, fmt.Errorf("service %s: no health check", name))
		}
		for dep, how := range s.DependsOn {
			if how.Condition != types.ServiceConditionHealthy {
				errs = append(errs, fmt.Errorf("service %s: waits for %s to be %s, want %s",
					name, dep, how.Condition, types.ServiceConditionHealthy))
			}
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				errs = append(errs, fmt.Errorf("service %s: port %d is published beyond loopback", name, port.Target))
			}
		}
	}
	return errors.Join(errs...)
}

func pinned(image string) bool {
	_, tag, ok := strings.Cut(image, ":")
	return ok && tag != "" && tag != "latest"
}
