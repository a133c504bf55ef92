package main

import (
	"errors"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/console"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/outbox/outboxapi"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// letterTopics are the topics whose consumers' dead letters a coordinator's console shows, straight from Kafka.
type letterTopics struct {
	brokers []string
	topics  []string
}

func (l *letterTopics) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&l.topics, "dead-letters", nil,
		"show in the console what consumers of this `topic` gave up; may be given more than once. "+
			"Who has a role in all namespaces may look, and requeue")
	f.StringSliceVar(&l.brokers, "dead-letters-kafka", nil, "the `brokers` of these topics, host:port, separated by commas")
}

// check finds mistakes in the flags; seen are the names that are taken.
func (l *letterTopics) check(http string, seen map[string]bool) error {
	switch {
	case len(l.topics) == 0 && len(l.brokers) > 0:
		return usagef("--dead-letters-kafka is for --dead-letters: give that too")
	case len(l.topics) > 0 && len(l.brokers) == 0:
		return usagef("--dead-letters needs brokers: give --dead-letters-kafka too")
	case len(l.topics) > 0 && http == "":
		return usagef("--dead-letters is for the console: give --http too")
	}
	for _, topic := range l.topics {
		name := inbox.DeadTopic(topic)
		switch {
		case !outboxName.MatchString(name):
			return usagef("--dead-letters %q: want a topic of at most 58 letters, digits, - _ and . that begins with a letter or a digit", topic)
		case seen[name]:
			return usagef("--dead-letters %q: another one is called %s", topic, name)
		}
		seen[name] = true
	}
	return nil
}

// connect opens the topics. None has a namespace: who has a role in all of them is let in.
func (l *letterTopics) connect(guard *auth.Guard, kafka *kafkaLogin) (all []console.Outbox, done func() error, err error) {
	var open []*inbox.DeadLetters
	done = func() error {
		for _, d := range open {
			d.Close()
		}
		return nil
	}
	if len(l.topics) == 0 {
		return nil, done, nil
	}
	if guard == nil {
		guard = auth.Open()
	}
	conf, login, err := kafka.open()
	if err != nil {
		return nil, done, err
	}
	for _, topic := range l.topics {
		d, err := inbox.NewDeadLetters(l.brokers, topic, &inbox.DeadLettersConfig{TLS: conf, SASL: login})
		if err != nil {
			return nil, nil, errors.Join(usagef("--dead-letters %q: %w", topic, err), done())
		}
		open = append(open, d)
		conn := &outboxapi.Local{Interceptors: []grpc.UnaryServerInterceptor{guard.Unary, everyNamespace}}
		amendsv1.RegisterOutboxServiceServer(conn, outboxapi.NewLetters(d, &outboxapi.Config{Actor: subject}))
		amendsv1.RegisterClusterServiceServer(conn, mirror{})
		all = append(all, console.Outbox{Name: inbox.DeadTopic(topic), Conn: conn, Letters: true})
	}
	return all, done, nil
}
