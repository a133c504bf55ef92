package services

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go"
)

// pathDirs are the folders of PATH.
func pathDirs() []string { return filepath.SplitList(os.Getenv("PATH")) }

// FreePort answers with a port that nobody listens on now. It lies below the
// ephemeral range, so that no outgoing connection takes it while its server is
// down for a restart.
func FreePort() (int, error) {
	const low, high = 20000, 32768
	for range 200 {
		n, err := rand.Int(rand.Reader, big.NewInt(high-low))
		if err != nil {
			return 0, fmt.Errorf("services: %w", err)
		}
		port := low + int(n.Int64())
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue // taken
		}
		return port, l.Close()
	}
	return 0, errors.New("services: no free port between 20000 and 32767 on 127.0.0.1")
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// Ping tells whether a service answers at addr: as soon as it can do what tests
// want of it, not merely listens. It takes 2 s at most.
func Ping(ctx context.Context, s Service, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var err error
	switch s {
	case MySQL:
		err = pingMySQL(ctx, addr)
	case Redis:
		err = pingRedis(ctx, addr)
	case Kafka:
		err = pingKafka(ctx, strings.Split(addr, ","))
	case RabbitMQ:
		err = pingRabbitMQ(ctx, addr)
	case NATS:
		err = pingNATS(ctx, addr)
	default:
		err = errors.New("no such service")
	}
	if err != nil {
		return fmt.Errorf("services: %s does not answer: %w", s, err)
	}
	return nil
}

func pingMySQL(ctx context.Context, dsn string) error {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return err
	}
	cfg.Logger = &mysql.NopLogger{}
	conn, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(conn)
	defer db.Close()
	return db.PingContext(ctx)
}

// pingRedis speaks the protocol itself: the client logs each failure, and there
// are many until a server is up.
func pingRedis(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && answer != "+PONG\r\n" {
		err = fmt.Errorf("it says %q", strings.TrimSpace(answer))
	}
	return err
}

// pingKafka asks for a producer id and a group's coordinator: a broker that
// has just started refuses both for a while, after it listens.
func pingKafka(ctx context.Context, brokers []string) error {
	tr := &kafka.Transport{DialTimeout: time.Second}
	defer tr.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(brokers...), Transport: tr}
	id, err := c.InitProducerID(ctx, &kafka.InitProducerIDRequest{ProducerID: -1, ProducerEpoch: -1})
	if err == nil {
		err = id.Error
	}
	if err != nil {
		return err
	}
	group, err := c.FindCoordinator(ctx, &kafka.FindCoordinatorRequest{Key: "amends", KeyType: kafka.CoordinatorKeyTypeConsumer})
	if err == nil {
		err = group.Error
	}
	return err
}
