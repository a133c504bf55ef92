package console_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amends-dev/amends/coordinator/console"
	"github.com/amends-dev/amends/coordinator/gateway/gatewaytest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// night is a coordinator with three relays: orders has trouble, billing has
// none, and mail is away.
type night struct {
	coordinator           *gatewaytest.Coordinator
	orders, billing, mail *gatewaytest.Outbox
}

func TestOutboxes(t *testing.T) {
	t.Parallel() // each in a browser of its own; most of the time it waits
	in := browser(t)
	for name, test := range map[string]func(*testing.T, *night, *tab){
		"see it and replay it":   replayOne,
		"chosen and by filter":   replayMany,
		"skip and park":          skipAndPark,
		"pages and filters":      outboxPages,
		"a viewer may look":      outboxViewer,
		"rights at the relay":    relayRights,
		"one is away":            relayAway,
		"keys":                   outboxKeys,
		"texts are texts":        outboxTexts,
		"looks":                  outboxLooks,
		"a name that is unknown": unknownOutbox,
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			n := &night{scene(), badOutbox(), quietOutbox(), quietOutbox()}
			n.mail.Fail(status.Error(codes.Unavailable,
				`connection error: desc = "transport: Error while dialing: dial tcp 10.2.0.9:7462: connect: connection refused"`))
			test(t, n, open(in, t, n.coordinator, console.Outbox{Name: "orders", Conn: n.orders.Serve(t)},
				console.Outbox{Name: "billing", Conn: n.billing.Serve(t)}, console.Outbox{Name: "mail", Conn: n.mail.Serve(t)}))
		})
	}
	t.Run("letters_of_consumers", func(t *testing.T) {
		letters := badOutbox()
		lettersOfConsumers(t, letters, open(in, t, scene(), console.Outbox{Name: "orders.dead", Conn: letters.Serve(t), Letters: true}))
	})
}

// lettersOfConsumers: what consumers gave up can be requeued, and nothing else.
func lettersOfConsumers(t *testing.T, letters *gatewaytest.Outbox, b *tab) {
	b.visit("/")
	b.sees(".outboxes", "3 dead")
	b.sees(".verdict", "consumers of orders.dead: 3 dead letters")
	b.visit("/outbox?name=orders.dead") // which is no outbox
	b.sees("h1", "Dead letters of orders.dead")
	b.click(`tbody a[data-row]`)
	b.sees(".cause", "is larger than the broker takes")
	if n := js[int](b, `document.querySelectorAll("[data-act]").length`); n != 1 {
		t.Errorf("%d verbs are offered, want one", n)
	}
	b.dialog(`[data-act="requeue"]`)
	b.sees("dialog", "back to the topic that it came from")
	b.sees("dialog", "beside the dead letters in Kafka")
	b.enter("#field-reason", "mended")
	b.click("dialog button.primary")
	b.sees("h1", "Dead letters")
	b.until("it to go", func() bool {
		return strings.Contains(b.text("tbody"), "#18") && !strings.Contains(b.text("tbody"), "order-17")
	})
	if acts := letters.Acts(); len(acts) != 1 || acts[0].GetVerb() != amendsv1.OutboxVerb_OUTBOX_VERB_REPLAY || acts[0].GetReason() != "mended" {
		t.Errorf("acts: %v", acts)
	}
	letters.Fail(status.Error(codes.Unavailable, "Kafka cannot serve the dead letters just now: see the log"))
	b.sees(".cause", "Dead letters stay in Kafka")
}

func (n *night) grant(role amendsv1.Role) {
	who := gatewaytest.Caller{Subject: "ada@example.com", Roles: []amendsv1.Role{role}}
	n.coordinator.Grant("t0ken", who)
	for _, o := range []*gatewaytest.Outbox{n.orders, n.billing, n.mail} {
		o.Grant("t0ken", who)
	}
}

// replayOne: from the first page to a dead letter, why it is one, and back with it.
func replayOne(t *testing.T, n *night, b *tab) {
	n.grant(amendsv1.Role_ROLE_OPERATOR)
	b.visit("/")
	b.signIn("t0ken")
	b.sees(".verdict", "outbox orders: 3 dead letters")
	b.sees(".outboxes", "31 waiting")
	b.sees(".outboxes", "oldest 26m")
	b.click(`.verdict a[href*="deadletters"]`)
	b.sees("tbody", "order-17")
	b.click(`tbody a[data-row]`)
	b.sees(".cause", "is larger than the broker takes")
	b.sees("pre", "9007199254740993")
	b.sees(".headers", "ce-type")
	b.dialog(`[data-act="replay"]`)
	b.sees("dialog", "behind what waits there already")
	b.enter("#field-reason", "the limit was raised, ticket 99")
	b.snap("dialog")
	b.click("dialog button.primary")
	b.sees("h1", "Dead letters")
	b.until("it to go", func() bool {
		return !strings.Contains(b.text("tbody"), "order-17") && strings.Contains(b.text("tbody"), "#18")
	})
	b.visit("/outbox?name=orders&key=order-17")
	b.sees(".list table tbody", "orders.placed")
	b.sees(".deeds", "the limit was raised, ticket 99")
	acts := n.orders.Acts()
	if len(acts) != 1 || acts[0].GetActor() != "ada@example.com" || acts[0].GetTarget() != "numbers 17" || len(acts[0].GetRequestId()) != 32 {
		t.Errorf("acts: %v", acts)
	}
}

func replayMany(t *testing.T, n *night, b *tab) {
	b.visit("/deadletters?name=orders")
	b.sees("tbody", "#21")
	b.sees(".bulk", "Choose some")
	js[int](b, `[...document.querySelectorAll("tbody .choose input")].slice(0, 2).forEach((c) => c.click()) ?? 0`)
	b.sees(".bulk", "The 2 chosen")
	b.dialog(`[data-act="discard"]`)
	b.enter("#field-reason", "test data")
	b.enter("#field-typed", "3")
	b.click("dialog button.danger")
	if len(n.orders.Acts()) != 0 {
		t.Error("discarded without the right number")
	}
	b.enter("#field-typed", "\b2")
	b.click("dialog button.danger")
	b.dialogCloses()
	b.until("two to go", func() bool { return js[int](b, `document.querySelectorAll("tbody tr").length`) == 1 })
	b.enter("[name=topic]", "invoices.issued\r")
	b.sees(".bulk", "Everything of topic invoices.issued")
	b.dialog(`[data-act="replay"]`)
	b.click("dialog button.primary")
	b.sees("dialog h2", "Replay: 1 message")
	b.enter("#field-reason", "they may go")
	b.click("dialog button.primary")
	b.sees(".foot", "No dead letter matches")
	if acts := n.orders.Acts(); len(acts) != 2 || acts[0].GetMessages() != 2 || acts[1].GetVerb() != amendsv1.OutboxVerb_OUTBOX_VERB_REPLAY || acts[1].GetReason() != "they may go" {
		t.Errorf("acts: %v", acts)
	}
}

func skipAndPark(t *testing.T, n *night, b *tab) {
	b.visit("/outbox?name=orders")
	b.sees(".blocked", "Never gets through")
	b.dialog(`.blocked [data-act="skip"]`)
	b.enter("#field-reason", "too large for anybody")
	b.click("dialog button.primary")
	b.dialogCloses()
	b.until("the key to go", func() bool { return !strings.Contains(b.text(".blocked"), "order-4711") })
	b.dialog(`.list tbody tr:first-child [data-act="park key"]`)
	b.enter("#field-reason", "not now")
	b.click("dialog button.primary")
	b.dialogCloses()
	b.sees(".deeds", "parked")
	if acts := n.orders.Acts(); len(acts) != 2 || acts[0].GetTarget() != "position 0-1071" || acts[1].GetMessages() == 0 {
		t.Errorf("acts: %v", acts)
	}
}

// outboxPages: messages are shown 25 at a time, and filters are links.
func outboxPages(t *testing.T, n *night, b *tab) {
	b.visit("/outbox?name=orders")
	rows := func() int { return js[int](b, `document.querySelectorAll("[data-key]").length`) }
	b.until("the first page", func() bool { return rows() == 25 })
	b.enter("[name=key]", "order-")
	n.orders.Act(amendsv1.OutboxVerb_OUTBOX_VERB_PARK, "maria", "key x", "meanwhile")
	b.sees(".deeds", "meanwhile")
	b.press("47")
	if got := js[string](b, `document.activeElement.name + " " + document.activeElement.value`); got != "key order-47" {
		t.Errorf("who types while the page changes is left with %q", got)
	}
	b.click(`a[rel="next"]`)
	b.until("the second page", func() bool { return rows() == 6 })
	b.sees("main", "First page")
	b.click(`a[href*="topic=invoices.issued"]`)
	b.until("one topic", func() bool { return rows() == 6 })
	if got := js[string](b, `document.querySelector("[name=topic]").value`); got != "invoices.issued" {
		t.Errorf("the form says %q", got)
	}
}

func outboxViewer(t *testing.T, n *night, b *tab) {
	n.grant(amendsv1.Role_ROLE_VIEWER)
	b.visit("/outbox?name=orders")
	b.signIn("t0ken")
	b.sees(".blocked", "order-4711")
	for path, shows := range map[string]string{"/deadletters?name=orders": "order-17", "/deadletter?name=orders&number=17": "Given up"} {
		b.visit(path)
		b.sees("main", shows)
		if found := js[int](b, `document.querySelectorAll("[data-act], .choose").length`); found != 0 {
			t.Errorf("%s: a viewer is offered %d verbs", path, found)
		}
	}
	for path, body := range map[string]string{
		"/deadLetters:replay": `{"numbers":["17"],"reason":"x"}`, "/deadLetters:discard": `{"numbers":["17"],"reason":"x"}`,
		"/messages/0-1071:skip": `{"reason":"x"}`, ":parkKey": `{"key":"order-4711","reason":"x"}`,
	} {
		answer := js[int](b, fmt.Sprintf(`fetch("outbox/orders/v1/outbox%s", {method: "POST", body: %q, headers: {"Content-Type": "application/json",
			Authorization: "Bearer " + sessionStorage.getItem("amends.token")}}).then((r) => r.status)`, path, body))
		if answer != http.StatusForbidden || len(n.orders.Acts()) != 0 {
			t.Errorf("%s: a viewer is answered with %d; acts %v", path, answer, n.orders.Acts())
		}
	}
}

// relayRights: an operator of the coordinator who is a viewer at one relay and
// unknown to another.
func relayRights(t *testing.T, n *night, b *tab) {
	n.coordinator.Grant("t0ken", gatewaytest.Caller{Subject: "ada", Roles: []amendsv1.Role{amendsv1.Role_ROLE_OPERATOR}})
	n.orders.Grant("t0ken", gatewaytest.Caller{Subject: "ada", Roles: []amendsv1.Role{amendsv1.Role_ROLE_VIEWER}})
	n.billing.Grant("other", gatewaytest.Caller{})
	b.visit("/")
	b.signIn("t0ken")
	b.sees(".outboxes", "no access")
	b.sees(".verdict", "3 dead letters")
	if strings.Contains(b.text(".verdict"), "billing") {
		t.Error("a relay that is not the caller's business is called a trouble")
	}
	b.visit("/deadletters?name=orders")
	b.sees("tbody", "order-17")
	if found := js[int](b, `document.querySelectorAll("[data-act], .choose").length`); found != 0 {
		t.Errorf("a viewer of the relay is offered %d verbs", found)
	}
	b.visit("/outbox?name=billing")
	b.sees(".cause", "does not let you in")
	b.snap("refused")
	b.sees("#session", "ada") // still signed in
}

func relayAway(t *testing.T, n *night, b *tab) {
	b.visit("/")
	b.sees(".outboxes", "away")
	b.sees(".verdict", "outbox mail: its relay is away (dial tcp 10.2.0.9:7462: connect: connection refused)")
	b.sees("main", "coordinator-1") // nothing else is missing
	if banner := b.text("#banner"); banner != "" {
		t.Errorf("the whole page is called out of date: %s", banner)
	}
	for _, path := range []string{"/outbox?name=mail", "/deadletters?name=mail", "/deadletter?name=mail&number=1"} {
		b.visit(path)
		b.sees(".cause", "This relay is away")
		b.sees(".cause", "connection refused")
	}
	b.snap("away")
	b.visit("/outbox?name=mail")
	b.sees(".cause", "away")
	n.mail.Fail(nil)
	b.sees(".figures", "Oldest")
	n.mail.Fail(status.Error(codes.DeadlineExceeded, "context deadline exceeded"))
	b.sees(".cause", "does not answer in time")
}

func outboxKeys(t *testing.T, _ *night, b *tab) {
	b.visit("/")
	b.sees(".outboxes", "31 waiting")
	b.press("gx")
	b.sees("h1", "Outbox orders")
	b.press("gd")
	b.sees("tbody", "order-17")
	b.press("j")
	if got := js[string](b, `document.activeElement.textContent`); got != "#17" {
		t.Errorf("j leads to %q, want the first row", got)
	}
	b.press("/")
	if !js[bool](b, `document.activeElement.matches("[name=topic]")`) {
		t.Error("/ does not lead to the search field")
	}
}

func outboxTexts(t *testing.T, _ *night, b *tab) {
	for _, path := range []string{"/outbox?name=orders", "/deadletters?name=orders", "/deadletter?name=orders&number=18", "/deadletter?name=orders&number=17"} {
		b.visit(path)
		b.sees("main", hostile)
		if js[bool](b, `!!document.querySelector("img") || document.title.includes("pwned")`) {
			t.Errorf("%s: a text became an element", path)
		}
	}
	b.visit("/deadletter?name=orders&number=18")
	b.sees("pre", "ff 00 10")
}

func unknownOutbox(_ *testing.T, _ *night, b *tab) {
	b.visit("/outbox?name=nothing")
	b.sees("main", "There is no outbox nothing here")
	b.click(`main a[href*="billing"]`)
	b.sees(".figures", "Oldest")
	b.sees("main", "Nothing waits.")
}

func outboxLooks(t *testing.T, n *night, b *tab) {
	n.orders.Act(amendsv1.OutboxVerb_OUTBOX_VERB_PARK, "maria@example.com", "key order-3", "the tax office asked us to wait")
	for name, at := range map[string]struct{ path, shows string }{
		"overview": {"/", "31 waiting"}, "outbox": {"/outbox?name=orders", "Done by hand"}, "quiet": {"/outbox?name=billing", "Partitions"},
		"dead": {"/deadletters?name=orders", "#21"}, "letter": {"/deadletter?name=orders&number=17", "Headers"},
	} {
		b.visit(at.path)
		b.sees("main", at.shows)
		for _, l := range looks {
			b.wear(l)
			b.snap(name + "-" + l.name)
			if over := js[int](b, `document.scrollingElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("%s, %s: the page is %d px too wide", name, l.name, over)
			}
		}
	}
}

// TestOutboxAddresses: a relay's API is below its name, and nothing else is.
func TestOutboxAddresses(t *testing.T) {
	relay := badOutbox().Serve(t)
	h, err := console.New(gatewaytest.New().Serve(t), &console.Config{Outboxes: []console.Outbox{{Name: "orders", Conn: relay}}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/outbox": 200, "/deadletters": 200, "/deadletter": 200, "/outbox/orders/v1/outbox": 200, "/outbox/orders/v1/whoami": 200,
		"/outbox/orders/v1/outbox/messages?topic=x": 200, "/outbox/orders/v1/transactions": 404, "/outbox/orders/": 404, "/outbox/orders": 404,
		"/outbox/other/v1/outbox": 404, "/v1/outbox": 404, "/outbox/orders/v2/outbox": 404, "/outbox/orders/v1/outbox/messages/%31-1071": 404,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if csp := w.Header().Get("Content-Security-Policy"); w.Code != want || csp == "" {
			t.Errorf("%s: %d, policy %q; want %d", path, w.Code, csp, want)
		}
	}
	for _, wrong := range [][]console.Outbox{{{Name: "a/b", Conn: relay}}, {{Name: "", Conn: relay}}, {{Name: "a"}}, {{Name: "a", Conn: relay}, {Name: "a", Conn: relay}}} {
		if _, err := console.New(gatewaytest.New().Serve(t), &console.Config{Outboxes: wrong}); err == nil {
			t.Errorf("%v is taken", wrong)
		}
	}
}
