package world

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/cmd/torture/internal/bank"
)

// prefix is that of databases which the tests' user may make and drop.
const prefix = "amends_test_torture_"

// databases makes one for each service, one for the coordinators and one for the
// readers, under "".
func (w *World) databases(ctx context.Context, server string) error {
	conf, err := mysql.ParseDSN(server)
	if err != nil {
		return err
	}
	w.prefix = prefix + strings.ToLower(rand.Text()[:8])
	w.Topic = strings.ReplaceAll(w.prefix, "_", "-")
	w.Group = w.Topic
	var g errgroup.Group
	for _, name := range []string{bank.East, bank.West, bank.Notes, "", Coordinators} {
		database := w.prefix + "_" + name
		if err := administer(ctx, conf, "CREATE DATABASE "+database+" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"); err != nil {
			return err
		}
		c := conf.Clone()
		c.DBName = database
		dsn := c.FormatDSN()
		w.dsn[name] = dsn
		switch name {
		case bank.East, bank.West:
			g.Go(func() error { return bank.PrepareSide(ctx, dsn) })
		case bank.Notes:
			g.Go(func() error { return bank.PrepareNotes(ctx, dsn) })
		case "":
			g.Go(func() error { return bank.PrepareReader(ctx, dsn) })
		}
	}
	return g.Wait()
}

// dropDatabases is needed where the server is somebody else's.
func (w *World) dropDatabases(ctx context.Context) error {
	var errs []error
	for _, dsn := range w.dsn {
		conf, err := mysql.ParseDSN(dsn)
		if err != nil {
			return err
		}
		if w.ownsMySQL() {
			continue
		}
		database := conf.DBName
		conf.DBName = ""
		errs = append(errs, administer(ctx, conf, "DROP DATABASE IF EXISTS "+database))
	}
	return errors.Join(errs...)
}

// administer runs a statement about a database, whose name cannot be bound and
// has letters, digits and underscores only.
func administer(ctx context.Context, conf *mysql.Config, statement string) error {
	conf = conf.Clone()
	conf.Logger = &mysql.NopLogger{} // what it says is in the errors
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	_, err = db.ExecContext(ctx, statement)
	return errors.Join(err, db.Close())
}

const (
	partitions = 4
	kafkaTime  = 30 * time.Second
)

func (w *World) makeTopic(ctx context.Context) error {
	client, hangUp := newKafka(w.Kafka)
	defer hangUp()
	res, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: w.Topic, NumPartitions: partitions, ReplicationFactor: -1},
	}})
	if err != nil {
		return err
	}
	w.topicNew = true
	if err := res.Errors[w.Topic]; err != nil {
		return fmt.Errorf("%s: %w", w.Topic, err)
	}
	return nil
}

// dropTopic is needed where the brokers are somebody else's.
func (w *World) dropTopic(ctx context.Context) error {
	if !w.topicNew || w.ownsKafka() {
		return nil
	}
	client, hangUp := newKafka(w.Kafka)
	defer hangUp()
	_, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{w.Topic}})
	return err
}

func newKafka(brokers []string) (*kafka.Client, func()) {
	tr := &kafka.Transport{}
	return &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: kafkaTime, Transport: tr}, tr.CloseIdleConnections
}
