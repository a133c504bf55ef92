package console_test

import (
	"fmt"
	"time"

	"github.com/amends-dev/amends/coordinator/gateway/gatewaytest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const tooLarge = "kafka: message of 1310720 bytes is larger than the broker takes (max.message.bytes 1048588)"

// quietOutbox has nothing to tell.
func quietOutbox() *gatewaytest.Outbox {
	return gatewaytest.NewOutbox(&amendsv1.GetOutboxResponse{Partitions: partitions("relay-billing-0", "relay-billing-0")}, nil, nil, nil)
}

func partitions(owners ...string) (all []*amendsv1.OutboxPartition) {
	for i, owner := range owners {
		p := &amendsv1.OutboxPartition{Partition: int32(i), Owner: owner, Epoch: int64(i + 3), LeaseLeft: durationpb.New(7 * time.Second)}
		switch owner {
		case "":
			p.LeaseLeft = nil
		case "relay-orders-1": // it was killed
			p.LeaseLeft, p.Messages, p.OldestAge = durationpb.New(0), 4, durationpb.New(26*time.Minute)
		}
		all = append(all, p)
	}
	return all
}

// badOutbox is one of a bad night: a key is blocked, and letters were given up.
func badOutbox() *gatewaytest.Outbox {
	now := time.Now()
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	var waiting []*amendsv1.OutboxMessage
	for i := range 31 {
		m := &amendsv1.OutboxMessage{
			Position: fmt.Sprintf("%d-%d", i%4, 1071+i), Id: fmt.Sprintf("0198c1a0-77aa-7c3e-9d01-%012d", i), Topic: "orders.placed",
			Key: fmt.Sprintf("order-%d", 4711+i%3), Size: int64(210 + i), CreateTime: ago(26*time.Minute - time.Duration(i)*time.Second),
		}
		if i%5 == 4 {
			m.Topic, m.Key = "invoices.issued", ""
		}
		waiting = append(waiting, m)
	}
	blocked := []*amendsv1.BlockedKey{
		{Key: "order-4711", Position: "0-1071", Id: waiting[0].GetId(), Topic: "orders.placed", Attempts: 1, Error: tooLarge, Poison: true, Messages: 9, BlockTime: ago(26 * time.Minute)},
		{Key: hostile, Position: "1-1072", Id: waiting[1].GetId(), Topic: "orders.placed", Attempts: 41, Error: "dial tcp 10.2.0.14:9092: connect: connection refused",
			Messages: 1, BlockTime: ago(4 * time.Minute), RetryTime: timestamppb.New(now.Add(12 * time.Second))},
	}
	dead := []*amendsv1.DeadLetter{
		{Number: 17, Id: "0198c1a0-0000-7c3e-9d01-000000000017", Topic: "orders.placed", Key: "order-17", Size: 1310720, CreateTime: ago(3 * time.Hour), FailTime: ago(3*time.Hour - time.Second),
			Attempts: 1, Error: tooLarge, Headers: map[string]string{"ce-type": "order.placed", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			Body: []byte(`{"order":"A-17","cents":9007199254740993,"customer":"` + hostile + `"}`), IdempotencyKey: "order-17-placed"},
		{Number: 18, Id: hostile, Topic: "orders.placed", Key: `\xff\x00`, Size: 3, CreateTime: ago(2 * time.Hour), FailTime: ago(time.Hour), Attempts: 9, Error: hostile, Body: []byte{0xff, 0, 0x10}},
		{Number: 21, Id: "0198c1a0-0000-7c3e-9d01-000000000021", Topic: "invoices.issued", Size: 88, CreateTime: ago(time.Hour), FailTime: ago(10 * time.Minute),
			Error: "park by maria@example.com: the tax office asked us to wait", Body: []byte("plain text")},
	}
	dead[1].Parked, waiting[2].NotBefore = true, timestamppb.New(now.Add(time.Hour))
	return gatewaytest.NewOutbox(&amendsv1.GetOutboxResponse{
		OldestAge: durationpb.New(26 * time.Minute), DelayedMessages: 3, ParkedMessages: 1, Partitions: partitions("relay-orders-0", "relay-orders-0", "relay-orders-1", ""),
		Topics: []*amendsv1.OutboxTopic{
			{Topic: "invoices.issued", Messages: 6, OldestAge: durationpb.New(25 * time.Minute)},
			{Topic: "orders.placed", Messages: 25, OldestAge: durationpb.New(26 * time.Minute)},
		},
	}, waiting, dead, blocked)
}
