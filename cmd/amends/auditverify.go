package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// findings are what verifying found.
type findings struct {
	Transactions int64         `json:"transactions"`
	Events       int64         `json:"events"`
	Broken       []*brokenLink `json:"broken"` // one for each transaction whose trail is broken
}

func (f *findings) check(t *trail) {
	f.add(t, t.verify())
}

func (f *findings) add(t *trail, b *brokenLink) {
	f.Transactions++
	f.Events += int64(len(t.entries))
	if b != nil {
		f.Broken = append(f.Broken, b)
	}
}

// err names the first broken link.
func (f *findings) err() error {
	if len(f.Broken) == 0 {
		return nil
	}
	first := f.Broken[0]
	return fmt.Errorf("the audit trail is broken in %d of %d transactions; the first: transaction %s, event %d: %s",
		len(f.Broken), f.Transactions, printable(first.GID), first.Seq, printable(first.Problem))
}

func (f *findings) print(w io.Writer, out output) error {
	if out.json() {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(f)
	}
	if len(f.Broken) == 0 {
		_, err := fmt.Fprintf(w, "%d transactions, %d events: every link holds\n", f.Transactions, f.Events)
		return err
	}
	t := newTable("GID", "EVENT", "WHAT IS WRONG")
	for _, b := range f.Broken {
		t.row(text(b.GID), text(strconv.FormatInt(b.Seq, 10)), cell{b.Problem, red})
	}
	if err := t.print(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d transactions, %d events: %d trails are broken\n", f.Transactions, f.Events, len(f.Broken))
	return err
}

// verifying is `amends audit verify`.
type verifying struct {
	auditing
	all           bool
	file, against string
}

func newAuditVerify() *cobra.Command {
	var v verifying
	cmd := &cobra.Command{
		Use:   "verify [GID…]",
		Short: "Prove that audit trails are as they were written",
		Long: `Prove that audit trails are as they were written: of the transactions named, of all
that the flags select, or of an export, without a server. Each hash is computed
anew, here, over the exact bytes of its event; the numbers must be 1, 2, 3 …, each
event must name the hash of the one before it, and the last one must be the one
that the transaction names. For each broken trail the first broken link is
printed, and the exit code is 1.

Whoever can write to the whole database can write a trail anew, with every hash
right: --against compares with an export that they could not reach.
` + aboutFilters,
		Example: `  amends audit verify --all
  amends audit verify A-17
  amends audit verify --since 24h
  amends audit verify --file audit.jsonl
  amends audit verify --all --against audit.jsonl`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, gids []string) error {
			filter, err := v.build()
			if err != nil {
				return err
			}
			if err := v.source(gids, filter); err != nil {
				return err
			}
			var found findings
			if err := v.run(cmd, gids, filter, &found); err != nil {
				return err
			}
			return errors.Join(found.print(cmd.OutOrStdout(), v.out), found.err())
		},
	}
	v.flags(cmd)
	cmd.Flags().BoolVar(&v.all, "all", false, "every transaction of the namespace")
	cmd.Flags().StringVar(&v.file, "file", "", "what 'amends audit export' wrote to this `file` (-: standard input)")
	cmd.Flags().StringVar(&v.against, "against", "", "compare with an earlier export in this `file`")
	return cmd
}

// source checks that it is clear what to verify.
func (v *verifying) source(gids []string, filter string) error {
	ways := 0
	for _, given := range []bool{len(gids) > 0, v.all || filter != "", v.file != ""} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return usagef("say what to verify, in one way: gids, --all or flags that select, or --file")
	}
	if v.file == "-" && v.against == "-" {
		return usagef("--file and --against cannot both be standard input")
	}
	return nil
}

func (v *verifying) run(cmd *cobra.Command, gids []string, filter string, found *findings) error {
	w, err := newWitness(v.against)
	if err != nil {
		return err
	}
	check := func(t *trail) error { //nolint:unparam // others who are given trails may fail
		found.add(t, w.check(t))
		return nil
	}
	if v.file != "" {
		err = v.offline(found, check)
	} else {
		err = v.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
			if len(gids) > 0 {
				return named(ctx, c, gids, check)
			}
			return v.each(ctx, c, filter, check)
		})
	}
	if n := w.gone(); err == nil && n > 0 && len(gids) == 0 && filter == "" {
		fmt.Fprintf(cmd.ErrOrStderr(),
			"amends: %d transactions of the earlier export are gone: their retention has ended, or they were removed\n", n)
	}
	return err
}

// named calls fn with the trails of transactions that must be there.
func named(ctx context.Context, c *clients, gids []string, fn func(*trail) error) error {
	for _, gid := range gids {
		resp, err := c.admin.GetTransaction(ctx, &amendsv1.GetTransactionRequest{Gid: gid})
		if err != nil {
			return err
		}
		t, err := fetchTrail(ctx, c.admin, resp.GetTransaction())
		if err != nil {
			return err
		}
		if err := fn(t); err != nil {
			return err
		}
	}
	return nil
}

// offline verifies an export. A transaction that comes twice was put in.
func (v *verifying) offline(found *findings, check func(*trail) error) error {
	seen := map[[2]string]bool{}
	err := readExport(v.file, func(t *trail) error {
		id := [2]string{t.namespace, t.gid}
		if !seen[id] {
			seen[id] = true
			return check(t)
		}
		found.add(t, t.broken(t.entries[0].seq,
			"out of place: other lines of this transaction, or with another head, stand further up"))
		return nil
	})
	if err != nil {
		return fmt.Errorf("--file %s: %w", v.file, err)
	}
	return nil
}

// readExport reads a file, or standard input if its name is a dash.
func readExport(path string, each func(*trail) error) error {
	if path == "-" {
		return readTrails(os.Stdin, each)
	}
	f, err := os.Open(path)
	if err != nil {
		return &usageError{err}
	}
	defer f.Close() // only read: nothing can be lost
	return readTrails(f, each)
}
