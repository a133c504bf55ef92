package outboxdev

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
)

// DefaultPartitions is the number of partitions of a topic when nobody says another.
const DefaultPartitions = 4

// KafkaConfig configures StartKafka. The zero value is a broker in memory, on a free port, with no topics.
type KafkaConfig struct {
	// Addr is the host and port to listen on and to advertise; default "127.0.0.1:0", any free port.
	Addr string
	// Dir keeps topics, records, groups and producers over restarts. Empty: all in memory, which never shrinks.
	// One process at a time may use a directory.
	Dir string
	// Topics are created at the start where they are missing, each with its number of partitions (0: Partitions).
	Topics map[string]int
	// Partitions is the partition count of topics created on demand; default DefaultPartitions.
	Partitions int
	// Settings are broker settings by Kafka's names, such as "message.max.bytes".
	Settings map[string]string
	// Logger receives the note that this is for development; nil means slog.Default().
	Logger *slog.Logger
}

// Kafka is a running in-process broker.
type Kafka struct {
	cluster *kfake.Cluster
	addr    string
}

// StartKafka starts a broker; when it returns, the broker answers. Topics are also created on demand, by clients that
// ask for it. A nil cfg is the zero KafkaConfig. The caller must Close it.
func StartKafka(cfg *KafkaConfig) (*Kafka, error) {
	c := KafkaConfig{}
	if cfg != nil {
		c = *cfg
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, c.Addr) }),
		kfake.AllowAutoTopicCreation(),
		kfake.DefaultNumPartitions(c.Partitions),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
		kfake.BrokerConfigs(c.Settings),
	}
	if c.Dir != "" {
		opts = append(opts, kfake.DataDir(c.Dir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("outboxdev: start kafka on %s: %w", c.Addr, err)
	}
	k := &Kafka{cluster: cluster, addr: cluster.ListenAddrs()[0]}
	for _, name := range slices.Sorted(maps.Keys(c.Topics)) {
		if err := k.CreateTopic(name, c.Topics[name]); err != nil {
			k.Close()
			return nil, err
		}
	}
	c.Logger.Info("in-process Kafka is for development only", "addr", k.addr, "dir", c.Dir)
	return k, nil
}

// complete fills in the defaults and reports every mistake at once.
func (c *KafkaConfig) complete() error {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.Partitions == 0 {
		c.Partitions = DefaultPartitions
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	var errs []error
	if err := checkAddr(c.Addr); err != nil {
		errs = append(errs, fmt.Errorf("outboxdev: KafkaConfig.Addr: %w", err))
	}
	if c.Partitions < 0 {
		errs = append(errs, fmt.Errorf("outboxdev: KafkaConfig.Partitions is %d: use a positive number", c.Partitions))
	}
	for name, n := range c.Topics {
		if n < 0 {
			errs = append(errs, fmt.Errorf("outboxdev: KafkaConfig.Topics[%q] is %d: use 0 or a positive number", name, n))
		}
	}
	return errors.Join(errs...)
}

// checkAddr accepts host:port with a definite host: the address is also what clients are told to connect to.
func checkAddr(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%q names no host: use one that clients can reach, such as 127.0.0.1:9460", addr)
	}
	return nil
}

// Addr is the broker's host:port.
func (k *Kafka) Addr() string { return k.addr }

// CreateTopic makes a topic with that many partitions (0: the broker's default). An existing topic is left as it is.
func (k *Kafka) CreateTopic(name string, partitions int) error {
	err := k.cluster.CreateTopic(name, int32(partitions), nil)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("outboxdev: create topic %q: %w", name, err)
	}
	return nil
}

// Close stops the broker and its connections. With a Dir, everything acknowledged is there at the next start.
func (k *Kafka) Close() { k.cluster.Close() }
