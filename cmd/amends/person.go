package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
)

// person is whoever sits at the terminal, if somebody does.
type person struct {
	in    *bufio.Reader
	out   io.Writer
	there bool
}

func personAt(cmd *cobra.Command) *person {
	in := cmd.InOrStdin()
	f, ok := in.(*os.File)
	return &person{bufio.NewReader(in), cmd.ErrOrStderr(), ok && term.IsTerminal(int(f.Fd()))}
}

// ask returns the line that is typed, or that nobody typed one.
func (p *person) ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(p.out, question)
	line := make(chan string, 1)
	// A read of a terminal cannot be called off: when ctx ends first, the
	// program does too, and the read with it.
	new(errgroup.Group).Go(func() error {
		s, err := p.in.ReadString('\n')
		if err == nil || s != "" {
			line <- s
		}
		close(line)
		return nil
	})
	select {
	case s := <-line:
		return strings.TrimSpace(s), nil
	case <-ctx.Done():
		fmt.Fprintln(p.out)
		return "", errors.New("interrupted")
	}
}

// reason is --reason, or what a person says when asked.
func (p *person) reason(ctx context.Context, given string) (string, error) {
	if given = strings.TrimSpace(given); given == "" && p.there {
		var err error
		if given, err = p.ask(ctx, "Reason, for the audit trail: "); err != nil {
			return "", err
		}
	}
	if given == "" {
		return "", usagef("--reason is missing: say why, for the audit trail")
	}
	return given, nil
}

// confirm lets a person think again: they have to type a word. Without a
// terminal it needs --yes.
func (p *person) confirm(ctx context.Context, what, word string) error {
	if !p.there {
		return usagef("%s: give --yes, because there is no terminal to ask at", what)
	}
	typed, err := p.ask(ctx, fmt.Sprintf("%s.\nType %s to go on: ", what, printable(word)))
	switch {
	case err != nil:
		return err
	case typed != word:
		return errors.New("nothing was done: what was typed is something else")
	}
	return nil
}
