package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// TestNoSecretLeaks sends good and bad credentials of every kind, in the right
// places and in wrong ones, and looks for them in every answer and in the log.
func TestNoSecretLeaks(t *testing.T) {
	k, log, token := newKeyring(t), &logged{}, NewToken()
	dir := t.TempDir()
	write(t, dir, "keys.json", k.set(t))
	path := write(t, dir, "auth.json", `{
		"tokens": [{"subject": "ann", "grants": ["viewer@shop"], "sha256": "`+HashToken(token)+`"}],
		"issuers": [{"issuer": "`+iss+`", "audiences": ["amends"], "jwks_file": "keys.json"}]}`)
	file, err := OpenFile(path, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	s := serving(t, newGuard(t, file, &Config{Logger: log.logger()}))
	private := claims(map[string]any{"amends_roles": []string{"viewer", "confidential-role", token}, "note": "confidential-note"})
	good := sign(t, jose.ES256, k.ec, "ec", private)
	secrets := []string{token, HashToken(token), "confidential", "hunter2"}
	for i, part := range strings.Split(good, ".") {
		if i > 0 { // the header is no secret
			secrets = append(secrets, part[:32], part[len(part)-16:])
		}
	}
	for _, header := range []string{
		"Bearer " + token, "bearer  " + token, "Bearer " + token + "x", "Bearer " + token[:30], token, "Basic " + token, "Bearer " + HashToken(token),
		"Bearer " + good, "Bearer " + good[:len(good)-2], "Bearer " + good + "." + token, "Bearer x." + good, "Bearer " + token + " hunter2",
		"Bearer {" + good + "}", "Bearer " + strings.Repeat(token, 1000), "Digest username=\"hunter2\"", "Bearer", "",
		"Bearer " + sign(t, jose.ES256, k.other, "ec", private),
		"Bearer " + sign(t, jose.ES256, k.ec, token, private),
		"Bearer " + sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"iss": token})),
		"Bearer " + sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"aud": token, "note": "confidential"})),
		"Bearer " + sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"exp": token})),
		"Bearer " + sign(t, jose.ES256, k.ec, "ec", claims(map[string]any{"sub": map[string]any{"x": token}})),
	} {
		for _, namespace := range []string{"", "bank", token, "hunter2!"} {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", header)
			if namespace != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, amendsv1.NamespaceHeader, namespace)
			}
			_, err := amendsv1.NewOperatorServiceClient(s.conn).Abandon(ctx, &amendsv1.AbandonRequest{})
			if entered(err) && status.Code(err) != codes.InvalidArgument {
				t.Errorf("%.30s: let in: %v", header, err)
			}
			for _, secret := range secrets {
				if strings.Contains(fmt.Sprintf("%v %+v", err, status.Convert(err).Details()), secret) {
					t.Errorf("%.30s in %.30s: the answer shows %q: %v", header, namespace, secret, err)
				}
			}
		}
	}
	if !strings.Contains(log.String(), "auth: refused") {
		t.Errorf("nothing was logged:\n%s", log)
	}
	for _, secret := range secrets {
		if at := strings.Index(log.String(), secret); at >= 0 {
			t.Errorf("the log shows %q: …%s", secret, log.String()[max(0, at-200):at+len(secret)])
		}
	}
}

// TestPrintedCredentials: who prints them prints nothing.
func TestPrintedCredentials(t *testing.T) {
	token, log := NewToken(), &logged{}
	c := Credentials{Token: token}
	log.logger().Info("x", "c", c, slog.Any("any", c))
	if text := fmt.Sprintf("%v %+v %s", c, c, c) + log.String(); strings.Contains(text, token) {
		t.Error(text)
	}
}

// TestLogIsBounded: whoever cannot get in cannot fill the log.
func TestLogIsBounded(t *testing.T) {
	log := &logged{}
	g := newGuard(t, &people{}, &Config{Logger: log.logger()})
	for range 1000 {
		g.refused(t.Context(), "/a.B/C", errors.New("no"))
	}
	if n := strings.Count(log.String(), "auth: refused"); n < logRate || n > 10*logRate {
		t.Errorf("%d lines", n)
	}
}
