package servicestest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/amends-dev/amends/deploy/services"
)

// Server is a server of a test's own. It is for one goroutine at a time, and is
// ended and removed when the test ends; when the test failed, the end of its
// log is shown.
type Server struct {
	// Addr is where it is, and stays: a DSN without a database, an address, a broker, a URL.
	Addr string

	t    testing.TB
	p    *services.Process
	root string // of the work tree, where it is written down for when the test is killed
}

// StartMySQL runs a MariaDB of the test's own; args are further ones of
// mariadbd ("--max-connections=5").
func StartMySQL(t testing.TB, args ...string) *Server {
	t.Helper()
	p, err := services.NewMySQL(t.Context(), args...)
	return start(t, services.MySQL, p, err)
}

// StartRedis runs a Redis of the test's own; args are further ones of
// redis-server ("--maxmemory", "4mb").
func StartRedis(t testing.TB, args ...string) *Server {
	t.Helper()
	p, err := services.NewRedis(args...)
	return start(t, services.Redis, p, err)
}

// StartKafka runs a broker of the test's own; props are further lines of
// server.properties ("message.max.bytes=100000"). It takes some seconds, and
// half a gigabyte.
func StartKafka(t testing.TB, props ...string) *Server {
	t.Helper()
	p, err := services.NewKafka(t.Context(), props...)
	return start(t, services.Kafka, p, err)
}

// StartRabbitMQ runs a RabbitMQ node of the test's own; lines are further ones
// of rabbitmq.conf ("max_message_size = 20000"). It takes some seconds of a core.
func StartRabbitMQ(t testing.TB, lines ...string) *Server {
	t.Helper()
	p, err := services.NewRabbitMQ(lines...)
	return start(t, services.RabbitMQ, p, err)
}

// RabbitMQCtl runs a command of rabbitmqctl on a node of StartRabbitMQ's, and
// answers with what it prints. It takes some seconds.
func (s *Server) RabbitMQCtl(args ...string) string {
	s.t.Helper()
	out, err := services.RabbitMQCtl(context.Background(), s.p, args...)
	s.check(err)
	return out
}

// StartNATS runs a NATS server with JetStream of the test's own; lines are
// further ones of its configuration ("max_payload: 20000").
func StartNATS(t testing.TB, lines ...string) *Server {
	t.Helper()
	p, err := services.NewNATS(lines...)
	return start(t, services.NATS, p, err)
}

// StartKafkaCluster runs n brokers of one cluster; props are as StartKafka's.
// Each is a controller too, so the cluster works while more than half of them
// run. Topics that are to outlive a broker need replicas: see CreateTopic.
func StartKafkaCluster(t testing.TB, n int, props ...string) []*Server {
	t.Helper()
	ps, err := services.NewKafkaCluster(t.Context(), n, props...)
	prepared(t, services.Kafka, err)
	brokers := make([]*Server, n)
	var all sync.WaitGroup // none answers before the others run
	for i, p := range ps {
		brokers[i] = newServer(t, p)
		all.Go(brokers[i].Start)
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return brokers
}

func start(t testing.TB, name services.Service, p *services.Process, err error) *Server {
	t.Helper()
	prepared(t, name, err)
	s := newServer(t, p)
	s.Start()
	return s
}

// prepared ends the test when a server could not be prepared.
func prepared(t testing.TB, name services.Service, err error) {
	t.Helper()
	var none *services.MissingError
	if errors.As(err, &none) {
		missing(t, name, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newServer(t testing.TB, p *services.Process) *Server {
	t.Helper()
	root, err := services.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: p.Addr, t: t, p: p, root: root}
	t.Cleanup(s.remove)
	return s
}

func (s *Server) remove() {
	if s.t.Failed() {
		log, err := os.ReadFile(filepath.Join(s.p.Dir, "log"))
		s.t.Logf("the log of %s (%v):\n%s", s.p.Service, err, log[max(0, len(log)-4096):])
	}
	s.check(services.Disown(s.root, s.p))
}

// Start runs it again, on the same address and data, and returns when it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.check(s.p.Own(context.Background(), s.root))
}

// Stop asks it to end (SIGTERM) and waits until it has.
func (s *Server) Stop() { s.t.Helper(); s.check(s.p.Stop()) }

// Kill ends it at once (SIGKILL) and waits until it has ended.
func (s *Server) Kill() { s.t.Helper(); s.check(s.p.Kill()) }

// Pause stops it where it is (SIGSTOP): connections stay open, and nothing answers.
func (s *Server) Pause() { s.t.Helper(); s.check(s.p.Pause()) }

// Resume ends a pause.
func (s *Server) Resume() { s.t.Helper(); s.check(s.p.Resume()) }

// check fails the test; it does not end it, as Kill and Start may be called by
// a goroutine beside the test's own.
func (s *Server) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}
