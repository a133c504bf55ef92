package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/amends-dev/amends/deploy/services"
)

// noInstall is the environment variable that forbids it, when it is "no".
const noInstall = "AMENDS_SERVICES_INSTALL"

// install brings Debian's packages for the services, where it may. Those that
// it cannot bring are missed by what needs them, which says so.
func (t *tool) install(ctx context.Context, todo []services.Service) {
	var packages []string
	for _, s := range todo {
		if s == services.RabbitMQ || s == services.NATS {
			continue // services.Install unpacks theirs
		}
		var none *services.MissingError
		if err := services.Check(ctx, s); errors.As(err, &none) {
			packages = append(packages, none.Packages...)
			if s == services.Kafka { // both are asked for at once
				packages = append(packages, services.KafkaPackages...)
			}
		}
	}
	t.installPackages(ctx, packages)
}

// installBrowser brings the browser that the tests of web pages drive.
func (t *tool) installBrowser(ctx context.Context) {
	var none *services.MissingError
	if _, err := services.Browser(); errors.As(err, &none) {
		t.installPackages(ctx, none.Packages)
	}
}

func (t *tool) installPackages(ctx context.Context, packages []string) {
	slices.Sort(packages)
	packages = slices.Compact(packages)
	apt, err := exec.LookPath("apt-get")
	if len(packages) == 0 || err != nil {
		return
	}
	switch {
	case os.Geteuid() != 0:
		t.say("not root, so these packages are yours to install: %s", strings.Join(packages, " "))
		return
	case t.getenv(noInstall) == "no":
		t.say(noInstall+"=no, so these packages are yours to install: %s", strings.Join(packages, " "))
		return
	}
	t.say("installing Debian's %s", strings.Join(packages, " "))
	if _, err := aptGet(ctx, apt, packages); err == nil {
		return
	}
	// The usual reason is a list of packages that is older than the archive.
	out, err := exec.CommandContext(ctx, apt, "update", "-qq").CombinedOutput()
	if err == nil {
		out, err = aptGet(ctx, apt, packages)
	}
	if err != nil {
		t.say("apt-get: %v\n%s", err, out)
	}
}

// aptGet waits for another apt-get, asks no questions, and leaves services of
// the system alone: none of our packages brings one.
func aptGet(ctx context.Context, apt string, packages []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, apt, append([]string{
		"-o", "DPkg::Lock::Timeout=300", "install", "--yes", "--no-install-recommends",
	}, packages...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return cmd.CombinedOutput()
}
