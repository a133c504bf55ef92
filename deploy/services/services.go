// Package services starts the real servers that tests run on (MariaDB, Redis,
// Apache Kafka, RabbitMQ, NATS) on loopback, and knows where they are. `make services` starts
// shared ones by it, deploy/servicestest those that a test has to itself.
//
// It is for the tests of this repository, on Linux and macOS.
package services

import (
	"cmp"
	"context"
	"fmt"
	"os"
)

// Service names one kind of server.
type Service string

// The services there are.
const (
	MySQL    Service = "mysql"
	Redis    Service = "redis"
	Kafka    Service = "kafka"
	RabbitMQ Service = "rabbitmq"
	NATS     Service = "nats"
)

// Core are the services that Amends itself stands on.
var Core = []Service{MySQL, Redis, Kafka}

// All lists the services, in the order in which they are reported.
var All = []Service{MySQL, Redis, Kafka, RabbitMQ, NATS}

// Env is the environment variable that says where the service is: a DSN of
// go-sql-driver, an address, a list of brokers separated by commas, a URL of
// amqp://, a URL of nats://.
func (s Service) Env() string {
	return map[Service]string{
		MySQL: "AMENDS_MYSQL_DSN", Redis: "AMENDS_REDIS_ADDR", Kafka: "AMENDS_KAFKA_BROKERS",
		RabbitMQ: "AMENDS_RABBITMQ_URL", NATS: "AMENDS_NATS_URL",
	}[s]
}

// Title is the name for people.
func (s Service) Title() string {
	return map[Service]string{MySQL: "MySQL", Redis: "Redis", Kafka: "Kafka", RabbitMQ: "RabbitMQ", NATS: "NATS"}[s]
}

// RequireEnv is the environment variable under which a missing service is a
// failure, when it is 1.
const RequireEnv = "AMENDS_REQUIRE_SERVICES"

// MissingError says that a service cannot be started here, and what helps.
type MissingError struct {
	What string // "mariadbd is not installed"
	// Packages are Debian's, which bring it.
	Packages []string
	Fix      string // "apt-get install mariadb-server-core"
}

// Error names what is missing and the fix.
func (e *MissingError) Error() string { return fmt.Sprintf("%s: %s", e.What, e.Fix) }

// Find answers with the address of a service: what the environment says, else
// what `make services` wrote down for the work tree around dir. Without one,
// addr is empty and why tells the reason.
func Find(s Service, dir string, getenv func(string) string) (addr, why string) {
	if addr := getenv(s.Env()); addr != "" {
		return addr, ""
	}
	const fix = "run `make services`, or set "
	root, err := Root(dir)
	if err != nil {
		return "", fmt.Sprintf("%v; set %s", err, s.Env())
	}
	st, err := Load(root)
	if err != nil {
		return "", err.Error()
	}
	e := st.Services[s]
	if e == nil {
		return "", "nothing was started: " + fix + s.Env()
	}
	if e.Addr == "" {
		return "", cmp.Or(e.Missing, "it was not started") + " (" + fix + s.Env() + ")"
	}
	return e.Addr, ""
}

// Check tells whether a service could be started here: its error is a
// MissingError when a program must be installed first.
func Check(ctx context.Context, s Service) error {
	switch s {
	case MySQL:
		_, _, err := findMySQL()
		return err
	case Redis:
		_, err := findRedis()
		return err
	case RabbitMQ:
		_, err := findRabbitMQ()
		return err
	case NATS:
		_, err := findNATS()
		return err
	}
	if _, err := findJava(ctx); err != nil {
		return err
	}
	if _, err := kafkaJars(); err == nil {
		return nil
	}
	_, err := findMaven()
	return err
}

// New prepares a server of the kind, as NewMySQL, NewRedis, NewKafka,
// NewRabbitMQ and NewNATS do.
func New(ctx context.Context, s Service) (*Process, error) {
	switch s {
	case MySQL:
		return NewMySQL(ctx)
	case Redis:
		return NewRedis()
	case RabbitMQ:
		return NewRabbitMQ()
	case NATS:
		return NewNATS()
	}
	return NewKafka(ctx)
}

// find answers with the path of the first program of names that is installed.
func find(packages []string, fix string, names ...string) (string, error) {
	for _, name := range names {
		for _, dir := range append(pathDirs(), "/usr/sbin", "/usr/local/sbin") {
			p := dir + "/" + name
			if st, err := os.Stat(p); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	return "", &MissingError{What: names[0] + " is not installed", Packages: packages, Fix: fix}
}
