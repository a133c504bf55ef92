package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

const patience = time.Minute

// echo answers every line with itself until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return lis.Addr().String()
}

func start(t *testing.T) *Proxy {
	t.Helper()
	p, err := Listen(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return p.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// say sends a line through a connection and returns how the answer came.
func say(c net.Conn, within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return err
	}
	_, err := bufio.NewReader(c).ReadString('\n')
	return err
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestProxyCutsAndMends(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	if err := say(c, patience); err != nil {
		t.Fatalf("through a proxy: %v", err)
	}
	p.Cut()
	if err := say(c, patience); err == nil {
		t.Error("a connection outlives a cut")
	}
	if err := say(dial(t, p), patience); err == nil {
		t.Error("a new connection gets through a cut")
	}
	p.Mend()
	if err := say(dial(t, p), patience); err != nil {
		t.Errorf("after a cut was mended: %v", err)
	}
}

func TestProxyFreezesAndDrops(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	p.Freeze()
	if err := say(c, 50*time.Millisecond); err == nil {
		t.Error("something passes a frozen proxy")
	}
	p.Mend()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("after a thaw: %q, %v; what was held back has to arrive", line, err)
	}
	p.Drop()
	if err := say(c, patience); err == nil {
		t.Error("a connection outlives a drop")
	}
	if err := say(dial(t, p), patience); err != nil {
		t.Errorf("a new connection after a drop: %v", err)
	}
}
