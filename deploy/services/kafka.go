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
)

// NewKafka prepares a broker of Apache Kafka that is its own controller, with
// a heap of 512 MB; props are further lines of server.properties
// ("message.max.bytes=100000"). Its jars come from InstallKafka's cache. The
// error is a MissingError when they or Java are not there.
func NewKafka(ctx context.Context, props ...string) (_ *Process, err error) {
	java, err := findJava(ctx)
	if err != nil {
		return nil, err
	}
	jars, err := kafkaJars()
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	controller, err := FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := newDir(Kafka)
	if err != nil {
		return nil, err
	}
	defer removeOnError(dir, &err)
	for name, text := range map[string]string{
		"server.properties": kafkaProperties(dir, port, controller) + strings.Join(props, "\n") + "\n",
		"log4j2.properties": kafkaLogging,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("services: kafka: %w", err)
		}
	}
	jvm := []string{
		// Tests share few cores with it: the plain compiler and collector start it in half the CPU time.
		"-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		"-Dlog4j2.configurationFile=" + filepath.Join(dir, "log4j2.properties"),
		"-cp", filepath.Join(jars, "*"),
	}
	format := exec.CommandContext(ctx, java, append(slices.Clip(jvm),
		"kafka.tools.StorageTool", "format", "--cluster-id", clusterID(), "--config", "server.properties")...)
	format.Dir = dir
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("services: kafka: formatting its storage: %w:\n%s", err, out)
	}
	return &Process{
		Service: Kafka, Addr: loopback(port), Dir: dir, Path: java, Args: append(jvm, "kafka.Kafka", "server.properties"),
	}, nil
}

// clusterID is 16 random bytes; Kafka reads no leading dash on its command line.
func clusterID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(b)
}

// kafkaProperties: a killed broker is let in again after broker.session.timeout.ms;
// group.min.session.timeout.ms lets tests of consumers be quick.
func kafkaProperties(dir string, port, controller int) string {
	return fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
listeners=CONTROLLER://%[2]s,CLIENT://%[1]s
advertised.listeners=CLIENT://%[1]s
listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT
log.dirs=%[3]s
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=4000
group.min.session.timeout.ms=1000
`, loopback(port), loopback(controller), filepath.Join(dir, "data"))
}

const kafkaLogging = `rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %m (%c)%n
`
