package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/deploy/services"
)

const sourceDocker = "Docker Compose"

// upDocker starts containers, where an engine answers, and returns the services
// that are still to be started.
func (t *tool) upDocker(ctx context.Context, st *services.State, todo []services.Service) []services.Service {
	if err := engine(ctx); err != nil {
		t.say("Docker: %v; going on without", err)
		return todo
	}
	ports, env, err := dockerPorts()
	if err != nil {
		t.say("%v", err)
		return todo
	}
	password := rand.Text()
	st.Project = project(t.root)
	args := []string{"up", "--detach", "--wait"}
	for _, s := range todo {
		args = append(args, string(s))
	}
	t.say("Docker Compose: project %s: %s (the first time, it fetches images)", st.Project, strings.Join(args[3:], ", "))
	out, err := t.compose(ctx, st.Project, append(env, passwordEnv+password), args...)
	if err != nil {
		t.say("Docker Compose: %v; going on without it:\n%s", err, out)
		if err := t.downDocker(ctx, st); err != nil {
			t.say("%v", err)
		}
		return todo
	}
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.User, cfg.Passwd = "tcp", ports[services.MySQL], "root", password
	ports[services.MySQL] = cfg.FormatDSN()
	ports[services.RabbitMQ] = fmt.Sprintf("amqp://amends:%s@%s/", password, ports[services.RabbitMQ])
	ports[services.NATS] = "nats://" + ports[services.NATS]
	for _, s := range todo {
		e := &services.Entry{Source: sourceDocker, Addr: ports[s]}
		if err := services.Ping(ctx, s, e.Addr); err != nil { // healthy inside, but not from here
			e = &services.Entry{Source: sourceDocker, Missing: err.Error()}
		}
		st.Services[s] = e
		t.say("%s: a container", s.Title())
	}
	return nil
}

// engine is nil when an engine and Compose answer.
func engine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, args := range [][]string{{"version", "--format", "{{.Server.Version}}"}, {"compose", "version"}} {
		out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
		if err != nil {
			first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
			return fmt.Errorf("docker %s: %w %s", args[0], err, first)
		}
	}
	return nil
}

const passwordEnv = "AMENDS_MYSQL_PASSWORD="

// dockerPorts chooses the ports of the host, also as the variables that
// docker-compose.yml reads.
func dockerPorts() (map[services.Service]string, []string, error) {
	ports := map[services.Service]string{}
	var env []string
	for _, s := range services.All {
		port, err := services.FreePort()
		if err != nil {
			return nil, nil, err
		}
		ports[s] = fmt.Sprintf("127.0.0.1:%d", port)
		env = append(env, fmt.Sprintf("AMENDS_%s_PORT=%d", strings.ToUpper(string(s)), port))
	}
	return ports, env, nil
}

// project is another one for each work tree, and never the user's own.
func project(root string) string {
	return fmt.Sprintf("amends-test-%x", sha256.Sum256([]byte(root)))[:20]
}

func (t *tool) compose(ctx context.Context, project string, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "docker", append([]string{
		"compose", "--project-name", project, "--file", "docker-compose.yml", "--file", ".ci/services/compose.yml",
	}, args...)...)
	cmd.Dir = t.root
	cmd.Env = append(os.Environ(), env...)
	return cmd.CombinedOutput()
}

// downDocker removes the containers and their volumes.
func (t *tool) downDocker(ctx context.Context, st *services.State) error {
	if st.Project == "" {
		return nil
	}
	// The file wants a password even for this.
	if out, err := t.compose(ctx, st.Project, []string{passwordEnv + "none"}, "down", "--volumes"); err != nil {
		return fmt.Errorf("services: docker compose down: %w:\n%s", err, out)
	}
	t.say("Docker Compose: project %s removed", st.Project)
	st.Project = ""
	for s, e := range st.Services {
		if e.Source == sourceDocker {
			delete(st.Services, s)
		}
	}
	return nil
}

// restartDocker restarts a container, which keeps its data.
func (t *tool) restartDocker(ctx context.Context, st *services.State, s services.Service, kill bool) error {
	steps := [][]string{{"restart", string(s)}}
	if kill {
		steps = [][]string{{"kill", string(s)}, {"start", string(s)}}
	}
	for _, step := range steps {
		if out, err := t.compose(ctx, st.Project, []string{passwordEnv + "none"}, step...); err != nil {
			return fmt.Errorf("services: docker compose %s: %w:\n%s", step[0], err, out)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err := services.Ping(ctx, s, st.Services[s].Addr); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
