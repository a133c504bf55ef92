package sdk

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Limits that the coordinator enforces and that a start checks early, because
// one that goes through the outbox has nobody left to tell.
const (
	maxLabels     = 16
	maxLabelKey   = 63
	maxLabelValue = 256
	maxText       = 4 << 10 // of an error or reason
)

var labelKey = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// startRequest builds a saga from its input and checks what can be checked
// without a coordinator.
func startRequest[In any](s saga.Saga[In], in In, cfg *StartConfig) (*amendsv1.StartSagaRequest, error) {
	if cfg == nil {
		cfg = &StartConfig{}
	}
	def, err := s.Build(in)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidDefinition, err)
	}
	if err := amendsv1.CheckNamespace(cfg.Namespace); err != nil {
		return nil, ErrInvalidArgument.With("StartConfig.Namespace: %v", err)
	}
	gid, err := checkStart(cfg.GID, cfg.Labels, cfg.Timeout)
	if err != nil {
		return nil, err
	}
	timeout := def.Timeout
	if cfg.Timeout > 0 {
		timeout = cfg.Timeout
	}
	return &amendsv1.StartSagaRequest{
		Gid: gid, Name: def.Name, Steps: wireSteps(def.Steps), Timeout: wireDuration(timeout), Labels: maps.Clone(cfg.Labels),
	}, nil
}

// checkStart joins every mistake and returns the gid, a new one for none.
func checkStart(gid string, labels map[string]string, timeout time.Duration) (string, error) {
	var errs []error
	if gid == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return "", fmt.Errorf("making a gid: %w", err)
		}
		gid = id.String()
	} else if err := txn.CheckName("gid", gid); err != nil {
		errs = append(errs, ErrInvalidGID.With("%v", err))
	}
	if timeout < 0 {
		errs = append(errs, ErrInvalidArgument.With("timeout is %s, want 0 (none) or more", timeout))
	}
	if len(labels) > maxLabels {
		errs = append(errs, ErrInvalidArgument.With("%d labels, at most %d are allowed", len(labels), maxLabels))
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if !labelKey.MatchString(key) || len(key) > maxLabelKey {
			errs = append(errs, ErrInvalidArgument.With("label key %q: want a lower-case letter, then letters, digits and _, at most %d", key, maxLabelKey))
		}
		if v := labels[key]; len(v) > maxLabelValue || !utf8.ValidString(v) {
			errs = append(errs, ErrInvalidArgument.With("label %q: the value is not UTF-8 of at most %d bytes", key, maxLabelValue))
		}
	}
	return gid, errors.Join(errs...)
}

func wireSteps(steps []saga.Step) []*amendsv1.SagaStep {
	out := make([]*amendsv1.SagaStep, len(steps))
	for i, s := range steps {
		out[i] = &amendsv1.SagaStep{
			Name: s.Name, Action: s.Action, Payload: s.Payload, Kind: stepKinds[s.Kind], Retry: wireRetry(s.Retry),
		}
		for _, j := range s.After {
			out[i].After = append(out[i].After, steps[j].Name)
		}
	}
	return out
}

var stepKinds = map[saga.Kind]amendsv1.StepKind{
	saga.Compensatable: amendsv1.StepKind_STEP_KIND_COMPENSATABLE,
	saga.Pivot:         amendsv1.StepKind_STEP_KIND_PIVOT,
	saga.Retriable:     amendsv1.StepKind_STEP_KIND_RETRIABLE,
}

// wireRetry keeps zero values absent: they stand for the coordinator's
// defaults.
func wireRetry(r txn.Retry) *amendsv1.RetryPolicy {
	if r == (txn.Retry{}) {
		return nil
	}
	return &amendsv1.RetryPolicy{
		Initial: wireDuration(r.Initial), Factor: r.Factor, Cap: wireDuration(r.Cap), Jitter: r.Jitter,
		Attempts: int32(min(r.Attempts, math.MaxInt32)), CallTimeout: wireDuration(r.CallTimeout),
	}
}

func wireDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// The numbers of states, operations and outcomes are the same in txn and on
// the wire; a test holds them to it.
func stateOf(s amendsv1.State) txn.State { return txn.State(s) }

func opOf(op amendsv1.Op) txn.Op { return txn.Op(op) }

func wireOutcome(o txn.Outcome) amendsv1.OutcomeCode { return amendsv1.OutcomeCode(o) }

// cleanText makes any text fit to be sent: gRPC refuses a message, and with it
// the whole stream, for one string that is not UTF-8.
func cleanText(s string) string {
	const cut = " … (truncated)"
	if s = strings.ToValidUTF8(s, "\uFFFD"); len(s) <= maxText {
		return s
	}
	end := maxText - len(cut)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + cut
}
