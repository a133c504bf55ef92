package outbox

import (
	"context"
	"log/slog"
	"math"
	"testing"
)

// Kills k5: an epoch does not wrap; a new producer id follows the last one. And k7's half: replace asks the brokers.
func TestProducerSessions(t *testing.T) {
	asked := int64(0)
	k := &kafkaProducer{log: slog.New(slog.DiscardHandler), init: func(context.Context) (kafkaSession, error) {
		asked++
		return kafkaSession{asked, 0}, nil
	}}
	last := kafkaSession{7, math.MaxInt16}
	k.current, k.known = last, true
	s, err := k.bump(t.Context(), last, "test")
	if err != nil || s != (kafkaSession{1, 0}) {
		t.Errorf("after the last epoch: %v, %v", s, err)
	}
	if s, err = k.replace(t.Context(), s, "test"); err != nil || s != (kafkaSession{2, 0}) {
		t.Errorf("replaced: %v, %v", s, err)
	}
	if s, err = k.bump(t.Context(), s, "test"); err != nil || s != (kafkaSession{2, 1}) || asked != 2 {
		t.Errorf("bumped: %v, %v, asked %d times", s, err, asked)
	}
}
