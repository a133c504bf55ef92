package services

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// NewKafka prepares a broker of Apache Kafka that is its own controller, with
// a heap of 512 MB; props are further lines of server.properties
// ("message.max.bytes=100000"). Its jars come from InstallKafka's cache. The
// error is a MissingError when they or Java are not there.
func NewKafka(ctx context.Context, props ...string) (*Process, error) {
	nodes, err := newKafka(ctx, 1, 512, props)
	if err != nil {
		return nil, err
	}
	return nodes[0], nil
}

// NewKafkaCluster is NewKafka with n brokers of one cluster, with heaps of
// 256 MB. Each is a controller too, so the cluster works while more than half
// of them run; they have to be started together. Its own topics have n replicas.
func NewKafkaCluster(ctx context.Context, n int, props ...string) ([]*Process, error) {
	return newKafka(ctx, n, 256, props)
}

// kafkaNode is a broker and controller to be.
type kafkaNode struct {
	dir              string
	port, controller int
}

func newKafka(ctx context.Context, n, heap int, props []string) (_ []*Process, err error) {
	java, err := findJava(ctx)
	if err != nil {
		return nil, err
	}
	jars, err := kafkaJars()
	if err != nil {
		return nil, err
	}
	nodes := make([]kafkaNode, n)
	for i := range nodes {
		if nodes[i], err = newKafkaNode(); err != nil {
			return nil, err
		}
		defer removeOnError(nodes[i].dir, &err)
	}
	cluster := clusterID()
	out := make([]*Process, n)
	var g errgroup.Group
	for i, node := range nodes {
		jvm := []string{
			// Tests share few cores with it: the plain compiler and collector start it in half the CPU time.
			fmt.Sprintf("-Xmx%dm", heap), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
			"-Dlog4j2.configurationFile=" + filepath.Join(node.dir, "log4j2.properties"),
			"-cp", filepath.Join(jars, "*"),
		}
		jvm = append(classArgs(), jvm...)
		out[i] = &Process{
			Service: Kafka, Addr: loopback(node.port), Dir: node.dir, Path: java,
			Args: append(slices.Clip(jvm), "kafka.Kafka", "server.properties"),
		}
		format := append(slices.Clip(jvm), "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", "server.properties")
		g.Go(func() error { return node.format(ctx, kafkaProperties(nodes, i, props), java, format) })
	}
	return out, g.Wait()
}

func newKafkaNode() (n kafkaNode, err error) {
	if n.port, err = FreePort(); err != nil {
		return n, err
	}
	if n.controller, err = FreePort(); err != nil {
		return n, err
	}
	n.dir, err = newDir(Kafka)
	return n, err
}

// format writes the configuration and prepares the storage.
func (n kafkaNode) format(ctx context.Context, properties, java string, args []string) error {
	for name, text := range map[string]string{"server.properties": properties, "log4j2.properties": kafkaLogging} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("services: kafka: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, java, args...)
	cmd.Dir = n.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("services: kafka: formatting its storage: %w:\n%s", err, out)
	}
	return nil
}

// clusterID is 16 random bytes; Kafka reads no leading dash on its command line.
func clusterID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(b)
}

// kafkaProperties of a node: a killed broker is let in again after broker.session.timeout.ms;
// group.min.session.timeout.ms lets tests of consumers be quick.
func kafkaProperties(nodes []kafkaNode, at int, props []string) string {
	n := nodes[at]
	voters := make([]string, len(nodes))
	for i, v := range nodes {
		voters[i] = fmt.Sprintf("%d@%s", i+1, loopback(v.controller))
	}
	return fmt.Sprintf(`process.roles=broker,controller
node.id=%[1]d
controller.quorum.voters=%[2]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
listeners=CONTROLLER://%[3]s,CLIENT://%[4]s
advertised.listeners=CLIENT://%[4]s
listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT
log.dirs=%[5]s
log.cleaner.dedupe.buffer.size=16777216
auto.create.topics.enable=false
offsets.topic.replication.factor=%[6]d
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=%[6]d
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=%[6]d
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=4000
group.min.session.timeout.ms=1000
`, at+1, strings.Join(voters, ","), loopback(n.controller), loopback(n.port), filepath.Join(n.dir, "data"), len(nodes)) +
		strings.Join(props, "\n") + "\n"
}

const kafkaLogging = `rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %m (%c)%n
`
