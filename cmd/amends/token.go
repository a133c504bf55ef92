package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/coordinator/auth"
)

// authEntry is what stands for a token in the auth file.
type authEntry struct {
	Subject  string   `json:"subject"`
	Grants   []string `json:"grants"`
	Services []string `json:"services,omitempty"`
	SHA256   string   `json:"sha256"`
	Expires  string   `json:"expires,omitempty"`
}

func newToken() *cobra.Command {
	cmd := group(&cobra.Command{Use: "token", Short: "Make tokens for those who call a coordinator"})
	cmd.AddCommand(newTokenNew())
	return cmd
}

func newTokenNew() *cobra.Command {
	var e authEntry
	var out output
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make a token, and the entry that stands for it in the auth file",
		Long: `Make a token, and the entry that stands for it among the "tokens" of the file that
'amends serve --auth-file' reads. The token is shown this once and kept nowhere:
the file holds its hash. A grant is a role (viewer, operator, break-glass, service)
in the default namespace, role@namespace, or role@* for all.`,
		Example: `  amends token new --subject alice@example.com --grant operator@shop --grant 'viewer@*'
  amends token new --subject accounts --grant service --service accounts --ttl 2160h`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.check(ttl); err != nil {
				return err
			}
			if ttl > 0 {
				e.Expires = time.Now().Add(ttl).UTC().Format(time.RFC3339)
			}
			token := auth.NewToken()
			e.SHA256 = auth.HashToken(token)
			return e.print(cmd.OutOrStdout(), out, token)
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.Subject, "subject", "", "who it is, as audit trails will name them (required)")
	f.StringArrayVar(&e.Grants, "grant", nil, "`role[@namespace]` (required; can be repeated)")
	f.StringArrayVar(&e.Services, "service", nil, "of role service: a participant that it may answer for, or * (can be repeated)")
	f.DurationVar(&ttl, "ttl", 0, "how long it counts (default: for ever)")
	out.flag(cmd)
	return cmd
}

// check finds what the auth file would refuse.
func (e *authEntry) check(ttl time.Duration) error {
	var errs []error
	if e.Subject == "" {
		errs = append(errs, errors.New("--subject is missing: say who it is for"))
	}
	if len(e.Grants) == 0 {
		errs = append(errs, errors.New("--grant is missing: say what it may do, for example --grant viewer"))
	}
	for _, g := range e.Grants {
		_, err := auth.ParseGrant(g)
		errs = append(errs, err)
	}
	if ttl < 0 {
		errs = append(errs, fmt.Errorf("--ttl is %v: give a duration above 0", ttl))
	}
	if err := errors.Join(errs...); err != nil {
		return &usageError{err}
	}
	return nil
}

func (e *authEntry) print(w io.Writer, out output, token string) error {
	entry, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if out.json() {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{"token": token, "entry": json.RawMessage(entry)})
	}
	_, err = fmt.Fprintf(w, "Token, shown this once:\n%s\n\nEntry for \"tokens\" of the auth file:\n%s\n", token, entry)
	return err
}
