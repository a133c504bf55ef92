package auth

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// How keys of a URL are kept.
const (
	keysFresh    = 15 * time.Minute // then they are fetched again
	keysUsable   = 24 * time.Hour   // then they count no more, if they could not be
	keysRetry    = 10 * time.Second // between two attempts at most
	fetchTimeout = 5 * time.Second

	maxKeys      = 64
	maxKeysBytes = 1 << 20
	minRSABits   = 2048
)

// parseKeys reads a JSON Web Key Set. What cannot verify a signature safely
// (private, symmetric, weak or unknown keys, keys for encryption) is left out.
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("no JSON Web Key Set: want {\"keys\": [...]}")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d are read", len(set.Keys), maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && usable(&key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in it that can verify signatures")
	}
	return keys, nil
}

func usable(key *jose.JSONWebKey) bool {
	if weak, ok := key.Key.(*rsa.PublicKey); ok && weak.N.BitLen() < minRSABits {
		return false
	}
	return key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig")
}

func matching(keys []jose.JSONWebKey, id string) []jose.JSONWebKey {
	if id == "" {
		return keys
	}
	var found []jose.JSONWebKey
	for _, k := range keys {
		if k.KeyID == id {
			found = append(found, k)
		}
	}
	return found
}

// fileKeys are the keys of a file.
type fileKeys struct {
	*reloaded[[]jose.JSONWebKey]
}

func newFileKeys(path string, log *slog.Logger) (fileKeys, error) {
	r, err := newReloaded("keys in "+path, []string{path}, log, func() ([]jose.JSONWebKey, error) {
		data, err := readBounded(path, maxKeysBytes)
		if err != nil {
			return nil, err
		}
		keys, err := parseKeys(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return keys, nil
	})
	return fileKeys{r}, err
}

func (f fileKeys) find(_ context.Context, id string) ([]jose.JSONWebKey, error) {
	return matching(f.get(), id), nil
}

// urlKeys are the keys behind a URL, which may have to be discovered. They are fetched when they are first
// needed, when they are old, and when a token names one that is not among them;
// never more often than every keysRetry, whatever tokens come.
type urlKeys struct {
	name   string // in logs: the URL, or the issuer that knows it
	locate func(ctx context.Context) (url string, err error)
	client *http.Client
	log    *slog.Logger
	turn   chan struct{} // taken by the one who fetches

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time
	tried   time.Time
	failed  bool // the last attempt
}

func newURLKeys(name string, locate func(context.Context) (string, error), client *http.Client, log *slog.Logger) *urlKeys {
	return &urlKeys{name: name, locate: locate, client: client, log: log, turn: make(chan struct{}, 1)}
}

func (u *urlKeys) find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	found, due := u.cached(id)
	if !due {
		return found, nil
	}
	select {
	case u.turn <- struct{}{}:
	default:
		if len(found) > 0 { // somebody else fetches newer ones
			return found, nil
		}
		select {
		case u.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-u.turn }()
	if found, due = u.cached(id); due { // else the one before has fetched it
		u.refresh(ctx)
		found, _ = u.cached(id)
	}
	if len(found) == 0 && u.lastFailed() {
		return nil, amendsv1.ErrUnavailable.With("the keys of the token's issuer cannot be fetched just now")
	}
	return found, nil
}

// cached returns the keys that there are, and whether to look for newer ones.
func (u *urlKeys) cached(id string) (found []jose.JSONWebKey, due bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	age := time.Since(u.fetched)
	if age < keysUsable {
		found = matching(u.keys, id)
	}
	return found, len(found) == 0 || age >= keysFresh
}

func (u *urlKeys) lastFailed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failed
}

// refresh fetches, for others too: it does not end with one request.
func (u *urlKeys) refresh(ctx context.Context) {
	u.mu.Lock()
	soon := time.Since(u.tried) < keysRetry
	u.mu.Unlock()
	if soon {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	keys, err := u.fetch(ctx)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tried, u.failed = time.Now(), err != nil
	if err != nil {
		u.log.Error("auth: the keys of an issuer cannot be fetched: "+u.consequence(), "of", u.name, "err", err)
		return
	}
	u.keys, u.fetched = keys, u.tried
}

// consequence is what becomes of the issuer's tokens meanwhile.
func (u *urlKeys) consequence() string {
	if left := keysUsable - time.Since(u.fetched); len(u.keys) > 0 && left > 0 {
		return "those fetched before count for " + left.Round(time.Minute).String() + " more"
	}
	return "its tokens are refused until they can be"
}

func (u *urlKeys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	at, err := u.locate(ctx)
	if err != nil {
		return nil, err
	}
	data, err := fetch(ctx, u.client, at, maxKeysBytes)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return keys, nil
}

// keysClient follows no redirect: the URL in the configuration is the one that
// is trusted.
func keysClient() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the answer is a redirect: configure the URL that it leads to")
	}}
}
