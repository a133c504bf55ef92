package binlog

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// watch asks the server now and then where its log ends, and what of it is left.
// An error ends the session.
func (s *Source) watch(ctx context.Context, srv *server, r *reader) error {
	tick := time.NewTicker(s.cfg.Check)
	defer tick.Stop()
	var before *position // the end of the log at the last check
	var said time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if before != nil && s.cfg.Mode == ModeTable && !r.at().covers(*before) {
			return fmt.Errorf("%w: it is at %s, and was to be at %s for %v: reading goes on at the end",
				errLag, r.at(), before, s.cfg.Check)
		}
		end, err := srv.end()
		if err != nil {
			return err
		}
		before = &end
		if s.cfg.Mode == ModeLog {
			if said, err = s.alarm(srv, end, said); err != nil {
				return err
			}
		}
	}
}

// alarm compares what is needed of the log with what the server keeps. It logs at
// most once a minute, and answers when it did.
func (s *Source) alarm(srv *server, end position, said time.Time) (time.Time, error) {
	needed, anything := s.needed()
	if !anything {
		return said, nil
	}
	now, err := srv.clock()
	if err != nil {
		return said, err
	}
	if err := srv.readVariables(); err != nil { // settings change while the server runs
		return said, err
	}
	_, files, err := srv.oldest()
	if err != nil {
		return said, err
	}
	behind := time.Duration(0)
	if !needed.covers(end) {
		behind = max(0, now.Sub(needed.when))
	}
	keep := srv.expiry()
	left := time.Duration(0)
	if keep > 0 {
		left = max(keep-behind, time.Second)
	}
	s.stats.behind.Store(int64(behind))
	s.stats.left.Store(int64(left))
	why := endangered(needed, behind, keep, files)
	if why == "" {
		return said, nil
	}
	s.stats.alarms.Add(1)
	if time.Since(said) < sayAgain {
		return said, nil
	}
	s.cfg.Logger.Error("outbox: binlog: messages may be lost soon: the server may delete a part of the log that was not "+
		"published yet: see why publishing is behind, or raise binlog_expire_logs_seconds",
		"why", why, "needed", needed.String(), "behind", behind, "kept", keep, "oldest_file", files[0])
	return time.Now(), nil
}

// endangered tells why a part of the log that is needed may go; "": it may not.
func endangered(needed position, behind, keep time.Duration, files []string) string {
	at := slices.Index(files, needed.at.Name)
	switch {
	case keep > 0 && behind > keep/2:
		return "more than half of the time is over for which the server keeps its log"
	case at < 0 && behind > 0:
		return "the file is gone from SHOW BINARY LOGS"
	case at == 0 && len(files) > 1 && behind > time.Minute:
		return "the file is the next to be deleted"
	}
	return ""
}

// needed is the first position that some stream needs.
func (s *Source) needed() (position, bool) {
	var all []position
	for _, st := range s.all() {
		st.mu.Lock()
		all = append(all, st.settled)
		st.mu.Unlock()
	}
	if len(all) == 0 {
		return position{}, false
	}
	return earliest(all), true
}
