package auth

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// document is the file as it is written.
type document struct {
	Tokens       []tokenEntry       `json:"tokens"`
	Certificates []certificateEntry `json:"certificates"`
	Issuers      []issuerEntry      `json:"issuers"`
	Payloads     payloadsEntry      `json:"payloads"`
	Quotas       quotas             `json:"quotas"`
}

type identityEntry struct {
	Subject  string   `json:"subject"`
	Grants   []string `json:"grants"`
	Services []string `json:"services"`
}

type tokenEntry struct {
	identityEntry
	SHA256  string     `json:"sha256"`
	Expires *time.Time `json:"expires"`
}

type certificateEntry struct {
	identityEntry
	URI string `json:"uri"`
	DNS string `json:"dns"`
	CN  string `json:"cn"`
}

type issuerEntry struct {
	Issuer        string              `json:"issuer"`
	Audiences     []string            `json:"audiences"`
	JWKSFile      string              `json:"jwks_file"`
	JWKSURL       string              `json:"jwks_url"`
	Algorithms    []string            `json:"algorithms"`
	SubjectClaim  string              `json:"subject_claim"`
	SubjectPrefix string              `json:"subject_prefix"`
	RolesClaim    string              `json:"roles_claim"`
	ServicesClaim string              `json:"services_claim"`
	Roles         map[string][]string `json:"roles"`
}

type payloadsEntry struct {
	Roles  []string `json:"roles"`
	Redact []string `json:"redact"`
}

// content is the file as it is used.
type content struct {
	tokens       []staticToken
	certificates []certificate
	issuers      map[string]*issuer
	payloads     Payloads
	quotas       quotas
	verified     verifiedJWTs
}

// parseFile reads a file; dir is where it lies. The error joins all mistakes,
// and repeats none of what might be a secret.
func parseFile(data []byte, dir string, log *slog.Logger) (*content, error) {
	var doc document
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, errors.New(hideSecrets(err.Error()))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the JSON object")
	}
	c := &content{issuers: map[string]*issuer{}}
	var errs []error
	add := func(list string, i int, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s[%d]: %w", list, i, err))
		}
	}
	for i := range doc.Tokens {
		add("tokens", i, c.addToken(&doc.Tokens[i]))
	}
	for i := range doc.Certificates {
		add("certificates", i, c.addCertificate(&doc.Certificates[i]))
	}
	for i := range doc.Issuers {
		add("issuers", i, c.addIssuer(&doc.Issuers[i], dir, log))
	}
	errs = append(errs, c.setPayloads(doc.Payloads), c.setQuotas(doc.Quotas))
	if errors.Join(errs...) == nil && len(doc.Tokens)+len(doc.Certificates)+len(doc.Issuers) == 0 {
		errs = append(errs, errors.New("no tokens, certificates or issuers: nobody could call"))
	}
	return c, errors.Join(errs...)
}

func (e *identityEntry) identity() (Identity, error) {
	id := Identity{Subject: e.Subject, Services: e.Services}
	grants, err := parseGrants(e.Grants)
	id.Grants = grants
	errs := []error{err, id.check()}
	if len(e.Grants) == 0 {
		errs = append(errs, errors.New("grants is empty: nothing would be allowed"))
	}
	isService := func(g Grant) bool { return roleNames["service"] == g.Role }
	if err == nil && len(e.Services) > 0 && !slices.ContainsFunc(grants, isService) {
		errs = append(errs, errors.New("services count only with the role service in grants"))
	}
	if slices.Contains(e.Services, "") {
		errs = append(errs, errors.New("services holds an empty name"))
	}
	return id, errors.Join(errs...)
}

func parseGrants(all []string) ([]Grant, error) {
	var grants []Grant
	var errs []error
	for _, s := range all {
		g, err := ParseGrant(s)
		grants, errs = append(grants, g), append(errs, err)
	}
	return grants, errors.Join(errs...)
}

func (c *content) addToken(e *tokenEntry) error {
	id, err := e.identity()
	t := staticToken{id: id}
	if e.Expires != nil {
		t.expires = *e.Expires
	}
	if n, hexErr := hex.Decode(t.hash[:], []byte(e.SHA256[:min(len(e.SHA256), 2*len(t.hash))])); hexErr != nil || n != len(t.hash) ||
		len(e.SHA256) != 2*len(t.hash) {
		return errors.Join(err, errors.New("sha256: want the 64 hexadecimal digits of the token's SHA-256, never the token"))
	}
	if slices.ContainsFunc(c.tokens, func(o staticToken) bool { return o.hash == t.hash }) {
		return errors.Join(err, errors.New("sha256: the same token is there twice"))
	}
	c.tokens = append(c.tokens, t)
	return err
}

func (c *content) addCertificate(e *certificateEntry) error {
	id, err := e.identity()
	names := slices.DeleteFunc([]string{e.URI, e.DNS, e.CN}, func(s string) bool { return s == "" })
	if len(names) != 1 {
		err = errors.Join(err, errors.New("want one of uri, dns and cn"))
	}
	same := func(o certificate) bool { return o.uri == e.URI && o.dns == e.DNS && o.cn == e.CN }
	if slices.ContainsFunc(c.certificates, same) {
		err = errors.Join(err, errors.New("the same name is there twice"))
	}
	c.certificates = append(c.certificates, certificate{uri: e.URI, dns: e.DNS, cn: e.CN, id: id})
	return err
}

func (c *content) addIssuer(e *issuerEntry, dir string, log *slog.Logger) error {
	by := &issuer{
		name: e.Issuer, audiences: e.Audiences, algorithms: defaultAlgorithms, log: log,
		subjectClaim: orElse(e.SubjectClaim, "sub"), subjectPrefix: e.SubjectPrefix,
		rolesClaim: orElse(e.RolesClaim, "amends_roles"), servicesClaim: orElse(e.ServicesClaim, "amends_services"),
	}
	var errs []error
	if e.Issuer == "" {
		errs = append(errs, errors.New("issuer is empty: want the claim iss of its tokens"))
	}
	if len(e.Audiences) == 0 || slices.Contains(e.Audiences, "") {
		errs = append(errs, errors.New("audiences: want the claim aud of the tokens for this coordinator, or tokens for others would be taken"))
	}
	if c.issuers[e.Issuer] != nil {
		errs = append(errs, errors.New("the same issuer is there twice"))
	}
	var err error
	if len(e.Algorithms) > 0 {
		by.algorithms, err = parseAlgorithms(e.Algorithms)
		errs = append(errs, err)
	}
	if e.Roles != nil {
		by.roles, err = parseRoles(e.Roles)
		errs = append(errs, err)
	}
	by.keys, err = e.keys(dir, log)
	errs = append(errs, err)
	c.issuers[e.Issuer] = by
	return errors.Join(errs...)
}

func (c *content) setPayloads(e payloadsEntry) error {
	c.payloads.Redact = e.Redact
	var errs []error
	for i, name := range e.Roles {
		role, ok := roleNames[name]
		if !ok {
			errs = append(errs, fmt.Errorf("roles[%d]: %q is none: want viewer, operator or break-glass", i, shown(name)))
		}
		c.payloads.Roles = append(c.payloads.Roles, role)
	}
	return within("payloads", errors.Join(errors.Join(errs...), c.payloads.check()))
}

func (c *content) setQuotas(all quotas) error {
	c.quotas = all
	var errs []error
	for namespace, q := range all {
		err := q.check()
		if namespace != All {
			err = errors.Join(err, amendsv1.CheckNamespace(namespace))
		}
		errs = append(errs, within(fmt.Sprintf("quotas[%q]", shown(namespace)), err))
	}
	return errors.Join(errs...)
}

// within says in which field a mistake is.
func within(field string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", field, err)
}

func parseRoles(roles map[string][]string) (map[string][]Grant, error) {
	parsed := make(map[string][]Grant, len(roles))
	var errs []error
	for name, grants := range roles {
		g, err := parseGrants(grants)
		parsed[name] = g
		errs = append(errs, err)
	}
	return parsed, errors.Join(errs...)
}

func parseAlgorithms(names []string) ([]jose.SignatureAlgorithm, error) {
	var all []jose.SignatureAlgorithm
	for _, name := range names {
		if !slices.Contains(asymmetric, jose.SignatureAlgorithm(name)) {
			return nil, fmt.Errorf("algorithms: %q is not one of %v", shown(name), asymmetric)
		}
		all = append(all, jose.SignatureAlgorithm(name))
	}
	return all, nil
}

func (e *issuerEntry) keys(dir string, log *slog.Logger) (keySet, error) {
	switch {
	case e.JWKSFile != "" && e.JWKSURL != "":
		return nil, errors.New("jwks_file and jwks_url: want one of them, or neither to discover the keys of issuer")
	case e.JWKSURL != "":
		if err := checkURL(e.JWKSURL); err != nil {
			return nil, fmt.Errorf("jwks_url: %w", err)
		}
		return newURLKeys(e.JWKSURL, fixed(e.JWKSURL), keysClient(), log), nil
	case e.JWKSFile == "":
		if err := checkURL(e.Issuer); err != nil {
			return nil, fmt.Errorf("issuer: %w, to discover its keys; or say jwks_file or jwks_url", err)
		}
		client := keysClient()
		return newURLKeys(e.Issuer+wellKnown, discovery{issuer: e.Issuer, client: client}.locate, client, log), nil
	}
	path := e.JWKSFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	keys, err := newFileKeys(path, log)
	if err != nil {
		return nil, fmt.Errorf("jwks_file: %w", err)
	}
	return keys, nil
}

func orElse(s, otherwise string) string {
	if strings.TrimSpace(s) == "" {
		return otherwise
	}
	return s
}
