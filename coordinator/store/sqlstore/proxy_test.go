package sqlstore_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// verdict is what becomes of a commit that passes through a proxy.
type verdict uint8

const (
	pass        verdict = iota
	loseRequest         // the server never sees it
	loseReply           // the server executes it, the client never hears so
)

// proxy stands between a store and its server and understands as much of what
// they say as is needed to see a COMMIT, or the execution of a statement that
// names onceGID, whose commits are of one statement.
type proxy struct {
	dsn string // of the database through the proxy

	mu     sync.Mutex
	judge  func(connection uint32) verdict // of a commit; may take its time
	conns  map[net.Conn]bool
	closed bool
}

// onceGID is a gid that a proxy takes notice of.
const onceGID = "committed-at-once"

// startProxy listens before the server of a DSN until the test ends.
func startProxy(t *testing.T, dsn string) *proxy {
	t.Helper()
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	network, server := conf.Net, conf.Addr
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conf.Net, conf.Addr = "tcp", listener.Addr().String()
	p := &proxy{dsn: conf.FormatDSN(), conns: make(map[net.Conn]bool)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed at the end
			}
			upstream, err := net.Dial(network, server)
			if err != nil { // the server is down: so is the client's connection
				_ = client.Close()
				continue
			}
			p.keep(client, upstream)
			l := &link{p: p, client: client, server: upstream}
			all.Go(l.forth)
			all.Go(l.back)
		}
	})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		p.closeAll()
		all.Wait()
	})
	return p
}

func (p *proxy) keep(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.conns[c] = true; p.closed {
			_ = c.Close()
		}
	}
}

func (p *proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close() // may be closed already
	}
}

// nextBy says what becomes of the next commit; those after it pass.
func (p *proxy) nextBy(judge func(connection uint32) verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge = judge
}

func (p *proxy) verdict(connection uint32) verdict {
	p.mu.Lock()
	judge := p.judge
	p.judge = nil
	p.mu.Unlock()
	if judge == nil {
		return pass
	}
	return judge(connection)
}

// link is one connection through the proxy.
type link struct {
	p              *proxy
	client, server net.Conn

	mu         sync.Mutex
	deaf       bool // what the server says is not passed on any more
	connection uint32
}

func (l *link) end() {
	_, _ = l.client.Close(), l.server.Close() // whatever was lost is what the tests are about
}

// forth passes on what the client says, packet by packet.
func (l *link) forth() {
	defer l.end()
	from := bufio.NewReader(l.client)
	for {
		packet, err := readPacket(from)
		if err != nil {
			return
		}
		if isCommit(packet[4:]) {
			l.mu.Lock()
			connection := l.connection
			l.mu.Unlock()
			switch l.p.verdict(connection) {
			case loseRequest:
				return
			case loseReply:
				l.mu.Lock()
				l.deaf = true
				l.mu.Unlock()
			}
		}
		if _, err := l.server.Write(packet); err != nil {
			return
		}
	}
}

func isCommit(command []byte) bool {
	const execute = 0x17
	return bytes.Equal(command, []byte("\x03COMMIT")) ||
		len(command) > 0 && command[0] == execute && bytes.Contains(command, []byte(onceGID))
}

// back passes on what the server says. Its first packet names the connection.
func (l *link) back() {
	defer l.end()
	from := bufio.NewReader(l.server)
	greeting, err := readPacket(from)
	if err != nil {
		return
	}
	if _, rest, found := bytes.Cut(greeting[5:], []byte{0}); found && len(rest) >= 4 {
		l.mu.Lock()
		l.connection = binary.LittleEndian.Uint32(rest)
		l.mu.Unlock()
	}
	if _, err := l.client.Write(greeting); err != nil {
		return
	}
	for {
		packet, err := readPacket(from)
		l.mu.Lock()
		deaf := l.deaf
		l.mu.Unlock()
		if err != nil || deaf {
			return
		}
		if _, err := l.client.Write(packet); err != nil {
			return
		}
	}
}

// readPacket reads a packet with its header: its length in three bytes, and
// its number.
func readPacket(from io.Reader) ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(from, header[:]); err != nil {
		return nil, err
	}
	n := int(header[0]) | int(header[1])<<8 | int(header[2])<<16
	packet := make([]byte, 4+n)
	copy(packet, header[:])
	_, err := io.ReadFull(from, packet[4:])
	return packet, err
}
