package sqlstore

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	// patience is how long a call is repeated that the database did not carry
	// out for no fault of the call's: a deadlock, a restart of the server.
	patience  = 10 * time.Second
	firstWait = 5 * time.Millisecond
	maxWait   = 500 * time.Millisecond
)

// repeat runs attempt until it succeeds or fails for good, for as long as
// there is patience, or until ctx ends.
func (s *Store) repeat(ctx context.Context, op string, attempt func() error) error {
	began := time.Now()
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		err := attempt()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case !s.d.again(err) || time.Since(began) > patience:
			return err
		}
		s.log.LogAttrs(ctx, slog.LevelWarn, "sqlstore: repeating a call", slog.String("call", op), slog.Any("err", err))
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-timer.C:
		}
	}
}
