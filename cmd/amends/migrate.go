package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"
)

func newMigrate() *cobra.Command {
	var at location
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the tables of a coordinator or of a service up to date",
		Long: `Bring the tables of a coordinator's store up to date, and say from what to what.
'amends serve' does so too when it starts; migrate is for those who give that one
no right to change tables. It changes nothing when there is nothing to do.
` + aboutDSN,
		Example: `  amends migrate --data-dir /var/lib/amends
  ` + mysqlEnv + `='amends:…@tcp(db:3306)/amends' amends migrate`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.resolve(); err != nil {
				return err
			}
			warnings := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			return at.upgradeStore(cmd.Context(), cmd.OutOrStdout(), warnings)
		},
	}
	at.flags(cmd, "data-dir", "`directory` of a coordinator (created if missing)")
	cmd.AddCommand(newMigrateOutbox())
	return cmd
}

func newMigrateOutbox() *cobra.Command {
	var at location
	cmd := &cobra.Command{
		Use:   "outbox",
		Short: "Bring the outbox and inbox in a service's database up to date",
		Long: `Bring the tables of outbox and inbox in a service's database up to date, and say
from what to what. 'amends relay' and outbox.Migrate do the same. The database
has to be there; its other tables are left alone.
` + aboutDSN,
		Example: `  amends migrate outbox --sqlite orders.db
  ` + mysqlEnv + `='orders:…@tcp(db:3306)/orders' amends migrate outbox`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.resolve(); err != nil {
				return err
			}
			return at.upgradeOutbox(cmd.Context(), cmd.OutOrStdout())
		},
	}
	at.flags(cmd, "sqlite", "SQLite database, as a `file`")
	return cmd
}

func (l *location) upgradeStore(ctx context.Context, w io.Writer, log *slog.Logger) error {
	before, err := l.storeVersion(ctx)
	if err != nil {
		return err
	}
	st, err := l.openStore(ctx, log, nil)
	if err != nil {
		return err
	}
	if err := st.Close(); err != nil {
		return err
	}
	after, err := l.storeVersion(ctx)
	if err != nil {
		return err
	}
	return l.tell(w, "coordinator", before, after)
}

func (l *location) upgradeOutbox(ctx context.Context, w io.Writer) (err error) {
	db, dialect, err := l.openOutbox()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	before, err := l.newest(ctx, db, outboxTable, outboxNewest)
	if err != nil {
		return err
	}
	if err := l.migrateOutbox(ctx, db, dialect); err != nil {
		return err
	}
	after, err := l.newest(ctx, db, outboxTable, outboxNewest)
	if err != nil {
		return err
	}
	return l.tell(w, "outbox and inbox", before, after)
}

func (l *location) tell(w io.Writer, what, before, after string) error {
	change := fmt.Sprintf("from %s to %s", before, after)
	if before == after {
		change = "up to date at " + after
	}
	_, err := fmt.Fprintf(w, "amends: tables of %s in %s: %s\n", what, l, change)
	return err
}
