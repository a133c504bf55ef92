package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// WebhookConfig holds what may be left out of a webhook.
type WebhookConfig struct {
	// Secrets sign each request: see Sign. With more than one there are as many
	// signatures, so that a secret can be changed without a gap. Default: none,
	// and nothing is signed.
	Secrets []string
	// Header is sent with each request, for example Authorization.
	Header http.Header
	// Timeout bounds one request. Default 10 s.
	Timeout time.Duration
	// TLS is how https talks. Default: the system's authorities.
	TLS *tls.Config
	// Insecure allows http beyond loopback.
	Insecure bool
}

// Webhook is a Sink that POSTs events to a URL, as a JSON array in CloudEvents'
// batch format (application/cloudevents-batch+json).
//
// An answer of 2xx is an acknowledgement of them all; 400, 413 and 422 reject
// them (ErrRejected). After anything else they are sent again, not before a
// Retry-After. It follows redirects that keep the method (307, 308) to the same
// scheme and host, and no others.
type Webhook struct {
	url    string
	host   string
	cfg    WebhookConfig
	client *http.Client
}

// maxAnswer bounds what is read of an answer, in bytes: it is only read so that
// the connection can be used again.
const maxAnswer = 64 << 10

// NewWebhook makes a sink of a URL. It does not connect. Its errors and logs
// never hold the URL's path, query or password, which may be secrets.
func NewWebhook(target string, cfg *WebhookConfig) (*Webhook, error) {
	w := &Webhook{url: target}
	if cfg != nil {
		w.cfg = *cfg
	}
	var errs []error
	u, err := url.Parse(target)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("notify: webhook: the URL is none: use https://host/path")
	case u.Scheme == "http" && !w.cfg.Insecure && !loopback(u.Hostname()):
		errs = append(errs, fmt.Errorf("notify: webhook: http to %s is not encrypted: use https, or set Insecure", u.Host))
	}
	for _, s := range w.cfg.Secrets {
		if s == "" {
			errs = append(errs, errors.New("notify: webhook: WebhookConfig.Secrets holds an empty one: leave it out"))
		}
	}
	errs = append(errs, positive("Timeout", &w.cfg.Timeout, 10*time.Second))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: w.cfg.TLS, ForceAttemptHTTP2: true,
		MaxIdleConns: 2, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: w.cfg.Timeout, MaxResponseHeaderBytes: maxAnswer,
	}
	w.host = u.Host
	w.client = &http.Client{Transport: transport, CheckRedirect: sameHost}
	return w, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sameHost stops at redirects that would tell another host, or lose the body.
func sameHost(next *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > 3 || next.Method != first.Method || next.URL.Host != first.URL.Host || next.URL.Scheme != first.URL.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

// Send implements Sink.
func (w *Webhook) Send(ctx context.Context, events []Event) error {
	body, err := encodeBatch(events)
	if err != nil {
		return fmt.Errorf("notify: webhook: %w: %w", ErrRejected, err)
	}
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("notify: webhook %s: %w", w.host, withoutURL(err))
	}
	for name, values := range w.cfg.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("Content-Type", batchType)
	req.Header.Set("User-Agent", "amends")
	if len(w.cfg.Secrets) > 0 {
		req.Header.Set(SignatureHeader, Sign(time.Now(), body, w.cfg.Secrets...))
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return fmt.Errorf("notify: webhook %s: %w", w.host, withoutURL(err))
	}
	defer resp.Body.Close()
	// What it says besides the status is of no use, nor is an error in it.
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	return w.answer(resp)
}

func (w *Webhook) answer(resp *http.Response) error {
	code := resp.StatusCode
	if code/100 == 2 {
		return nil
	}
	err := fmt.Errorf("notify: webhook %s: answered %d %s", w.host, code, http.StatusText(code))
	switch {
	case code/100 == 3:
		return fmt.Errorf("%w: a redirect that is not followed", err)
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", err, ErrRejected)
	}
	if after := retryAfter(resp.Header.Get("Retry-After"), time.Now()); after > 0 {
		return &RetryAfterError{After: after, Err: err}
	}
	return err
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(seconds, 0), int(maxRetryAfter.Seconds()))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return at.Sub(now)
	}
	return 0
}

// withoutURL takes the URL out of a client's error.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
