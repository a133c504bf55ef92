package auth

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const (
	card    = `{"card":{"number":4111111111111111,"holder":"A"},"items":[{"pin":"1234","n":90071992547409931}],"number":7}`
	cardCut = `{"card":{"holder":"A","number":"[redacted]"},"items":[{"n":90071992547409931,"pin":"[redacted]"}],"number":7}`
	nothing = `"[redacted]"`
)

// answers are one of each that has payloads in it, made anew.
func answers() map[string]any {
	tx := func() *amendsv1.Transaction {
		return &amendsv1.Transaction{Gid: "order-1", Branches: []*amendsv1.Branch{
			{Name: "pay", Request: []byte(card), Reply: []byte(card)}, {Name: "ship", Error: "no van"}}}
	}
	dead := &amendsv1.DeadLetter{Id: "m1", Body: []byte(card), Headers: map[string]string{"trace": "1", "PIN": "9999"}}
	return map[string]any{
		amendsv1.AdminService_GetTransaction_FullMethodName:   &amendsv1.GetTransactionResponse{Transaction: tx()},
		amendsv1.OperatorService_RetryNow_FullMethodName:      &amendsv1.RetryNowResponse{Transaction: tx()},
		amendsv1.OperatorService_Abort_FullMethodName:         &amendsv1.AbortResponse{Transaction: tx()},
		amendsv1.OperatorService_Pause_FullMethodName:         &amendsv1.PauseResponse{Transaction: tx()},
		amendsv1.OperatorService_Resume_FullMethodName:        &amendsv1.ResumeResponse{Transaction: tx()},
		amendsv1.OperatorService_SkipStep_FullMethodName:      &amendsv1.SkipStepResponse{Transaction: tx()},
		amendsv1.OperatorService_CompleteStep_FullMethodName:  &amendsv1.CompleteStepResponse{Transaction: tx()},
		amendsv1.OperatorService_FailStep_FullMethodName:      &amendsv1.FailStepResponse{Transaction: tx()},
		amendsv1.OperatorService_Abandon_FullMethodName:       &amendsv1.AbandonResponse{Transaction: tx()},
		amendsv1.OutboxService_GetDeadLetter_FullMethodName:   &amendsv1.GetDeadLetterResponse{DeadLetter: dead},
		amendsv1.AdminService_ListTransactions_FullMethodName: &amendsv1.ListTransactionsResponse{Transactions: []*amendsv1.Transaction{{Gid: "order-1"}}},
	}
}

// seen is what payloads an answer shows, and its headers.
func seen(answer any) (payloads []string, headers map[string]string) {
	if m, ok := answer.(withTransaction); ok {
		for _, b := range m.GetTransaction().GetBranches()[:1] {
			payloads = append(payloads, string(b.GetRequest()), string(b.GetReply()))
		}
	}
	if m, ok := answer.(withDeadLetter); ok {
		return []string{string(m.GetDeadLetter().GetBody())}, m.GetDeadLetter().GetHeaders()
	}
	return payloads, nil
}

// TestPayloads: every answer with a payload, for every role, under three rules.
func TestPayloads(t *testing.T) {
	redact := []string{"CARD.number", "pin"}
	roles := func(r ...amendsv1.Role) []amendsv1.Role { return r }
	cases := map[string]struct {
		rule Payloads
		want map[string]string // by role: what is shown
	}{
		"default":      {Payloads{}, map[string]string{"v": nothing, "o": card, "b": card}},
		"redacted":     {Payloads{Redact: redact}, map[string]string{"v": nothing, "o": cardCut, "b": card}},
		"viewers, too": {Payloads{Roles: roles(letters["v"], letters["o"]), Redact: redact}, map[string]string{"v": cardCut, "o": cardCut, "b": card}},
		"nobody":       {Payloads{Roles: roles(letters["b"])}, map[string]string{"v": nothing, "o": nothing, "b": card}},
	}
	cells := 0
	for name, c := range cases {
		for letter, want := range c.want {
			who := &people{ids: map[string]*Identity{letter: {Subject: letter, Grants: []Grant{{"shop", letters[letter]}, {"other", letters["b"]}}}}}
			l := &logged{}
			g := newGuard(t, who, &Config{Payloads: func() Payloads { return c.rule }, Logger: l.logger()})
			for method, answer := range answers() {
				if !slices.Contains(rules[method].roles, letters[letter]) {
					continue
				}
				cells++
				ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+letter, amendsv1.NamespaceHeader, "shop"))
				got, err := g.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return answer, nil })
				if err != nil {
					t.Fatalf("%s, %s as %s: %v", name, method, letter, err)
				}
				payloads, headers := seen(got)
				if slices.ContainsFunc(payloads, func(p string) bool { return p != want }) {
					t.Errorf("%s, %s as %s: %q, want %s", name, method, letter, payloads, want)
				}
				wantHeaders := map[string]map[string]string{
					card: {"trace": "1", "PIN": "9999"}, cardCut: {"trace": "1", "PIN": redacted}, nothing: {"trace": redacted, "PIN": redacted}}[want]
				if headers != nil && !maps.Equal(headers, wantHeaders) {
					t.Errorf("%s, %s as %s: headers %v, want %v", name, method, letter, headers, wantHeaders)
				}
			}
			broke := strings.Contains(l.String(), "break-glass was shown payloads") && strings.Contains(l.String(), "of=order-1")
			if want := letter == "b" && name != "nobody"; broke != want { // whom the rule names breaks no glass
				t.Errorf("%s as %s: break-glass in the log: %v, want %v\n%s", name, letter, broke, want, l)
			}
		}
	}
	t.Logf("%d cells", cells)
}

// TestPayloadsAreKnown walks the answers of all methods: bytes that are not
// named here are a payload that show does not know of.
func TestPayloadsAreKnown(t *testing.T) {
	known := map[string]string{
		"amends.v1.Event.hash":              "covers what follows it",
		"amends.v1.Event.prev_hash":         "as hash",
		"amends.v1.Event.data":              "people's words and names of steps; hidden, no trail could be verified",
		"amends.v1.Transaction.event_hash":  "as hash",
		"amends.v1.TryBranchResponse.reply": "to the service that asked for it",
		"amends.v1.Branch.request":          "withTransaction",
		"amends.v1.Branch.reply":            "withTransaction",
		"amends.v1.DeadLetter.body":         "withDeadLetter",
		"amends.v1.Call.payload":            "to the participant",
		"amends.v1.StepReply.body":          "to the participant",
		"amends.v1.Answer.response":         "the answer of a method, hidden before it is encoded",
		"amends.v1.Answer.status":           "an error",
	}
	var walk func(m protoreflect.MessageDescriptor, done map[protoreflect.FullName]bool, found func(protoreflect.FieldDescriptor))
	walk = func(m protoreflect.MessageDescriptor, done map[protoreflect.FullName]bool, found func(protoreflect.FieldDescriptor)) {
		if done[m.FullName()] || !strings.HasPrefix(string(m.FullName()), "amends.") {
			return
		}
		done[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if f.Kind() == protoreflect.BytesKind {
				found(f)
			}
			if f.Message() != nil {
				walk(f.Message(), done, found)
			}
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("amends.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				walk(m.Output(), map[protoreflect.FullName]bool{}, func(f protoreflect.FieldDescriptor) {
					how, ok := known[string(f.FullName())]
					via := map[string]string{"withTransaction": "transaction", "withDeadLetter": "dead_letter"}[how]
					if !ok {
						t.Errorf("%s answers with %s, which nothing hides: see eachPayload", m.FullName(), f.FullName())
					} else if via != "" && m.Output().Fields().ByName(protoreflect.Name(via)) == nil && !without[string(m.FullName())] {
						t.Errorf("%s answers with %s, but not in a field %s: see eachPayload", m.FullName(), f.FullName(), via)
					}
				})
			}
		}
		return true
	})
}

// without have messages that could hold payloads, and leave them out: other
// tests look.
var without = map[string]bool{
	"amends.v1.AdminService.ListTransactions": true, // never with branches
	"amends.v1.OutboxService.ListDeadLetters": true, // never with bodies
}

func TestRedact(t *testing.T) {
	p := Payloads{Redact: []string{"card.number", "Secret"}}
	for in, want := range map[string]string{
		card: `{"card":{"holder":"A","number":"[redacted]"},"items":[{"n":90071992547409931,"pin":"1234"}],"number":7}`,
		`{"a":{"CARD":[{"number":1},{"number":{"x":2}}]}}`: `{"a":{"CARD":[{"number":"[redacted]"},{"number":"[redacted]"}]}}`,
		`{"secret":1,"secret":2,"SECRET":3}`:               `{"SECRET":"[redacted]","secret":"[redacted]"}`,
		`{"number":1,"card":2}`:                            `{"card":2,"number":1}`,
		`[{"card":{"sub":{"number":1}}}]`:                  `[{"card":{"sub":{"number":1}}}]`,
		`"text"`:                                           `"text"`, `7`: `7`, `null`: `null`,
		`{"card":{}} {"card":{"number":1}}`: nothing, "\x08\x01": nothing, `{"secret":`: nothing, ` `: nothing,
	} {
		if got := string(p.redact([]byte(in))); got != want {
			t.Errorf("%s\n%s, want\n%s", in, got, want)
		}
	}
}

// TestPayloadsOfFile: what the file says counts, and again when it changes.
func TestPayloadsOfFile(t *testing.T) {
	token := NewToken()
	text := `{"tokens": [{"subject": "ann", "grants": ["viewer"], "sha256": "` + HashToken(token) + `"}], "payloads": {"roles": ["viewer"], "redact": ["pin"]}}`
	f := openFile(t, t.TempDir(), text, nil)
	if got := fmt.Sprint(f.Payloads()); got != fmt.Sprint(Payloads{Roles: []amendsv1.Role{letters["v"]}, Redact: []string{"pin"}}) {
		t.Errorf("the file's: %s", got)
	}
	for name, who := range map[string]Authenticator{"file": f, "chain": Chain{&people{}, f}} {
		g := newGuard(t, who, nil)
		answer := &amendsv1.GetTransactionResponse{Transaction: &amendsv1.Transaction{Branches: []*amendsv1.Branch{{Request: []byte(`{"pin":1}`)}}}}
		ctx := NewContext(t.Context(), Caller{Identity: Identity{Grants: []Grant{{Role: letters["v"]}}}})
		g.show(ctx, amendsv1.AdminService_GetTransaction_FullMethodName, answer)
		if got := string(answer.GetTransaction().GetBranches()[0].GetRequest()); got != `{"pin":"[redacted]"}` {
			t.Errorf("%s: %s", name, got)
		}
	}
}
