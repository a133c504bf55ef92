package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/google/uuid"
)

// The bounds of labels and of an abort's reason, in bytes where it is a text.
const (
	maxLabels     = 16
	maxLabelKey   = 63
	maxLabelValue = 256
	maxReason     = 4096
)

var labelKey = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// checkGID reports an illegal gid as ErrInvalidGID.
func checkGID(gid string) error {
	if err := txn.CheckName("gid", gid); err != nil {
		return amendsv1.ErrInvalidGID.With("%v", err).WithMetadata("field", "gid")
	}
	return nil
}

// newKey checks what every start has and returns the key of its gid, which is a
// new UUIDv7 when the caller gave none.
func newKey(namespace, gid string, labels map[string]string) (string, error) {
	if err := checkLabels(labels); err != nil {
		return "", err
	}
	if gid != "" {
		return wire.Key(namespace, gid), checkGID(gid)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("api: making a gid: %w", err)
	}
	return wire.Key(namespace, id.String()), nil
}

// checkLabels joins every mistake into one ErrInvalidArgument.
func checkLabels(labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	var errs []error
	if len(labels) > maxLabels {
		errs = append(errs, fmt.Errorf("there are %d, at most %d are allowed", len(labels), maxLabels))
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if len(key) > maxLabelKey || !labelKey.MatchString(key) {
			errs = append(errs, fmt.Errorf("key %q must be a-z, 0-9 and _, begin with a letter and have at most %d bytes",
				key, maxLabelKey))
		}
		if n := len(labels[key]); n > maxLabelValue {
			errs = append(errs, fmt.Errorf("the value of %q has %d bytes, at most %d are allowed", key, n, maxLabelValue))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return amendsv1.ErrInvalidArgument.With("labels: %v", err).WithMetadata("field", "labels")
	}
	return nil
}

func checkReason(reason string) error {
	if len(reason) > maxReason {
		return amendsv1.ErrInvalidArgument.With("reason has %d bytes, at most %d are allowed", len(reason), maxReason).
			WithMetadata("field", "reason")
	}
	return nil
}

// checkPayload names the field, its size and the limit.
func (s *Server) checkPayload(field string, size, limit int) error {
	if size <= limit {
		return nil
	}
	return amendsv1.ErrTooLarge.
		With("%s has %d bytes, the limit is %d: send a reference to the data, or raise MaxPayload", field, size, limit).
		WithMetadata("field", field).
		WithMetadata("size", strconv.Itoa(size)).
		WithMetadata("limit", strconv.Itoa(limit))
}

// checkSteps checks a saga's payloads and actions. gid is the caller's own.
func (s *Server) checkSteps(ctx context.Context, namespace, gid string, steps []*amendsv1.SagaStep) error {
	total := 0
	for i, step := range steps {
		if n := len(step.GetPayload()); n > s.cfg.MaxPayload {
			return s.checkPayload(fmt.Sprintf("steps[%d].payload (step %q)", i, step.GetName()), n, s.cfg.MaxPayload)
		}
		total += len(step.GetPayload())
	}
	if err := s.checkPayload("the steps' payloads together", total, 4*s.cfg.MaxPayload); err != nil {
		return err
	}
	for i, step := range steps {
		if s.lacks(namespace, step.GetAction()) {
			return s.unlessStarted(ctx, namespace, gid, unknownAction(fmt.Sprintf("steps[%d].action", i), step.GetName(), step.GetAction()))
		}
	}
	return nil
}

// lacks tells whether the service of an action is connected and does not offer
// it. A service that is not connected may come later.
func (s *Server) lacks(namespace, action string) bool {
	service, known := s.offers(namespace, action)
	return service && !known
}

func unknownAction(field, branch, action string) error {
	name, _ := txn.SplitAction(action)
	return amendsv1.ErrUnknownAction.
		With("%s of %q: service %q is connected and does not offer %q", field, branch, name, action).
		WithMetadata("branch", branch).WithMetadata("action", action)
}

// unlessStarted drops err when gid was started before: what a repeated start is
// told must not depend on who is connected now.
func (s *Server) unlessStarted(ctx context.Context, namespace, gid string, err error) error {
	if gid == "" {
		return err
	}
	switch _, loadErr := s.store.Load(ctx, wire.Key(namespace, gid)); {
	case loadErr == nil:
		return nil
	case errors.Is(loadErr, store.ErrNotFound):
		return err
	default:
		return loadErr
	}
}

// checkCheck refuses a check that a service which is connected does not offer.
func (s *Server) checkCheck(ctx context.Context, namespace, gid string, req *amendsv1.BeginTccRequest) error {
	action := req.GetCheck().GetAction()
	if req.GetCheck() == nil || !s.lacks(namespace, action) {
		return nil
	}
	return s.unlessStarted(ctx, namespace, gid, unknownAction("check.action", req.GetName(), action))
}

func (s *Server) checkTry(namespace string, req *amendsv1.TryBranchRequest) error {
	if n := len(req.GetPayload()); n > s.cfg.MaxPayload {
		return s.checkPayload(fmt.Sprintf("payload (branch %q)", req.GetBranch()), n, s.cfg.MaxPayload)
	}
	if s.lacks(namespace, req.GetAction()) {
		return unknownAction("action", req.GetBranch(), req.GetAction())
	}
	return nil
}
