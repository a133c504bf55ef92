package auth

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// maxFile bounds the file of OpenFile, in bytes.
const maxFile = 4 << 20

// File is an Authenticator made of a JSON file of tokens (by their hashes),
// certificates and issuers of JWTs, and of what they are shown and may use: see
// docs/security.md. The file is read again
// within a second of a change when requests come; one that is then missing or
// wrong is reported in the log, and what was read before still counts.
type File struct {
	content *reloaded[*content]
}

// OpenFile reads the file. It reports every mistake in it at once, by the name
// of the field. A nil log is slog.Default().
func OpenFile(path string, log *slog.Logger) (*File, error) {
	if log == nil {
		log = slog.Default()
	}
	var before *content
	r, err := newReloaded(path, []string{path}, log, func() (*content, error) {
		data, err := readBounded(path, maxFile)
		if err != nil {
			return nil, fmt.Errorf("auth: %w", err)
		}
		c, err := parseFile(data, filepath.Dir(path), log)
		if err != nil {
			return nil, fmt.Errorf("auth: %s: %w", path, err)
		}
		c.keep(before)
		before = c
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	return &File{content: r}, nil
}

// readBounded reads a regular file: others may have no end.
func readBounded(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case info.Size() > most:
		return nil, fmt.Errorf("%s is %d bytes long, at most %d are read", path, info.Size(), most)
	}
	return os.ReadFile(path)
}

// Authenticate knows JWTs of the file's issuers, the file's tokens, and the
// file's certificates, those that have not expired since they connected.
func (f *File) Authenticate(ctx context.Context, c Credentials) (*Identity, error) {
	in := f.content.get()
	switch {
	case c.Token != "" && looksLikeJWT(c.Token):
		return in.verified.identity(ctx, in.issuers, c.Token)
	case c.Token != "":
		return staticTokens(in.tokens, c.Token, time.Now())
	case c.Certificate != nil:
		if time.Now().After(c.Certificate.NotAfter) {
			return nil, amendsv1.ErrUnauthenticated.With("the client certificate has expired")
		}
		return byCertificate(in.certificates, c.Certificate)
	}
	return nil, nil
}
