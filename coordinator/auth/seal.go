package auth

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// sealHeader says, between the members of a cluster, who sent a request that one
// of them forwards to another.
const sealHeader = "amends-forwarded-bin"

// sealVersion is that of what is sealed, sealedFor how long it is believed. The
// members' clocks may be as far apart.
const (
	sealVersion = 1
	sealedFor   = time.Minute
	maxSealed   = 8 << 10
)

// sealUse separates the key of seals from what else is made of the secret.
const sealUse = "amends: caller of a forwarded request, v1"

// Seal lets the members of a cluster vouch to each other for the callers of
// requests that they forward, with a secret that they share. All methods are
// safe for concurrent use.
//
// What it seals, with HMAC-SHA256, is who calls, with which roles and where; for
// which member, method and request; and when. So a header that strayed is of no
// use for anything but the same request at the same member, within a minute.
type Seal struct {
	self    string
	secret  func(context.Context) ([]byte, error)
	refused atomic.Uint64

	turn chan struct{}          // holds a token while somebody reads the secret
	key  atomic.Pointer[[]byte] // made of the secret, once that could be read
}

// NewSeal makes the Seal of the member that is called self. The secret is the
// same for all members and is read once, when it is first needed.
func NewSeal(self string, secret func(context.Context) ([]byte, error)) *Seal {
	return &Seal{self: self, secret: secret, turn: make(chan struct{}, 1)}
}

// Refused is how many requests came with a header that was forged, altered,
// expired, or meant for another request.
func (s *Seal) Refused() uint64 { return s.refused.Load() }

// sealed is what a header says.
type sealed struct {
	Version       int             `json:"v"`
	From          string          `json:"from"` // a member
	To            string          `json:"to"`   // the member that may believe it
	Method        string          `json:"method"`
	Digest        []byte          `json:"digest"` // of the request
	At            time.Time       `json:"at"`
	Subject       string          `json:"subject"`
	Namespace     string          `json:"namespace"`
	Roles         []amendsv1.Role `json:"roles"` // in the namespace
	Authenticated bool            `json:"authenticated"`
}

// Vouch returns the context of a request that is forwarded to another member for
// a caller. It replaces any header that the context has.
func (s *Seal) Vouch(ctx context.Context, to, method string, req proto.Message, c Caller) (context.Context, error) {
	key, err := s.keyOf(ctx)
	if err != nil {
		return nil, err
	}
	digest, err := digestOf(req)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(sealed{
		Version: sealVersion, From: s.self, To: to, Method: method, Digest: digest, At: time.Now(),
		Subject: c.Subject, Namespace: c.Namespace, Roles: c.Roles(), Authenticated: c.Authenticated,
	})
	if err != nil {
		return nil, amendsv1.ErrInternal.With("auth: sealing a caller: %v", err)
	}
	md, _ := metadata.FromOutgoingContext(ctx) // a copy
	if md == nil {
		md = metadata.MD{}
	}
	md.Set(sealHeader, string(append(macOf(key, text), text...)))
	return metadata.NewOutgoingContext(ctx, md), nil
}

// keyOf reads the secret, once. Nobody waits for it, or for somebody else who
// reads it, longer than their context lasts.
func (s *Seal) keyOf(ctx context.Context) ([]byte, error) {
	if key := s.key.Load(); key != nil {
		return *key, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if key := s.key.Load(); key != nil {
		return *key, nil
	}
	secret, err := s.secret(ctx)
	if err == nil && len(secret) < 16 {
		err = errors.New("it is too short")
	}
	if err != nil {
		return nil, amendsv1.ErrUnavailable.With("the secret of the cluster cannot be read just now: %v", err)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, sealUse, sha256.Size)
	if err == nil {
		s.key.Store(&key)
	}
	return key, err
}

func macOf(key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return mac.Sum(nil)
}

// digestOf is the same at both ends, and for a request with fields that only the
// sender knows, as long as these are newer, and so higher, than the rest.
func digestOf(req proto.Message) ([]byte, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, amendsv1.ErrInvalidArgument.With("the request cannot be encoded: %v", err)
	}
	sum := sha256.Sum256(raw)
	return sum[:], nil
}

// open returns what the header of a request says, nil when there is none. The
// request itself is yet to be compared: see sealed.of.
func (s *Seal) open(ctx context.Context, method string) (*sealed, error) {
	headers := metadata.ValueFromIncomingContext(ctx, sealHeader)
	if len(headers) == 0 {
		return nil, nil
	}
	if n := len(headers[0]); n < sha256.Size || n > maxSealed { // no reason to ask the store
		s.refused.Add(1)
		return nil, unsealed("%d bytes are none that a member of the cluster sends", n)
	}
	key, err := s.keyOf(ctx)
	if err != nil {
		return nil, err
	}
	said, err := s.check(key, headers, method, time.Now())
	if errors.Is(err, amendsv1.ErrUnauthenticated) {
		s.refused.Add(1)
	}
	return said, err
}

func unsealed(format string, args ...any) error {
	return amendsv1.ErrUnauthenticated.With("metadata "+sealHeader+": "+format, args...)
}

func (s *Seal) check(key []byte, headers []string, method string, now time.Time) (*sealed, error) {
	refuse := func(format string, args ...any) (*sealed, error) { return nil, unsealed(format, args...) }
	raw := []byte(headers[0])
	switch {
	case len(headers) > 1:
		return refuse("it is there %d times: a member of the cluster sends one", len(headers))
	case !hmac.Equal(raw[:sha256.Size], macOf(key, raw[sha256.Size:])):
		return refuse("no member of this cluster has made it")
	}
	var said sealed
	if err := json.Unmarshal(raw[sha256.Size:], &said); err != nil || said.Version != sealVersion {
		return refuse("it is of version %d, and %d is known here: is another member much newer?", said.Version, sealVersion)
	}
	age := now.Sub(said.At)
	switch {
	case said.Method != method:
		return refuse("it was made for another method, %s", short(said.Method))
	case age > sealedFor || age < -sealedFor:
		return refuse("it has expired: %s made it %v ago, by its clock", said.From, age.Round(time.Second))
	case said.To != s.self:
		// A member that was started anew, at the address of the one before it.
		return nil, amendsv1.ErrNotOwner.With("this is %s: the request was forwarded to %s", s.self, said.To)
	}
	return &said, nil
}

// of tells whether the header was made for this request.
func (s *Seal) of(said *sealed, req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return amendsv1.ErrInternal.With("auth: a %T came with a seal", req)
	}
	digest, err := digestOf(m)
	if err != nil {
		return err
	}
	if !hmac.Equal(digest, said.Digest) {
		s.refused.Add(1)
		return amendsv1.ErrUnauthenticated.With("metadata %s: it was made for another request", sealHeader)
	}
	return nil
}

// caller is for whom a member vouches.
func (said *sealed) caller() Caller {
	c := Caller{Identity: Identity{Subject: said.Subject}, Namespace: said.Namespace, Authenticated: said.Authenticated}
	for _, role := range said.Roles {
		c.Grants = append(c.Grants, Grant{Namespace: said.Namespace, Role: role})
	}
	return c
}

// Trusting returns a Guard like g that also lets in whom another member of the
// cluster vouches for, without credentials of their own, and with the roles
// that they have there. Limits of Config do not count such a request: they have
// counted it where it came in.
func (g *Guard) Trusting(s *Seal) *Guard {
	trusting := *g
	trusting.seal = s
	return &trusting
}

// vouched returns the context of a request that a member forwards, nil when none
// does.
func (g *Guard) vouched(ctx context.Context, method string) (context.Context, *sealed, error) {
	if g.seal == nil {
		return nil, nil, nil
	}
	said, err := g.seal.open(ctx, method)
	if said == nil || err != nil {
		return nil, nil, err
	}
	c := said.caller()
	if !c.Authenticated && (g.everybody == nil || g.everybody.Authenticated) {
		return nil, nil, amendsv1.ErrUnauthenticated.With("%s asks nobody who they are, and this coordinator does: "+
			"give all members of the cluster the same authentication", said.From)
	}
	if err := allow(c, method, rules[method].roles); err != nil {
		return nil, nil, err
	}
	return context.WithValue(NewContext(ctx, c), forwardedKey{}, said.From), said, nil
}

// ofRequest is what can only be told once the request is read.
func (g *Guard) ofRequest(ctx context.Context, method string, said *sealed, req any) error {
	if err := g.seal.of(said, req); err != nil {
		return err
	}
	c, _ := FromContext(ctx)
	return allowRequest(c, method, req)
}

type forwardedKey struct{}

// ForwardedBy returns the member that has forwarded a request to this one, and
// false for a request that came from its caller.
func ForwardedBy(ctx context.Context) (member string, ok bool) {
	member, ok = ctx.Value(forwardedKey{}).(string)
	return member, ok
}

// Private tells whether a request's metadata by this name is for the one who
// receives it, and so does not go along when the request is forwarded:
// credentials of all kinds.
func Private(name string) bool {
	return slices.Contains([]string{"authorization", "cookie", certificateHeader, sealHeader}, name)
}

// Asks tells whether the Guard asks callers who they are.
func (g *Guard) Asks() bool { return g.everybody == nil }
