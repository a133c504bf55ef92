// Package dispatch is how calls reach participants. Each participant instance
// keeps one stream to the coordinator (amends.v1.ParticipantService.Attend):
// calls go down, outcomes come up, both in batches, and a credit per call keeps
// an instance from getting more than it can do.
//
// The Hub holds what waits and what is under way, by service. It keeps nothing
// on disk: the engine's calls are a function of its durable state, so a call
// that is lost here is asked for again.
package dispatch

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/amends-dev/amends/saga/txn"
)

// Call is one operation of one branch of one transaction.
type Call struct {
	GID string
	txn.Call
	Expires time.Time // of a TCC transaction: it cancels when undecided by then; zero: none
	Trace   string    // a W3C traceparent for the participant; empty: none
	New     bool      // of a transaction that nothing has come of yet: it waits until no other call does
}

// Outcome is how a call ended.
type Outcome struct {
	GID string
	txn.Replied
	Recorded bool // of an OK: the same call repeated gets the same reply, whatever happens
}

// Defaults of Config's zero values.
const (
	DefaultHeartbeat   = 5 * time.Second
	DefaultMaxCapacity = 10_000

	defaultCapacity = 64 // of an instance that names none
	lostAfter       = 3  // heartbeats without a message drop a stream
)

// Config tunes a Hub. The zero value is ready for use.
type Config struct {
	Name        string        // the coordinator's, told to participants for their logs; "amends"
	Heartbeat   time.Duration // participants ping at least this often, and are dropped after three times as long; 5 s
	MaxCapacity int           // the most calls that one instance may ask to have under way; 10,000
	Logger      *slog.Logger  // nil: slog.Default()
}

// Validate reports every value that makes no sense, joined.
func (c *Config) Validate() error {
	if c == nil {
		return nil
	}
	var errs []error
	if c.Heartbeat < 0 {
		errs = append(errs, fmt.Errorf("dispatch: Heartbeat is %v, want 0 (5 s) or more", c.Heartbeat))
	}
	if c.MaxCapacity < 0 {
		errs = append(errs, fmt.Errorf("dispatch: MaxCapacity is %d, want 0 (10,000) or more", c.MaxCapacity))
	}
	return errors.Join(errs...)
}

func (c *Config) withDefaults() Config {
	var d Config
	if c != nil {
		d = *c
	}
	if d.Name == "" {
		d.Name = "amends"
	}
	if d.Heartbeat <= 0 {
		d.Heartbeat = DefaultHeartbeat
	}
	if d.MaxCapacity <= 0 {
		d.MaxCapacity = DefaultMaxCapacity
	}
	if d.Logger == nil {
		d.Logger = slog.Default()
	}
	return d
}

// Service is what the Hub knows of one service at a moment, for status.
type Service struct {
	Name      string
	Actions   []string   // that an instance connected now offers, sorted
	Instances []Instance // connected now, by name
	Waiting   int        // calls that no instance could take yet
	InFlight  int        // calls on the streams of all instances
}

// Instance is one participant process that is connected.
type Instance struct {
	Name     string // as it calls itself
	Capacity int    // the most calls that may be under way
	InFlight int    // calls that are, those that timed out without an answer included
	Draining bool   // takes no more calls
}
