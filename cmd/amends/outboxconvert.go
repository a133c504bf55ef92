package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/outbox/binlog"
)

func newOutboxConvert() *cobra.Command {
	var at location
	cmd := &cobra.Command{
		Use:   "convert",
		Short: "Make the outbox's tables keep nothing, for 'amends relay --binlog log'",
		Long: `Give the outbox's tables the engine BLACKHOLE: messages are then in the server's
binary log alone, from where 'amends relay --binlog log' reads them. It notes where
the log ends, waits up to three seconds for each table to be empty, and alters it,
so let the relays publish what there is first; writers may go on. What a relay
publishes meanwhile comes again. Run twice it changes nothing the second time.
` + aboutDSN,
		Example: `  amends outbox convert --mysql 'orders:…@tcp(db:3306)/orders'`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return convertOutbox(cmd, &at) },
	}
	at.flags(cmd, "sqlite", "not possible: SQLite has no binary log (`file`)")
	return cmd
}

func convertOutbox(cmd *cobra.Command, at *location) (err error) {
	if err := at.resolve(); err != nil {
		return err
	}
	if at.conf == nil {
		return usagef("outbox convert is for MySQL and MariaDB: give --mysql, SQLite has no binary log")
	}
	if err := at.checkLogTLS("outbox convert"); err != nil {
		return err
	}
	db, _, err := at.openOutbox()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c := at.conf
	err = binlog.Convert(cmd.Context(), db, binlog.Config{
		Addr: c.Addr, User: c.User, Password: c.Passwd, Database: c.DBName, TLS: c.TLS, Mode: binlog.ModeLog,
		Logger: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	switch {
	case errors.Is(err, binlog.ErrNotEmpty):
		return fmt.Errorf("%w: run a relay until 'amends outbox depth' is 0, and try again", err)
	case err != nil:
		return at.explain(err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "amends: the outbox in %s is in the log alone: run its relays with --binlog log, "+
		"and give each writer's outbox.Config MaxRows: -1\n", at)
	return err
}
