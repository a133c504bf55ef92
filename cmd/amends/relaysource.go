package main

import (
	"fmt"
	"log/slog"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/binlog"
)

// binlogs are what --binlog can be.
var binlogs = map[string]binlog.Mode{"table": binlog.ModeTable, "log": binlog.ModeLog}

// checkSource refuses a --binlog that there is not. The place is resolved.
func (r *relaying) checkSource() error {
	if !r.at.cmd.Flags().Changed("binlog") {
		return nil
	}
	_, known := binlogs[r.binlog]
	switch {
	case !known:
		return usagef("--binlog is %q: give table or log", r.binlog)
	case r.at.path != "":
		return usagef("--binlog is for --mysql: leave it out, --%s has no such log", r.at.pathFlag)
	}
	return r.at.checkLogTLS("--binlog")
}

// checkLogTLS refuses a DSN that does not say how to read the log.
func (l *location) checkLogTLS(of string) error {
	if l.conf != nil && l.conf.AllowFallbackToPlaintext {
		return usagef("%s: tls=preferred leaves open whether to talk TLS: give tls=true, skip-verify or false in the DSN", of)
	}
	return nil
}

// readLog makes the relay read the server's log, if it is to. Where the tables
// keep no rows there are none to count.
func (r *relaying) readLog(relay *outbox.RelayConfig, box *outbox.Config, log *slog.Logger) error {
	if r.binlog == "" {
		return nil
	}
	c, mode := r.at.conf, binlogs[r.binlog]
	src, err := binlog.New(binlog.Config{
		Addr: c.Addr, User: c.User, Password: c.Passwd, Database: c.DBName, TLS: c.TLS, Mode: mode, Logger: log,
	})
	if err != nil {
		return fmt.Errorf("--binlog: %w", err)
	}
	if relay.Source = src; mode == binlog.ModeLog {
		box.MaxRows = -1
	}
	return nil
}
