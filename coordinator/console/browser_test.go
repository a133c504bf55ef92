package console_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/console"
	"github.com/amends-dev/amends/coordinator/gateway/gatewaytest"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long a browser may take for anything.
const patience = time.Minute

// browser starts a headless Chromium, which ends with the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && program == "" {
			program = path
		}
	}
	if program == "" {
		const why = "needs a browser: install Debian's package chromium"
		if os.Getenv("AMENDS_REQUIRE_SERVICES") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	flag := chromedp.Flag
	alloc, stop := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(program),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		flag("disable-quic", true), flag("disable-background-networking", true), flag("disable-component-update", true),
		flag("disable-sync", true), flag("disable-dev-shm-usage", true), flag("hide-scrollbars", true),
		chromedp.UserDataDir(t.TempDir()))
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // without a deadline: it would be the browser's
		t.Fatalf("starting %s: %v", program, err)
	}
	return ctx
}

// tab is a page of the console in a browser context of its own. What a page
// must never do fails its test.
type tab struct {
	*testing.T
	ctx    context.Context
	server *httptest.Server

	mu       sync.Mutex
	troubles []string
	requests int
}

// open serves the console before a fake coordinator, and relays, and opens a tab
// for it.
func open(in context.Context, t *testing.T, fake *gatewaytest.Coordinator, outboxes ...console.Outbox) *tab {
	t.Helper()
	h, err := console.New(fake.Serve(t), &console.Config{Name: "staging", Outboxes: outboxes})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return newTab(in, t, server)
}

func newTab(in context.Context, t *testing.T, server *httptest.Server) *tab {
	t.Helper()
	b := &tab{T: t, server: server}
	ctx, cancel := chromedp.NewContext(in, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.observe))
	b.ctx = ctx
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, trouble := range b.troubles {
			t.Error(trouble)
		}
		if b.requests == 0 {
			t.Error("no request was seen: nothing was checked")
		}
	})
	t.Cleanup(server.CloseClientConnections)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	b.listen()
	b.run(chromedp.EmulateViewport(1280, 900))
	return b
}

func (b *tab) observe(event any) {
	trouble := ""
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.mu.Lock()
		b.requests++
		b.mu.Unlock()
		own := strings.HasPrefix(e.Request.URL, b.server.URL+"/")
		if !own && !strings.HasPrefix(e.Request.URL, "data:") && e.Request.URL != "about:blank" {
			trouble = "a request beyond the own origin: " + e.Request.URL
		}
		if strings.Contains(e.Request.URL, "t0ken") {
			trouble = "a token in an address: " + e.Request.URL
		}
	case *runtime.EventExceptionThrown:
		trouble = "an exception: " + e.ExceptionDetails.Text
	case *runtime.EventConsoleAPICalled:
		trouble = fmt.Sprintf("the console was written to: %s %v", e.Type, e.Args)
	case *log.EventEntryAdded:
		// A refusal by the server is logged, too, and is no trouble of the page.
		if e.Entry.Source != log.EntrySourceNetwork {
			trouble = fmt.Sprintf("the browser complains: %s: %s", e.Entry.Source, e.Entry.Text)
		}
	}
	if trouble != "" {
		b.mu.Lock()
		b.troubles = append(b.troubles, trouble)
		b.mu.Unlock()
	}
}

// listen asks the browser for the events that observe judges.
func (b *tab) listen() {
	b.Helper()
	_, err1 := chromedp.Call(b.ctx, network.Enable, network.EnableParams{})
	_, err2 := chromedp.Call(b.ctx, log.Enable, cdp.Empty{})
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
}

type action = chromedp.Action[chromedp.Void]

func (b *tab) run(actions ...action) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	err := chromedp.Do(ctx, actions...)
	for redrawn(err) && ctx.Err() == nil {
		err = chromedp.Do(ctx, actions...)
	}
	if err != nil {
		b.snap("failed")
		b.Fatalf("%v; the page shows:\n%s", err, b.text("body"))
	}
}

// redrawn reports that what was found was gone before anything was done to it:
// news came in between.
func redrawn(err error) bool {
	return err != nil && strings.Contains(err.Error(), "Could not find node with given id")
}

func (b *tab) visit(path string) {
	b.Helper()
	b.run(chromedp.Navigate(b.server.URL+path), chromedp.WaitReady(chromedp.CSS("body")))
}

// signIn fills the form that a coordinator with authentication shows.
func (b *tab) signIn(token string) {
	b.Helper()
	b.enter("#token", token+"\r")
	b.run(chromedp.WaitVisible(chromedp.CSS("#nav a")))
}

// text is what an element shows, "" when it is not there.
func (b *tab) text(selector string) string {
	script := fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, selector)
	got, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](script))
	if err != nil {
		b.Logf("reading %s: %v", selector, err)
	}
	return got
}

// sees waits until an element shows a text.
func (b *tab) sees(selector, text string) {
	b.Helper()
	b.until(fmt.Sprintf("%s to show %q", selector, text), func() bool { return strings.Contains(b.text(selector), text) })
}

func (b *tab) until(what string, done func() bool) {
	b.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			b.snap("failed")
			b.Fatalf("waited for %s; the page shows:\n%s", what, b.text("body"))
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-b.ctx.Done():
			b.Fatal(b.ctx.Err())
		}
	}
}

// js evaluates an expression.
func js[T any](b *tab, expression string) T {
	b.Helper()
	got, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.snap("failed")
		b.Fatalf("%s: %v", expression, err)
	}
	return got
}

// click, enter and press are what a person does.
func (b *tab) click(selector string) {
	b.Helper()
	b.run(chromedp.Click(chromedp.CSS(selector)))
}

func (b *tab) enter(selector, text string) {
	b.Helper()
	b.run(chromedp.SendKeys(chromedp.CSS(selector), text))
}

func (b *tab) press(keys string) {
	b.Helper()
	b.run(chromedp.KeyEvent(keys))
}

// dialog clicks what opens a dialog, until there is one: news can move what is
// clicked from under the pointer, as it can for people.
func (b *tab) dialog(opener string) {
	b.Helper()
	b.until("the dialog of "+opener, func() bool {
		b.click(opener)
		for range 50 {
			if js[bool](b, `!!document.querySelector("dialog[open]")`) {
				return true
			}
			time.Sleep(20 * time.Millisecond)
		}
		return false
	})
}

func (b *tab) dialogCloses() {
	b.Helper()
	b.until("the dialog to close", func() bool { return !js[bool](b, `!!document.querySelector("dialog")`) })
}

// look is how a screenshot is taken.
type look struct {
	name   string
	width  int64
	scheme string
}

var looks = []look{{"light", 1280, "light"}, {"dark", 1280, "dark"}, {"phone", 390, "light"}, {"phone-dark", 390, "dark"}}

func (b *tab) wear(l look) {
	b.Helper()
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, media); err != nil {
		b.Fatal(err)
	}
	b.run(chromedp.EmulateViewport(l.width, 900))
	js[bool](b, `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`)
}

// snap keeps a screenshot in $AMENDS_SCREENSHOTS, when that is set.
func (b *tab) snap(name string) {
	b.Helper()
	dir := os.Getenv("AMENDS_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	file := filepath.Join(dir, strings.ReplaceAll(b.Name(), "/", "-")+"-"+name+".png")
	if err = errors.Join(err, os.MkdirAll(dir, 0o755), os.WriteFile(file, png, 0o644)); err != nil {
		b.Errorf("screenshot: %v", err)
	}
}
