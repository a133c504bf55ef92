package outbox

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestKafkaLogsOutageOnce: of a partition that answers nothing for a while, the
// log tells the beginning and the end.
func TestKafkaLogsOutageOnce(t *testing.T) {
	var said strings.Builder
	p := &KafkaPublisher{cfg: KafkaConfig{Logger: slog.New(slog.NewTextHandler(&said, nil))}}
	part := &kafkaPartition{topicPartition: topicPartition{"orders", 2}, turn: make(chan struct{}, 1)}
	for range 3 { // calls, each with tries of its own
		c := &kafkaCall{p: p}
		lane := &kafkaLane{part: part}
		for range 10 {
			c.again(lane, errors.New("away"))
		}
	}
	if n := strings.Count(said.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings of one outage, want 1:\n%s", n, &said)
	}
	lane := &kafkaLane{part: part, todo: []int{0}}
	part.pending = &kafkaBatch{ids: []string{"a"}}
	c := &kafkaCall{p: p, msgs: []Message{{ID: "a"}}}
	c.acked(lane)
	part.pending = &kafkaBatch{ids: []string{"a"}}
	lane = &kafkaLane{part: part, todo: []int{0}}
	c.acked(lane)
	if n := strings.Count(said.String(), "acknowledged again"); n != 1 {
		t.Errorf("the end was told %d times, want once:\n%s", n, &said)
	}
}
