package servicestest

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/amends-dev/amends/deploy/services"
)

func TestNATSOfATestsOwnKeepsItsStreams(t *testing.T) {
	s := StartNATS(t, "max_payload: 20000")
	nc, err := nats.Connect(s.Addr, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if nc.MaxPayload() != 20000 {
		t.Errorf("max_payload is %d", nc.MaxPayload())
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "s", Subjects: []string{"s"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "s", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s.Start()
	for ctx.Err() == nil { // until the client has noticed
		if m, err := stream.GetMsg(ctx, 1); err == nil {
			if string(m.Data) != "kept" {
				t.Errorf("after SIGKILL: %q", m.Data)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the stream is gone")
}

func TestRabbitMQOfATestsOwnKeepsItsQueues(t *testing.T) {
	s := StartRabbitMQ(t, "channel_max = 7")
	with := func(f func(ch *amqp.Channel)) {
		t.Helper()
		conn, err := amqp.Dial(s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if conn.Config.ChannelMax != 7 {
			t.Errorf("channel_max is %d", conn.Config.ChannelMax)
		}
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		f(ch)
	}
	with(func(ch *amqp.Channel) {
		if _, err := ch.QueueDeclare("q", true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		if err := ch.Confirm(false); err != nil {
			t.Fatal(err)
		}
		sure, err := ch.PublishWithDeferredConfirm("", "q", false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("kept")})
		if err != nil || !sure.Wait() {
			t.Fatal(err)
		}
	})
	// Confirms are for messages: that a queue was declared reaches the disk a little later.
	s.RabbitMQCtl("eval", "mnesia:dump_log().")
	s.Kill()
	if s.p.Helper.Alive() {
		t.Error("epmd outlives its node")
	}
	if err := services.Ping(t.Context(), services.RabbitMQ, s.Addr); err == nil {
		t.Error("a killed node answers")
	}
	s.Start()
	with(func(ch *amqp.Channel) {
		if d, ok, err := ch.Get("q", true); err != nil || !ok || string(d.Body) != "kept" {
			t.Errorf("after SIGKILL: %q, %v, %v", d.Body, ok, err)
		}
	})
}
