package service

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/amends-dev/amends/examples/shop/internal/orders"
	"github.com/amends-dev/amends/sdk"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// faults is what a service does not have in real life: it goes wrong where an
// order asks for it. Its crashes are exits without any farewell.
type faults struct {
	dir string // keeps a mark for each crash, so that it happens once

	mu    sync.Mutex
	armed map[string]bool // gids whose next outcome must not be sent
}

// strike runs at the end of a charge, before its transaction commits.
func (f *faults) strike(ctx context.Context, c Charge) error {
	switch c.Fault {
	case orders.FaultSlow:
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	case orders.FaultCrash:
		first, err := f.first(c.OrderID)
		if first {
			os.Exit(1)
		}
		return err
	case orders.FaultCrashBeforeReply:
		info, _ := sdk.Info(ctx) // the context is a handler's
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.armed == nil {
			f.armed = map[string]bool{}
		}
		f.armed[info.GID] = true
	}
	return nil
}

// first makes the mark of an order's crash, and reports false if it is there.
func (f *faults) first(id string) (bool, error) {
	mark, err := os.OpenFile(filepath.Join(f.dir, "crashed-"+id), os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, mark.Close()
}

// dialOption watches what is sent to the coordinator: the outcome of an armed
// transaction is committed here by then, and the process dies instead of
// telling.
func (f *faults) dialOption() grpc.DialOption {
	return grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
		streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		stream, err := streamer(ctx, desc, cc, method, opts...)
		if err != nil {
			return nil, err
		}
		return &faultyStream{stream, f}, nil
	})
}

type faultyStream struct {
	grpc.ClientStream
	faults *faults
}

// SendMsg implements grpc.ClientStream.
func (s *faultyStream) SendMsg(m any) error {
	if req, ok := m.(*amendsv1.AttendRequest); ok {
		for _, o := range req.GetOutcomes().GetOutcomes() {
			if err := s.faults.telling(o.GetGid()); err != nil {
				return err
			}
		}
	}
	return s.ClientStream.SendMsg(m)
}

func (f *faults) telling(gid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed[gid] {
		return nil
	}
	delete(f.armed, gid)
	first, err := f.first(gid)
	if first {
		os.Exit(1)
	}
	return err
}
