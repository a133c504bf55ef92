package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// maxReply bounds what `tx complete --reply @file` reads, in bytes.
const maxReply = 16 << 20

// resends are the waits before a request to act is sent again because nobody
// answered it. Its request_id makes that safe.
var resends = [...]time.Duration{200 * time.Millisecond, 500 * time.Millisecond, time.Second}

// acting is one verb for one transaction.
type acting struct {
	asking
	gid, branch             string
	reason, requestID, etag string
	dryRun, yes             bool
	reply                   string
	encoded                 []byte // of reply
}

func (v *verb) command() *cobra.Command {
	a := acting{}
	cmd := &cobra.Command{
		Use: v.name + " " + v.args, Short: v.short, Args: v.check,
		Long: v.long + `

The transaction is printed as it is afterwards. A request that nobody answers is
sent again with the same --request-id, which has it done once only.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a.gid = args[0]
			if len(args) > 1 {
				a.branch = args[1]
			}
			return a.run(cmd, v)
		},
	}
	a.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&a.reason, "reason", "", "why, for the audit trail (asked for on a terminal)")
	f.StringVar(&a.requestID, "request-id", "", "key by which a repeated request is known (default: a random one)")
	f.StringVar(&a.etag, "etag", "", "only if the transaction is still as 'tx get' showed it with this etag")
	f.BoolVar(&a.dryRun, "dry-run", false, "only say whether it would be legal")
	if v.name == "complete" {
		f.StringVar(&a.reply, "reply", "", "what the branch replies, as JSON or `@file` (@-: standard input)")
	}
	if v.name == "abandon" {
		f.BoolVar(&a.yes, "yes", false, "don't ask for the gid to be typed")
	}
	return cmd
}

func (a *acting) run(cmd *cobra.Command, v *verb) (err error) {
	ctx := cmd.Context()
	if a.encoded, err = encodedReply(a.reply, cmd.InOrStdin()); err != nil {
		return err
	}
	p := personAt(cmd)
	switch {
	case a.dryRun && a.reason == "":
		a.reason = "dry run" // which nobody will read
	default:
		if a.reason, err = p.reason(ctx, a.reason); err != nil {
			return err
		}
	}
	if v.name == "abandon" && !a.yes && !a.dryRun {
		what := fmt.Sprintf("Abandoning %s ends it as it stands: its effects may remain, and nothing undoes them", printable(a.gid))
		if err := p.confirm(ctx, what, a.gid); err != nil {
			return err
		}
	}
	if a.requestID == "" {
		a.requestID = rand.Text()
	}
	doubt := false
	err = a.ask(ctx, func(ctx context.Context, c *clients) (err error) {
		if doubt, err = resend(ctx, func() error { return v.do(ctx, c.operator, a) }); err != nil {
			return err
		}
		if a.dryRun {
			fmt.Fprintf(cmd.ErrOrStderr(), "amends: %s would be legal; nothing was done\n", v.name)
		}
		return a.show(ctx, cmd.OutOrStdout(), c, a.gid, false)
	})
	if doubt && !a.dryRun {
		return fmt.Errorf("%w; it was done or it was not: to make sure, repeat it with --request-id %s", err, a.requestID)
	}
	return err
}

// resend repeats what nobody answered. An answer, whatever it says, is the end.
// doubt tells that there was none, though the request may have been carried out.
func resend(ctx context.Context, send func() error) (doubt bool, err error) {
	for try := 0; ; try++ {
		err = send()
		lost := amendsv1.FromError(err)
		again := errors.Is(lost, amendsv1.ErrUnavailable)
		if !again && !errors.Is(lost, context.DeadlineExceeded) && !errors.Is(lost, context.Canceled) {
			return false, err
		}
		doubt = doubt || !strings.Contains(err.Error(), "Error while dialing") // then it was never sent
		if !again || try == len(resends) {
			return doubt, err
		}
		select {
		case <-ctx.Done():
			return doubt, err
		case <-time.After(resends[try]):
		}
	}
}

// encodedReply reads --reply: JSON, or the bytes of a file, whatever they are.
func encodedReply(reply string, stdin io.Reader) ([]byte, error) {
	path, file := strings.CutPrefix(reply, "@")
	switch {
	case file && path == "-":
		data, err := io.ReadAll(io.LimitReader(stdin, maxReply+1))
		if err == nil && len(data) > maxReply {
			err = fmt.Errorf("standard input is longer than %d bytes", maxReply)
		}
		return data, err
	case file:
		data, err := readFile(path, maxReply)
		if err != nil {
			return nil, usagef("--reply: %w", err)
		}
		return data, nil
	case reply != "" && !json.Valid([]byte(reply)):
		return nil, usagef("--reply %q is no JSON: quote texts, for example '\"A-17\"', or give @file", reply)
	case reply == "":
		return nil, nil
	}
	return []byte(reply), nil
}
