package binlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox"
)

const (
	reopenPause = 20 * time.Millisecond // partitions are often taken together
)

// errReopen ends a session because a stream needs one from an earlier position.
var errReopen = errors.New("binlog: a partition was taken over")

// session reads the log over one connection until something fails.
func (s *Source) session(ctx context.Context, identity string) (err error) {
	srv, err := connect(ctx, &s.cfg)
	if err != nil {
		return err
	}
	defer srv.close()
	if err := srv.check(ctx, identity); err != nil {
		return err
	}
	from, err := s.start(ctx, srv)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	r := newReader(ctx, s, srv, from)
	syncer := replication.NewBinlogSyncer(s.syncerConfig(srv, r))
	defer syncer.Close()
	defer func() { s.setReading(false, errors.Join(errDown, err)) }()
	g.Go(func() error { return s.follow(ctx, syncer, from) })
	g.Go(func() error { return s.watch(ctx, srv, r) })
	g.Go(func() error { return s.reopen(ctx) })
	return g.Wait()
}

func (s *Source) syncerConfig(srv *server, r *reader) replication.BinlogSyncerConfig {
	return replication.BinlogSyncerConfig{
		ServerID: s.cfg.ServerID, Flavor: srv.flavor, Host: s.cfg.Addr, User: s.cfg.User, Password: s.cfg.Password,
		TLSConfig: s.cfg.TLS, HeartbeatPeriod: s.cfg.Heartbeat, ReadTimeout: s.cfg.silence(),
		DisableRetrySync: true, // sessions are ours: where one begins has to be known
		VerifyChecksum:   true, DiscardGTIDSet: true,
		RowsEventDecodeFunc:            r.decode,
		TableMapOptionalMetaDecodeFunc: func([]byte) error { return nil }, // not needed
		SynchronousEventHandler:        r,
		Logger:                         slog.New(slog.DiscardHandler), // it logs its configuration, and what is returned here
	}
}

// follow begins to read, and waits for the end of it.
func (s *Source) follow(ctx context.Context, syncer *replication.BinlogSyncer, from position) error {
	streamer, err := startSync(syncer, from)
	if err != nil {
		return s.explain(ctx, from, err)
	}
	s.stats.sessions.Add(1)
	// What is committed from now on is behind from, and so will be read.
	s.setReading(true, nil)
	s.cfg.Logger.Info("outbox: binlog: reading", "addr", s.cfg.Addr, "flavour", from.flavor, "from", from.String())
	_, err = streamer.GetEvent(ctx) // events go to the reader: this is the end
	return s.explain(ctx, from, err)
}

func startSync(syncer *replication.BinlogSyncer, from position) (*replication.BinlogStreamer, error) {
	if from.gtid != nil {
		return syncer.StartSyncGTID(from.gtid.Clone())
	}
	return syncer.StartSync(from.at)
}

// explain says what an error of the connection means here.
func (s *Source) explain(ctx context.Context, from position, err error) error {
	var my *mysql.MyError
	if !errors.As(err, &my) {
		return err
	}
	switch my.Code {
	case mysql.ER_MASTER_FATAL_ERROR_READING_BINLOG:
		return s.purged(ctx, from, err)
	case mysql.ER_SPECIFIC_ACCESS_DENIED_ERROR, mysql.ER_ACCESS_DENIED_ERROR:
		return fmt.Errorf("%w: binlog: %w: GRANT REPLICATION SLAVE ON *.* TO the user %s", outbox.ErrConfig, err, s.cfg.User)
	}
	return err
}

// reopen ends the session when a stream was opened that begins before it may be
// read already. The others pass over what they have.
func (s *Source) reopen(ctx context.Context) error {
	select {
	case <-s.opened:
		pause(ctx, reopenPause)
		return errReopen
	case <-ctx.Done():
		return nil
	}
}

// purged finds out whether an error says that the server has deleted what is
// needed, and says what is lost by that. The error has other meanings, too.
func (s *Source) purged(ctx context.Context, from position, err error) error {
	srv, cerr := connect(ctx, &s.cfg)
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	defer srv.close()
	srv.flavor = from.flavor
	if cerr := srv.readVariables(); cerr != nil {
		return errors.Join(err, cerr)
	}
	oldest, files, cerr := srv.oldest()
	if cerr != nil || s.cfg.Mode == ModeTable || from.covers(oldest) {
		return errors.Join(err, cerr)
	}
	s.stats.lost.Add(1)
	lost := fmt.Errorf("%w: %w: messages behind %s and before %s are lost, as far as they were not published: "+
		"the server has deleted that part of its log; what is left begins with the file %s",
		errLost, err, from, oldest, files[0])
	if !s.cfg.SkipLost {
		return fmt.Errorf("%w: nothing is published until Config.SkipLost allows to go on behind it", lost)
	}
	s.cfg.Logger.Error("outbox: binlog: messages are lost: going on behind them, by Config.SkipLost",
		"error", lost.Error())
	for _, st := range s.all() {
		st.mu.Lock()
		if !st.read.covers(oldest) {
			st.read = oldest
		}
		st.mu.Unlock()
	}
	return lost
}

// errLost says that a part of the log was deleted before it was read.
var errLost = errors.New("binlog: purged")
