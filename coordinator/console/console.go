// Package console is a web console over a coordinator's API and those of relays,
// as an http.Handler: find what is stuck, see why, act on it with a reason.
//
// It is plain HTML, CSS and ES modules, embedded in the binary. Pages ask
// nothing of any other origin, and a strict Content-Security-Policy holds them
// to it. The gateway serves /v1/ beside them; all rights are the coordinator's and
// the relays' to give, by the token that the user types, which stays in the
// browser's tab.
// All addresses are relative, so that the handler can be mounted below any
// folder with http.StripPrefix.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/gateway"
	"google.golang.org/grpc"
)

//go:embed assets
var assets embed.FS

// Config tunes a console. Its zero value, like nil, is ready to use.
type Config struct {
	// Name tells this coordinator from others, for example "production"; it
	// stands at the top of every page. Default: none.
	Name string
	// Gateway is that of /v1/, and of the outboxes. Default: the gateway's defaults.
	Gateway *gateway.Config
	// Outboxes are shown beside the coordinator, in this order. Default: none.
	Outboxes []Outbox
}

// Outbox is a relay, whose API is served below /outbox/NAME/v1/. What it cannot
// answer is missing on the pages, with the reason, and nothing else is.
type Outbox struct {
	// Name is what people call it, and stands in addresses: letters, digits,
	// - _ and . only. Required, and another one for each.
	Name string
	// Conn leads to it, and must carry no credentials of its own: whoever asks
	// the console would have them. Required.
	Conn grpc.ClientConnInterface
	// Letters tells that it is no relay's but the dead letters of a topic's
	// consumers, as outboxapi.Letters serves them: the pages show these alone,
	// and offer to requeue them.
	Letters bool
}

// policy lets a page load its own files and ask its own origin, and no more.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"

// pages are the addresses of the one page that shows everything; its scripts
// read the address.
var pages = map[string]bool{
	"/": true, "/transactions": true, "/transaction": true, "/bulks": true, "/outbox": true, "/deadletters": true, "/deadletter": true,
}

// file is something to serve.
type file struct {
	name string
	body []byte
	etag string
}

type console struct {
	api      http.Handler
	outboxes map[string]http.Handler // by name
	index    file
	files    map[string]file // by path
}

// New returns a handler of the console, and of the API under /v1/, which speaks
// to a coordinator over conn. As for a gateway, the connection must carry no
// credentials of its own. cfg may be nil.
func New(conn grpc.ClientConnInterface, cfg *Config) (http.Handler, error) {
	c := Config{}
	if cfg != nil {
		c = *cfg
	}
	api, err := gateway.New(conn, c.Gateway)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	outboxes, names, err := gateways(c.Outboxes, c.Gateway)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	files, err := load(assets)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	index, err := fill(files["/assets/index.html"], map[string]string{"Name": c.Name, "Outboxes": strings.Join(names, " "), "Letters": letters(c.Outboxes)})
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	delete(files, "/assets/index.html") // a template, of no use as it is
	return &console{api: api, outboxes: outboxes, index: index, files: files}, nil
}

// letters are the names of those that are dead letters of consumers.
func letters(all []Outbox) string {
	var names []string
	for _, o := range all {
		if o.Letters {
			names = append(names, o.Name)
		}
	}
	return strings.Join(names, " ")
}

var outboxName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

func gateways(all []Outbox, cfg *gateway.Config) (byName map[string]http.Handler, names []string, err error) {
	byName = map[string]http.Handler{}
	var errs []error
	for _, o := range all {
		h, err := gateway.NewOutbox(o.Conn, cfg)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("outbox %q: %w", o.Name, err))
		case !outboxName.MatchString(o.Name):
			errs = append(errs, fmt.Errorf("outbox %q: Name must be letters, digits, - _ and . only", o.Name))
		case byName[o.Name] != nil:
			errs = append(errs, fmt.Errorf("outbox %q: another one has this Name", o.Name))
		case o.Conn == nil:
			errs = append(errs, fmt.Errorf("outbox %q: Conn is nil: give a connection to its relay", o.Name))
		}
		byName[o.Name] = http.StripPrefix("/outbox/"+o.Name, h)
		names = append(names, o.Name)
	}
	return byName, names, errors.Join(errs...)
}

func load(from fs.FS) (map[string]file, error) {
	files := map[string]file{}
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(from, name)
		files["/"+name] = newFile(name, body)
		return err
	})
	return files, err
}

func newFile(name string, body []byte) file {
	sum := sha256.Sum256(body)
	return file{name: path.Base(name), body: body, etag: `"` + hex.EncodeToString(sum[:16]) + `"`}
}

// fill puts the console's name, and those of its outboxes, into the page.
func fill(f file, names map[string]string) (file, error) {
	t, err := template.New(f.name).Parse(string(f.body))
	if err != nil {
		return file{}, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, names)
	return newFile(f.name, out.Bytes()), err
}

// ServeHTTP answers one request.
func (c *console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		c.api.ServeHTTP(w, r)
		return
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/outbox/"); ok {
		name, path, _ := strings.Cut(rest, "/")
		if relay := c.outboxes[name]; relay != nil && strings.HasPrefix(path, "v1/") {
			relay.ServeHTTP(w, r)
			return
		}
	}
	f, ok := c.files[r.URL.Path]
	if pages[r.URL.Path] {
		f, ok = c.index, true
	}
	switch {
	case !ok:
		http.NotFound(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	default:
		h.Set("Cache-Control", "no-cache") // asked for again, and mostly unchanged
		h.Set("ETag", f.etag)
		http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.body))
	}
}
