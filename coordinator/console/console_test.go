package console_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/console"
	"github.com/amends-dev/amends/coordinator/gateway"
	"github.com/amends-dev/amends/coordinator/gateway/gatewaytest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/chromedp/chromedp/kb"
)

func grant(fake *gatewaytest.Coordinator, role amendsv1.Role) {
	fake.Grant("t0ken", gatewaytest.Caller{Subject: "ada@example.com", Roles: []amendsv1.Role{role}})
}

func txPath(gid string) string { return "/transaction?gid=" + url.QueryEscape(gid) }

func TestConsole(t *testing.T) {
	t.Parallel() // each in a browser of its own; most of the time it waits
	in := browser(t)
	for name, test := range map[string]func(*testing.T, *gatewaytest.Coordinator, *tab){
		"retry a stalled transaction":    retryStalled,
		"a viewer may look":              viewer,
		"rights lost meanwhile":          rightsLost,
		"a branch completed by hand":     completeByHand,
		"abandon":                        abandon,
		"bulk":                           bulk,
		"keys":                           keys,
		"texts are texts":                texts,
		"the coordinator goes and comes": outage,
		"a wrong filter":                 wrongFilter,
		"looks":                          appearance,
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			fake := scene()
			test(t, fake, open(in, t, fake))
		})
	}
}

// retryStalled is the night shift's work: find it, see why, retry it, watch.
func retryStalled(t *testing.T, fake *gatewaytest.Coordinator, b *tab) {
	grant(fake, amendsv1.Role_ROLE_OPERATOR)
	b.visit("/")
	b.signIn("t0ken")
	b.sees(".verdict", "1 stalled")
	b.sees(".verdict", "payments has no instance")
	b.click(`nav a[href*="transactions"]`)
	b.enter("[data-search]", "order_id=A-17\r")
	b.until("one row", func() bool { return js[int](b, `document.querySelectorAll("tbody tr").length`) == 1 })
	b.sees("tbody", "waits for payments")
	if got := js[string](b, `location.search`); got != "?label=order_id%3DA-17" {
		t.Errorf("the filter's address is %s", got)
	}
	b.click("tbody a[data-row]")
	b.sees(".cause", "connection refused")
	b.sees(".cause", "no carrier delivers to this address")
	b.sees(".link-state", "live")
	b.sees(".deeds", "maria@example.com")
	b.server.CloseClientConnections() // the stream goes on where it was
	fake.OnAct(func(gatewaytest.Act) error { recoverPayments(fake); return nil })
	js[bool](b, `(() => { // what is announced, also what the next announcement replaces
		const live = document.getElementById("live");
		window.announced = "";
		new MutationObserver(() => window.announced += live.textContent + "\n").observe(live, {childList: true});
		return true;
	})()`)
	b.dialog(`.verbs [data-verb="VERB_RETRY_NOW"]`)
	b.sees("dialog", "sent again at once")
	b.enter("#field-reason", "payments is back, ticket 99")
	b.click("dialog button.primary")
	b.sees(".tx-head", "Rolled back")
	b.sees(".link-state", "ended")
	b.until("the end to be announced", func() bool {
		return strings.Contains(js[string](b, `window.announced`), "Rolled back")
	})
	b.snap("finished")
	acts := fake.Acts()
	if len(acts) != 1 || acts[0].Reason != "payments is back, ticket 99" || acts[0].Actor != "ada@example.com" || len(acts[0].Request) != 32 {
		t.Errorf("acts: %+v", acts)
	}
	shown := func() int { return js[int](b, `document.querySelectorAll(".events tbody tr").length`) }
	b.until("the last events", func() bool { return shown() >= 19 })
	if n := shown(); n != 19 {
		t.Errorf("%d events are shown, want 19: each once", n)
	}
	if b.text(".verbs") != "" {
		t.Error("a finished transaction still offers verbs")
	}
}

func viewer(t *testing.T, fake *gatewaytest.Coordinator, b *tab) {
	grant(fake, amendsv1.Role_ROLE_VIEWER)
	b.visit(txPath(stalledGID))
	b.sees("main", "Bearer token")
	b.snap("sign-in")
	b.signIn("t0ken")
	b.sees(".cause", "connection refused")
	b.sees("#session", "viewer")
	b.visit("/transactions?stalled=true")
	b.sees("tbody", stalledGID)
	b.visit(txPath(stalledGID))
	b.sees(".tx-head", "Stalled")
	if n := js[int](b, `document.querySelectorAll("[data-verb], [data-bulk]").length`); n != 0 {
		t.Errorf("a viewer is offered %d verbs", n)
	}
	status := js[int](b, fmt.Sprintf(`fetch("v1/transactions/%s:retryNow", {method: "POST", body: '{"reason":"x"}',
		headers: {"Content-Type": "application/json", Authorization: "Bearer " + sessionStorage.getItem("amends.token")}}).then((r) => r.status)`,
		url.PathEscape(stalledGID)))
	if status != http.StatusForbidden || len(fake.Acts()) != 0 {
		t.Errorf("a viewer's call is answered with %d; acts %v", status, fake.Acts())
	}
}

// rightsLost: the server's refusal is shown in its own words.
func rightsLost(t *testing.T, fake *gatewaytest.Coordinator, b *tab) {
	grant(fake, amendsv1.Role_ROLE_OPERATOR)
	b.visit(txPath(stalledGID))
	b.signIn("t0ken")
	b.dialog(`.verbs [data-verb="VERB_PAUSE"]`)
	grant(fake, amendsv1.Role_ROLE_VIEWER)
	b.enter("#field-reason", "quiet please")
	b.click("dialog button.primary")
	b.sees("dialog .refusal", "Pause needs the role operator")
	b.sees("dialog .refusal", "PERMISSION_DENIED")
	b.snap("refused")
	if len(fake.Acts()) != 0 {
		t.Errorf("acts: %+v", fake.Acts())
	}
	b.press(kb.Escape)
	b.dialogCloses()
}

// completeByHand acts on one branch, with the etag of what the page shows.
func completeByHand(t *testing.T, fake *gatewaytest.Coordinator, b *tab) {
	b.visit(txPath(parkedGID))
	b.sees(".cause", "the account is closed")
	b.dialog(`.lane [data-verb="VERB_COMPLETE_STEP"]`)
	b.enter("#field-reason", "paid by cheque")
	b.enter("#field-reply", `{"cheque":"ä7"}`)
	b.snap("dialog")
	b.click("dialog button.primary")
	b.dialogCloses()
	acts := fake.Acts()
	if len(acts) != 1 || acts[0].Branch != "pay-back" || string(acts[0].Reply) != `{"cheque":"ä7"}` || acts[0].ETag != "3" {
		t.Errorf("acts: %+v", acts)
	}
}

func abandon(t *testing.T, fake *gatewaytest.Coordinator, b *tab) {
	grant(fake, amendsv1.Role_ROLE_BREAK_GLASS)
	b.visit(txPath(stalledGID))
	b.signIn("t0ken")
	b.dialog(`.verbs [data-verb="VERB_ABANDON"]`)
	b.sees("dialog", "nothing is undone")
	b.enter("#field-reason", "lost cause")
	b.enter("#field-typed", "checkout")
	b.click("dialog button.danger")
	if len(fake.Acts()) != 0 || !js[bool](b, `document.querySelector("#field-typed").validity.patternMismatch`) {
		t.Error("abandoned without the whole gid")
	}
	b.snap("dialog")
	b.enter("#field-typed", strings.TrimPrefix(stalledGID, "checkout"))
	b.click("dialog button.danger")
	b.until("the verb", func() bool { return len(fake.Acts()) == 1 })
	if a := fake.Acts()[0]; a.Verb != amendsv1.Verb_VERB_ABANDON || a.GID != stalledGID {
		t.Errorf("acted: %+v", a)
	}
}

func bulk(t *testing.T, fake *gatewaytest.Coordinator, b *tab) {
	b.visit("/transactions?participant=payments")
	b.dialog(`[data-bulk="VERB_RETRY_NOW"]`)
	b.enter("#field-reason", "payments is back")
	b.click("dialog button.primary")
	b.sees("dialog", "2 transactions")
	b.snap("counted")
	b.click("dialog button.primary")
	b.sees(".bulks", `participant = "payments" AND unfinished = true`)
	b.sees(".bulks", "Running")
	fake.ChangeBulk(func(bulk *amendsv1.Bulk) { bulk.Acted, bulk.Skipped = 1, 1 })
	b.sees(".bulks", "1 acted upon")
	b.snap("progress")
	b.dialog(".bulks button")
	b.enter("#field-reason", "enough")
	b.click("dialog button.primary")
	b.sees(".bulks", "Cancelled")
}

func keys(t *testing.T, _ *gatewaytest.Coordinator, b *tab) {
	b.visit("/transactions")
	b.sees("tbody", stalledGID)
	b.press("jjk")
	if got := js[string](b, `document.activeElement.textContent`); got != parkedGID {
		t.Errorf("j, j, k lead to %q, want the first row", got)
	}
	b.press("/")
	if !js[bool](b, `document.activeElement.matches("[data-search]")`) {
		t.Error("/ does not lead to the search field")
	}
	b.press("j?" + kb.Escape + "?") // the first two are typed into it
	b.sees("dialog", "bulk actions")
	b.snap("help")
	b.press(kb.Escape)
	b.dialogCloses()
	b.press("go")
	b.sees(".figures", "Oldest unfinished")
	js[bool](b, `history.back() ?? true`)
	b.sees("tbody", stalledGID)
}

func (b *tab) openDetails() {
	b.Helper()
	js[int](b, `document.querySelectorAll("details").forEach((d) => d.open = true) ?? 0`)
}

// texts: whatever others wrote is shown, and never read as HTML.
func texts(t *testing.T, _ *gatewaytest.Coordinator, b *tab) {
	for _, path := range []string{"/transactions", txPath(hostile), "/transactions?label=" + url.QueryEscape("note="+hostile), "/?ns=" + url.QueryEscape("<b>")} {
		b.visit(path)
		b.until("the page", func() bool { return strings.Contains(b.text("main"), hostile) || strings.Contains(path, "ns=") })
		// A page may be titled by its gid, whole; what ran would leave only its own word.
		if js[bool](b, `!!document.querySelector("img") || document.title.includes("pwned") && !document.title.includes("onerror")`) {
			t.Errorf("%s: a text became an element", path)
		}
	}
	b.visit(txPath(hostile))
	b.sees("details", "Requests and replies")
	b.openDetails()
	b.sees(".payloads", hostile)
}

// outage: pages say that they are out of date, and catch up.
func outage(t *testing.T, fake *gatewaytest.Coordinator, b *tab) {
	b.visit("/transactions?stalled=true")
	b.sees("tbody", stalledGID)
	js[bool](b, `!!(window.realFetch = fetch, window.fetch = () => Promise.reject(new TypeError("cut")))`)
	b.sees("#banner", "cannot be reached")
	js[bool](b, `!!(window.fetch = realFetch)`)
	recoverPayments(fake)
	b.sees(".foot", "No transaction matches")
	b.until("the banner to go", func() bool { return b.text("#banner") == "" })
}

// wrongFilter: the server's words, and the filter to be mended.
func wrongFilter(_ *testing.T, fake *gatewaytest.Coordinator, b *tab) {
	b.visit("/transactions?ns=shop&filter=bogus+%3D+1")
	b.sees(".foot", "bogus: no such field")
	b.until("the filter", func() bool { return js[string](b, `document.querySelector("[name=filter]").value`) == "bogus = 1" })
	b.click(`.chips a[href*="PARKED"]`)
	b.sees("tbody", parkedGID)
	if got := fake.Metadata().Get(amendsv1.NamespaceHeader); len(got) != 1 || got[0] != "shop" {
		b.Errorf("the coordinator was asked about namespace %q", got)
	}
	if got := js[string](b, `location.search`); got != "?state=PARKED&ns=shop" {
		b.Errorf("the namespace is lost: %s", got)
	}
}

// appearance: dark and light, wide and narrow; nothing is wider than the page.
func appearance(t *testing.T, fake *gatewaytest.Coordinator, b *tab) {
	for name, at := range map[string]struct{ path, shows string }{
		"overview": {"/", "coordinator-1"}, "list": {"/transactions", stalledGID}, "stalled": {txPath(stalledGID), "live"},
		"parked": {txPath(parkedGID), "live"}, "tcc": {txPath("trip-771"), "live"}, "missing": {txPath("none"), "NOT_FOUND"},
	} {
		b.visit(at.path)
		b.sees("main", at.shows)
		if at.shows == "live" {
			b.until("the attempts", func() bool { return js[bool](b, `!!document.querySelector(".track .dot")`) })
		}
		for _, l := range looks {
			b.wear(l)
			b.openDetails()
			b.snap(name + "-" + l.name)
			if over := js[int](b, `document.scrollingElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("%s, %s: the page is %d px too wide", name, l.name, over)
			}
		}
		if name == "stalled" {
			spread := func() float64 {
				return js[float64](b, `Math.max(...[...document.querySelectorAll(".lane:nth-child(2) .dot")].map((d) => d.transform.baseVal[0].matrix.e))`)
			}
			byTime := spread()
			b.wear(looks[0])
			b.click("#by-order")
			b.until("the marks to move", func() bool { return spread() > byTime })
			b.snap(name + "-even")
		}
	}
}

func TestHeaders(t *testing.T) {
	h, err := console.New(gatewaytest.New().Serve(t), &console.Config{Name: "a<b>"})
	if err != nil {
		t.Fatal(err)
	}
	get := func(method, path string, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for path, want := range map[string]int{
		"/": 200, "/transactions": 200, "/transaction": 200, "/bulks": 200, "/assets/app.js": 200, "/assets/base.css": 200,
		"/v1/overview": 200, "/assets/": 404, "/assets/index.html": 404, "/nothing": 404, "/v1/nothing": 404,
	} {
		w := get("GET", path)
		csp := w.Header().Get("Content-Security-Policy")
		if w.Code != want || !strings.HasPrefix(csp, "default-src 'none'; script-src 'self';") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d, policy %q", path, w.Code, csp)
		}
	}
	if body := get("GET", "/").Body.String(); !strings.Contains(body, "a&lt;b&gt;") {
		t.Errorf("the name is not escaped: %s", body)
	}
	js := get("GET", "/assets/app.js")
	if got := js.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/javascript") {
		t.Errorf("scripts are %s", got)
	}
	if w := get("GET", "/assets/app.js", "If-None-Match", js.Header().Get("ETag")); w.Code != http.StatusNotModified {
		t.Errorf("asked again: %d", w.Code)
	}
	if w := get("POST", "/"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /: %d", w.Code)
	}
}

func TestConfig(t *testing.T) {
	_, err := console.New(gatewaytest.New().Serve(t), &console.Config{Gateway: &gateway.Config{KeepAlive: -time.Second}})
	if err == nil || !strings.Contains(err.Error(), "KeepAlive") {
		t.Errorf("err = %v, want the gateway's", err)
	}
}
