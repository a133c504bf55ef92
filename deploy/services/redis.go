package services

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// NewRedis prepares a Redis server that saves nothing unless args, further
// ones of redis-server, say otherwise. The error is a MissingError when Redis
// is not installed.
func NewRedis(args ...string) (_ *Process, err error) {
	program, err := findRedis()
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := newDir(Redis)
	if err != nil {
		return nil, err
	}
	defer removeOnError(dir, &err)
	server := filepath.Join(dir, "redis-server")
	if err := os.Symlink(program, server); err != nil {
		return nil, fmt.Errorf("services: redis: %w", err)
	}
	argv := append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--save", "", "--appendonly", "no",
	}, args...)
	return &Process{Service: Redis, Addr: loopback(port), Dir: dir, Path: server, Args: argv}, nil
}

// findRedis answers with the path of the server's program. Debian's package
// redis-server only adds a service of the system and a link to the program of
// redis-tools: it is a server when it is called so.
func findRedis() (string, error) {
	return find([]string{"redis-tools"}, "install Redis, on Debian: apt-get install redis-tools", "redis-server", "redis-check-rdb")
}
