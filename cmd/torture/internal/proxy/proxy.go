// Package proxy stands between two programs that talk over TCP, and cuts,
// freezes or slows what they say.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/services"
)

// Proxy passes on connections from its own address to a target. Its methods may
// be called by many goroutines.
type Proxy struct {
	target string
	lis    net.Listener

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
	cut    bool          // new connections are refused, too
	delay  time.Duration // of each chunk, in each direction
	frozen chan struct{} // nil: it is not; closed when it thaws
}

// Listen takes a free port of loopback below the ephemeral range. The proxy
// passes nothing on before Run.
func Listen(target string) (*Proxy, error) {
	port, err := services.FreePort()
	if err != nil {
		return nil, err
	}
	lis, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("proxy: before %s: %w", target, err)
	}
	return &Proxy{target: target, lis: lis, conns: map[net.Conn]bool{}}, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.lis.Addr().String() }

// Run passes on until ctx ends, and returns when every connection is closed.
func (p *Proxy) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		p.Mend()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Drop()
		return p.lis.Close()
	})
	g.Go(func() error {
		for {
			client, err := p.lis.Accept()
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("proxy: before %s: %w", p.target, err)
			}
			g.Go(func() error { p.serve(ctx, client); return nil })
		}
	})
	return g.Wait()
}

// Cut closes every connection and refuses new ones, until Mend.
func (p *Proxy) Cut() {
	p.mu.Lock()
	p.cut = true
	p.mu.Unlock()
	p.Drop()
}

// Drop closes every connection; new ones are let through.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close() // it may be closed already
	}
}

// Slow delays everything that passes by d, in each direction, until Mend.
func (p *Proxy) Slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Freeze holds back everything, and connections stay, until Mend.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
	}
}

// Mend ends Cut, Slow and Freeze.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.delay = false, 0
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
}

// admit notes a connection. It reports false when there are to be none.
func (p *Proxy) admit(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut || p.closed {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) forget(c net.Conn) {
	_ = c.Close() // it may be closed already
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// serve passes on one connection. Whatever ends it is what a proxy is for.
func (p *Proxy) serve(ctx context.Context, client net.Conn) {
	defer p.forget(client)
	if !p.admit(client) {
		return
	}
	server, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", p.target)
	if err != nil { // it is down: so is the client's connection
		return
	}
	defer p.forget(server)
	if !p.admit(server) {
		return
	}
	var both errgroup.Group
	both.Go(func() error { return p.pass(server, client) })
	both.Go(func() error { return p.pass(client, server) })
	_ = both.Wait() // why it ended is of no interest
}

// pass copies one direction, and closes both ends when it is over.
func (p *Proxy) pass(to, from net.Conn) error {
	defer func() { _, _ = to.Close(), from.Close() }()
	chunk := make([]byte, 32<<10)
	for {
		n, err := from.Read(chunk)
		if n > 0 {
			p.hold()
			if _, err := to.Write(chunk[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// hold waits as long as what passes now is to be delayed.
func (p *Proxy) hold() {
	p.mu.Lock()
	delay, frozen := p.delay, p.frozen
	p.mu.Unlock()
	if frozen != nil {
		<-frozen // Run mends before it ends
	}
	if delay > 0 {
		time.Sleep(delay)
	}
}
