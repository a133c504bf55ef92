// Package registry is a schema.Registry over HTTP: Confluent's Schema Registry and
// those that speak its API (Redpanda, Karapace, Apicurio). Bodies are marked in its
// wire format: a zero byte, the schema's id in four bytes, and for Protobuf the
// indexes of the message type.
//
// Ids are remembered for as long as the process runs: they never change their
// meaning. So a registry that is away stops neither writers of schemas that they
// have written before, nor readers of schemas that they have read before.
package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"golang.org/x/sync/singleflight"

	"github.com/amends-dev/amends/outbox/schema"
)

// DefaultTimeout is the default of Config.Timeout.
const DefaultTimeout = 5 * time.Second

// Config are the options of a Registry. The zero value, and nil, are the defaults.
type Config struct {
	// Register registers schemas that the registry does not have. Otherwise writing
	// with one is schema.ErrNotRegistered: in production, a pipeline registers them.
	Register bool
	// Subject names the subject of a topic's schemas. Default: the topic and
	// "-value", as Confluent's serializers do.
	Subject func(topic string) string
	// Timeout bounds one question to the registry; default DefaultTimeout.
	Timeout time.Duration
}

// Registry asks a registry, once for each schema. Safe for concurrent use.
type Registry struct {
	client *sr.Client
	cfg    Config
	header sr.ConfluentHeader
	asking singleflight.Group

	mu   sync.Mutex
	ids  map[[sha256.Size]byte]int
	byID map[int]schema.Definition
}

// New makes a registry of a client, which knows addresses, credentials and TLS.
func New(client *sr.Client, cfg *Config) (*Registry, error) {
	r := &Registry{client: client, ids: map[[sha256.Size]byte]int{}, byID: map[int]schema.Definition{}}
	if cfg != nil {
		r.cfg = *cfg
	}
	if client == nil {
		return nil, errors.New("registry: New: the client is nil: make one with sr.NewClient")
	}
	if r.cfg.Timeout < 0 {
		return nil, errors.New("registry: New: field Timeout is negative: use 0 for the default")
	}
	r.cfg.Timeout = cmp.Or(r.cfg.Timeout, DefaultTimeout)
	if r.cfg.Subject == nil {
		r.cfg.Subject = func(topic string) string { return topic + "-value" }
	}
	return r, nil
}

// Mark implements schema.Registry.
func (r *Registry) Mark(ctx context.Context, topic string, d schema.Definition, indexes []int, body []byte) ([]byte, error) {
	id, err := r.id(ctx, r.cfg.Subject(topic), d)
	if err != nil {
		return nil, err
	}
	out, err := r.header.AppendEncode(make([]byte, 0, len(body)+16), id, indexes)
	if err != nil {
		return nil, fmt.Errorf("registry: mark: %w", err)
	}
	return append(out, body...), nil
}

// Prepare asks the registry for a schema now, so that the first message does not
// have to wait for it, and a service with a schema that is refused does not start.
func (r *Registry) Prepare(ctx context.Context, topic string, d schema.Definition) error {
	_, err := r.id(ctx, r.cfg.Subject(topic), d)
	return err
}

// id is that of a schema under a subject.
func (r *Registry) id(ctx context.Context, subject string, d schema.Definition) (int, error) {
	text, err := json.Marshal([]any{subject, d})
	if err != nil {
		return 0, fmt.Errorf("registry: %w", err) // strings cannot fail
	}
	key := sha256.Sum256(text)
	r.mu.Lock()
	id, ok := r.ids[key]
	r.mu.Unlock()
	if ok {
		return id, nil
	}
	found, err := r.once(ctx, "id "+string(key[:]), func(ctx context.Context) (any, error) {
		s, err := r.ask(ctx, subject, d)
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ids[key], r.byID[s.ID] = s.ID, d
		}
		return s.ID, err
	})
	if err != nil {
		return 0, err
	}
	id, _ = found.(int) // it is
	return id, nil
}

// once runs a question that several may have at the same time. It goes on when the
// one who asked first goes away.
func (r *Registry) once(ctx context.Context, key string, ask func(ctx context.Context) (any, error)) (any, error) {
	answer := r.asking.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.Timeout)
		defer cancel()
		return ask(ctx)
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", schema.ErrAway, ctx.Err())
	case a := <-answer:
		return a.Val, a.Err
	}
}

// ask looks a schema up, or registers it, after those that it refers to.
func (r *Registry) ask(ctx context.Context, subject string, d schema.Definition) (sr.SubjectSchema, error) {
	s := sr.Schema{Schema: d.Text}
	if err := s.Type.UnmarshalText([]byte(d.Type)); err != nil {
		return sr.SubjectSchema{}, fmt.Errorf("%w: type %q: %w", schema.ErrSchema, d.Type, err)
	}
	for _, ref := range d.References {
		found, err := r.ask(ctx, ref.Name, ref.Definition)
		if err != nil {
			return sr.SubjectSchema{}, err
		}
		s.References = append(s.References, sr.SchemaReference{Name: ref.Name, Subject: ref.Name, Version: found.Version})
	}
	var found sr.SubjectSchema
	var err error
	if r.cfg.Register {
		found, err = r.client.CreateSchema(ctx, subject, s)
	} else {
		found, err = r.client.LookupSchema(ctx, subject, s)
	}
	if err != nil {
		return sr.SubjectSchema{}, r.explain(subject, err)
	}
	return found, nil
}

// explain says what an error means.
func (r *Registry) explain(subject string, err error) error {
	var answer *sr.ResponseError
	switch {
	case !errors.As(err, &answer) || away(answer.StatusCode):
		return fmt.Errorf("%w: subject %q: %w", schema.ErrAway, subject, err)
	case answer.StatusCode == http.StatusNotFound && !r.cfg.Register:
		return fmt.Errorf("%w: subject %q: register it, or set Config.Register: %w", schema.ErrNotRegistered, subject, err)
	}
	return fmt.Errorf("%w: subject %q: %d %w", schema.ErrRefused, subject, answer.StatusCode, err)
}

// away tells statuses that say nothing about what was asked.
func away(status int) bool {
	return status >= http.StatusInternalServerError || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// Read implements schema.Registry.
func (r *Registry) Read(ctx context.Context, body []byte) (schema.Marked, error) {
	id, rest, err := r.header.DecodeID(body)
	if err != nil {
		return schema.Marked{}, fmt.Errorf("%w: it does not begin with a zero byte and a schema's id", schema.ErrBody)
	}
	r.mu.Lock()
	d, ok := r.byID[id]
	r.mu.Unlock()
	if !ok {
		found, err := r.once(ctx, fmt.Sprint("definition ", id), func(ctx context.Context) (any, error) { return r.fetch(ctx, id) })
		if err != nil {
			return schema.Marked{}, err
		}
		d, _ = found.(schema.Definition) // it is
	}
	return schema.Marked{ID: id, Definition: d, Body: rest}, nil
}

// fetch asks for the schema of an id.
func (r *Registry) fetch(ctx context.Context, id int) (schema.Definition, error) {
	s, err := r.client.SchemaByID(ctx, id)
	var answer *sr.ResponseError
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return schema.Definition{}, fmt.Errorf("%w: %d: %w", schema.ErrUnknownID, id, err)
	case err != nil:
		return schema.Definition{}, fmt.Errorf("%w: schema %d: %w", schema.ErrAway, id, err)
	}
	d, err := r.definition(ctx, s)
	if err != nil {
		return schema.Definition{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byID[id] = d
	return d, nil
}

// definition is a registry's schema with all that it refers to.
func (r *Registry) definition(ctx context.Context, s sr.Schema) (schema.Definition, error) {
	d := schema.Definition{Type: schema.Type(s.Type.String()), Text: s.Schema}
	for _, ref := range s.References {
		found, err := r.client.SchemaByVersion(ctx, ref.Subject, ref.Version)
		if err != nil {
			return schema.Definition{}, fmt.Errorf("%w: subject %q, version %d: %w", schema.ErrAway, ref.Subject, ref.Version, err)
		}
		inner, err := r.definition(ctx, found.Schema)
		if err != nil {
			return schema.Definition{}, err
		}
		d.References = append(d.References, schema.Reference{Name: ref.Name, Definition: inner})
	}
	return d, nil
}
