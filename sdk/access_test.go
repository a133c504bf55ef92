package sdk_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
)

// guarded is a coordinator that asks for credentials. tokens are those of its
// file, by subject.
type guarded struct {
	lis    *bufconn.Listener
	tokens map[string]string
}

// guard runs a coordinator for the test. people are entries of its file without
// their tokens.
func guard(t *testing.T, people map[string]string) *guarded {
	t.Helper()
	g := &guarded{lis: bufconn.Listen(1 << 20), tokens: map[string]string{}}
	var entries []string
	for subject, rest := range people {
		g.tokens[subject] = auth.NewToken()
		entries = append(entries, fmt.Sprintf(`{"subject": %q, "sha256": %q, %s}`, subject, auth.HashToken(g.tokens[subject]), rest))
	}
	path := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(path, []byte(`{"tokens": [`+strings.Join(entries, ",")+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	silent := slog.New(slog.DiscardHandler)
	file, err := auth.OpenFile(path, silent)
	if err != nil {
		t.Fatal(err)
	}
	who, err := auth.New(file, &auth.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	st := memstore.New(nil)
	c, err := coordinator.New(t.Context(), st, &coordinator.Config{Auth: who, Logger: silent, DrainTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- c.Run(ctx) }()
	go func() { ended <- c.Serve(ctx, g.lis) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, <-ended, st.Close()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// as is a connection with somebody's credentials; empty: with none.
func (g *guarded) as(t *testing.T, subject string) *grpc.ClientConn {
	t.Helper()
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return g.lis.DialContext(ctx) }),
	}
	if subject != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(sdk.BearerToken(g.tokens[subject], true)))
	}
	conn, err := grpc.NewClient("passthrough:///guarded", opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

var (
	stamp = saga.NewAction[string, string]("stamps.stamp")
	mark  = saga.Define("mark", func(b *saga.Builder, what string) { b.Step("stamp", stamp.With(what)) })
)

// stamping runs a participant until the test ends. It writes down the keys of
// what it does.
func stamping(t *testing.T, conn grpc.ClientConnInterface, db *sql.DB, namespace string) {
	t.Helper()
	p := sdk.NewParticipant("stamps", db, outbox.SQLite,
		&sdk.ParticipantConfig{Namespace: namespace, Logger: slog.New(slog.DiscardHandler)})
	sdk.HandleSaga(p, stamp, func(ctx context.Context, tx *sql.Tx, what string) (string, error) {
		info, _ := sdk.Info(ctx)
		_, err := tx.ExecContext(ctx, "INSERT INTO effects (what) VALUES (?)", info.IdempotencyKey()+": "+what)
		return what, err
	}, nil)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, conn) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func stampsDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "stamps.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := outbox.Migrate(t.Context(), db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE effects (what TEXT NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	return db
}

func stamps(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT what FROM effects ORDER BY what")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var what string
		if err := rows.Scan(&what); err != nil {
			t.Fatal(err)
		}
		all = append(all, what)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func inNamespace(conn grpc.ClientConnInterface, namespace string) *sdk.Client {
	return sdk.NewClient(conn, &sdk.ClientConfig{Namespace: namespace, Logger: slog.New(slog.DiscardHandler)})
}

// TestNamespacesShareADatabase: the same gid is another transaction in each
// namespace, for a participant's database as well.
func TestNamespacesShareADatabase(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	g := guard(t, map[string]string{
		"stamps": `"grants": ["service@red", "service@blue"], "services": ["stamps"]`,
		"red":    `"grants": ["service@red"]`,
		"both":   `"grants": ["service@red", "service@blue"]`,
	})
	db := stampsDB(t)
	for _, namespace := range []string{"red", "blue"} {
		stamping(t, g.as(t, "stamps"), db, namespace)
	}
	both := g.as(t, "both")
	for _, namespace := range []string{"red", "blue"} {
		run, err := sdk.Start(ctx, inNamespace(both, namespace), mark, "in "+namespace, &sdk.StartConfig{GID: "A-17"})
		if err != nil {
			t.Fatal(err)
		}
		if err := run.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// The row of StartTx says where, whatever the namespace of the Starter's client.
	box := outbox.New(outbox.SQLite, &outbox.Config{Logger: slog.New(slog.DiscardHandler)})
	if err := box.Tx(ctx, db, func(tx *sql.Tx) error {
		for _, namespace := range []string{"", "blue"} {
			if _, err := sdk.StartTx(ctx, box, tx, mark, "by row "+namespace, &sdk.StartConfig{GID: "B-" + namespace, Namespace: namespace}); err != nil {
				return err
			}
		}
		_, err := sdk.StartTx(ctx, box, tx, mark, "", &sdk.StartConfig{Namespace: "Not One"})
		if !errors.Is(err, sdk.ErrInvalidArgument) {
			t.Errorf("a wrong namespace: %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	relayTo(t, box, db, sdk.NewStarter(inNamespace(both, "red")))
	for gid, client := range map[string]*sdk.Client{"B-": inNamespace(g.as(t, "red"), ""), "B-blue": inNamespace(both, "blue")} {
		if err := waitStarted(ctx, client.Run(gid)); err != nil {
			t.Errorf("%s: %v", gid, err)
		}
	}
	want := []string{
		"blue A-17 stamp do: in blue", "blue B-blue stamp do: by row blue", "red A-17 stamp do: in red", "red B- stamp do: by row ",
	}
	if got := stamps(t, db); !slices.Equal(got, want) {
		t.Errorf("done:\n%s", strings.Join(got, "\n"))
	}
	if err := inNamespace(both, "red").Run("B-blue").Wait(ctx); !errors.Is(err, sdk.ErrNotFound) {
		t.Errorf("another namespace's transaction: %v", err)
	}
}

// relayTo runs a relay until the test ends.
func relayTo(t *testing.T, box *outbox.Outbox, db *sql.DB, to outbox.Publisher) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	relay := outbox.NewRelay(box, db, to, &outbox.RelayConfig{Logger: slog.New(slog.DiscardHandler)})
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// waitStarted waits for a run that the relay may not have delivered yet.
func waitStarted(ctx context.Context, run *sdk.Run) error {
	for {
		err := run.Wait(ctx)
		if !errors.Is(err, sdk.ErrNotFound) || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(10 * time.Millisecond)
		<-timer.C
	}
}

func TestCredentialsOfClients(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	g := guard(t, map[string]string{
		"caller": `"grants": ["service@red"]`,
		"reader": `"grants": ["viewer@red"]`,
	})
	g.tokens["stranger"] = auth.NewToken()
	for _, c := range []struct {
		subject, namespace string
		want               error // nil: it may
	}{
		{"caller", "red", nil}, {"caller", "", nil}, {"caller", "blue", sdk.ErrPermission},
		{"reader", "red", sdk.ErrPermission}, {"stranger", "red", sdk.ErrUnauthenticated}, {"", "red", sdk.ErrUnauthenticated},
	} {
		client := inNamespace(g.as(t, c.subject), c.namespace)
		_, err := sdk.Start(ctx, client, mark, "x", &sdk.StartConfig{GID: "g"})
		if !errors.Is(err, c.want) || errors.Is(err, sdk.ErrUnknown) {
			t.Errorf("%q in %q starts: %v, want %v", c.subject, c.namespace, err, c.want)
		}
		if err := sdk.RunTCC(ctx, client, "t", func(context.Context, *sdk.TCC) error { return nil }, nil); !errors.Is(err, c.want) {
			t.Errorf("%q in %q runs TCC: %v, want %v", c.subject, c.namespace, err, c.want)
		}
		if c.want == nil {
			continue
		}
		err = client.Run("g").Wait(ctx)
		if !errors.Is(err, c.want) || !errors.Is(err, sdk.ErrUnknown) {
			t.Errorf("%q in %q waits: %v", c.subject, c.namespace, err)
		}
		if err := client.Run("g").Abort(ctx, "because"); !errors.Is(err, c.want) {
			t.Errorf("%q in %q aborts: %v", c.subject, c.namespace, err)
		}
	}
	secure := grpc.WithPerRPCCredentials(sdk.BearerToken("token", false))
	if _, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()), secure); err == nil {
		t.Error("a token goes over a connection without TLS")
	}
}
