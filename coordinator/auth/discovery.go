package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/sync/errgroup"
)

// wellKnown is where OpenID Connect Discovery has an issuer describe itself.
const wellKnown = "/.well-known/openid-configuration"

// maxDiscovery bounds what an issuer says of itself, in bytes.
const maxDiscovery = 64 << 10

// discovery finds an issuer's keys by OpenID Connect Discovery 1.0.
type discovery struct {
	issuer string
	client *http.Client
}

// locate asks the issuer where its keys are. What it says of algorithms does
// not count: those are pinned.
func (d discovery) locate(ctx context.Context) (string, error) {
	at := strings.TrimSuffix(d.issuer, "/") + wellKnown
	data, err := fetch(ctx, d.client, at, maxDiscovery)
	if err != nil {
		return "", fmt.Errorf("discovery: %w", err)
	}
	var said struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if json.Unmarshal(data, &said) != nil {
		return "", fmt.Errorf("discovery: %s is no JSON object with issuer and jwks_uri", at)
	}
	if said.Issuer != d.issuer {
		return "", fmt.Errorf("discovery: %s describes the issuer %q, not this one: they must be the same to the letter", at, shown(said.Issuer))
	}
	if err := checkURL(said.JWKSURI); err != nil {
		return "", fmt.Errorf("discovery: jwks_uri in %s: %w", at, err)
	}
	if strings.HasPrefix(d.issuer, "https:") && !strings.HasPrefix(said.JWKSURI, "https:") {
		return "", fmt.Errorf("discovery: jwks_uri in %s: want https, as the issuer is", at)
	}
	return said.JWKSURI, nil
}

// keep takes over the fetched keys of issuers that are configured as they were:
// a change of the file is no reason to depend on issuers being there just then.
func (c *content) keep(before *content) {
	if before == nil {
		return
	}
	for name, by := range c.issuers {
		old := before.issuers[name]
		if old == nil {
			continue
		}
		was, fetched := old.keys.(*urlKeys)
		if is, same := by.keys.(*urlKeys); fetched && same && is.name == was.name {
			by.keys = was
		}
	}
}

// fixed is a place of keys that was written down.
func fixed(url string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return url, nil }
}

// fetch returns what is behind a URL, if it is no more than most bytes.
func fetch(ctx context.Context, client *http.Client, from string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", from, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s answers with over %d bytes", from, most)
	}
	return data, nil
}

// checkURL: whoever can change the keys on their way can sign any token.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("want https://host/path, without a user")
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return fmt.Errorf("want https, not %s", shown(u.Scheme))
	}
	return nil
}

// Prefetch fetches the keys of all issuers whose keys are behind a URL, so that
// the first token need not wait, and the log says at the start which issuer does
// not answer. That is no error: they are fetched again when they are needed.
func (f *File) Prefetch(ctx context.Context) {
	var g errgroup.Group
	for _, by := range f.content.get().issuers {
		if keys, ok := by.keys.(*urlKeys); ok {
			g.Go(func() error {
				_, err := keys.find(ctx, "")
				return err
			})
		}
	}
	_ = g.Wait() // the log has it
}
