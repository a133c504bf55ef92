package metrics_test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/metrics"
	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store/sealedstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

const (
	rulesFile     = "../../deploy/prometheus/amends.rules.yml"
	dashboardFile = "../../deploy/grafana/amends.json"
	docsFile      = "../../docs/observability.md"
)

// still is a source of nothing.
type still struct{}

func (still) Stats() coordinator.Stats { return coordinator.Stats{} }
func (still) Backlog(context.Context) (coordinator.Backlog, error) {
	return coordinator.Backlog{}, nil
}

type stillConsumer struct{}

func (stillConsumer) Stats() inbox.ConsumerStats { return inbox.ConsumerStats{} }

type stillWriter struct{}

func (stillWriter) Stats() outbox.Stats { return outbox.Stats{} }

type stillNotifier struct{}

func (stillNotifier) Stats() []notify.Stats { return nil }

type stillEncryption struct{}

func (stillEncryption) Status() sealedstore.Status { return sealedstore.Status{} }

type stillRelay struct{}

func (stillRelay) Stats() outbox.RelayStats { return outbox.RelayStats{} }

var described = regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]+)", unit: "[^"]*", constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)

// fixed is a label that a collector was given, with its value.
var fixed = regexp.MustCompile(`(\w+)="[^"]*",?`)

// labelsOf returns the labels of every metric that the collectors describe.
func labelsOf(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, c := range []prometheus.Collector{
		metrics.New(still{}, nil), metrics.NewRelay(stillRelay{}, nil), metrics.NewWriter(stillWriter{}),
		metrics.NewConsumer("g", stillConsumer{}), metrics.NewNotifier(stillNotifier{}), metrics.NewEncryption(stillEncryption{}),
	} {
		ch := make(chan *prometheus.Desc, 100)
		c.Describe(ch)
		close(ch)
		for d := range ch {
			m := described.FindStringSubmatch(d.String())
			if m == nil {
				t.Fatalf("cannot read %v", d)
			}
			if _, twice := found[m[1]]; twice {
				t.Errorf("%s is described twice", m[1])
			}
			found[m[1]] = strings.FieldsFunc(fixed.ReplaceAllString(m[3], "$1,")+m[4], func(r rune) bool { return r == ',' || r == ' ' })
		}
	}
	return found
}

var (
	used     = regexp.MustCompile(`\bamends_[a-z0-9_]+`)
	selector = regexp.MustCompile(`\b(amends_[a-z0-9_]+)\{([^}]*)\}`)
	grouping = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// family is a metric's name without what a histogram's series add to it.
func family(name string, exist map[string][]string) string {
	if _, ok := exist[name]; ok {
		return name
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(name, suffix); cut && strings.HasSuffix(base, "_seconds") || base == "amends_commit_transactions" {
			return base
		}
	}
	return name
}

// checkExpr reports what an expression names that does not exist.
func checkExpr(expr string, exist map[string][]string) (wrong []string) {
	labels := []string{"job", "instance", "le"}
	for _, name := range used.FindAllString(expr, -1) {
		base := family(name, exist)
		if _, ok := exist[base]; !ok {
			wrong = append(wrong, name+" is no metric")
		}
		labels = append(labels, exist[base]...)
	}
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		for _, term := range strings.Split(m[2], ",") {
			label := strings.TrimRight(strings.SplitN(term, "=", 2)[0], "!")
			if own := exist[family(m[1], exist)]; label != "job" && !slices.Contains(own, label) {
				wrong = append(wrong, m[1]+" has no label "+label)
			}
		}
	}
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, label := range strings.Split(m[1], ", ") {
			if !slices.Contains(labels, label) {
				wrong = append(wrong, "nothing in it has the label "+label)
			}
		}
	}
	if strings.Count(expr, "(") != strings.Count(expr, ")") || strings.Count(expr, "{") != strings.Count(expr, "}") {
		wrong = append(wrong, "brackets do not match")
	}
	return wrong
}

func TestCheckExprFindsWhatIsWrong(t *testing.T) {
	exist := map[string][]string{"amends_a_seconds": {"op"}, "amends_b": nil}
	for expr, want := range map[string]string{
		`sum by (op, le) (rate(amends_a_seconds_bucket{op="do",job=~"x"}[5m])) > 0 and amends_b`: "",
		`amends_c > 0`:              "amends_c is no metric",
		`amends_b_total`:            "amends_b_total is no metric",
		`amends_b{op="do"}`:         "amends_b has no label op",
		`sum by (kind) (amends_b)`:  "nothing in it has the label kind",
		`sum by (job) (amends_b`:    "brackets do not match",
		`amends_a_seconds{op!="x"}`: "",
	} {
		if got := strings.Join(checkExpr(expr, exist), "; "); got != want {
			t.Errorf("%s: says %q, want %q", expr, got, want)
		}
	}
}

// alert is one rule of the shipped file, as far as it is checked.
type alert struct{ name, expr, severity, summary, runbook string }

// alerts reads our rules. It knows only the YAML that they are written in.
func alerts(t *testing.T) (all []alert) {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	folded := regexp.MustCompile(`expr: \|\n((?: {10,}.*\n)+)`).ReplaceAllStringFunc(string(text), func(s string) string {
		return "expr: " + strings.Join(strings.Fields(strings.TrimPrefix(s, "expr: |")), " ") + "\n"
	})
	for _, rule := range strings.Split(folded, "- alert: ")[1:] {
		field := func(name string) string {
			m := regexp.MustCompile(`(?m)^ +` + name + `: "?(.*?)"?$`).FindStringSubmatch(rule)
			if m == nil {
				return ""
			}
			return m[1]
		}
		name, _, _ := strings.Cut(rule, "\n")
		all = append(all, alert{name, field("expr"), field("severity"), field("summary"), field("runbook")})
	}
	return all
}

func TestRulesAndDashboard(t *testing.T) {
	exist := labelsOf(t)
	docs, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	all := alerts(t)
	if len(all) < 10 {
		t.Fatalf("found %d alerts only", len(all))
	}
	for _, a := range all {
		if len(used.FindAllString(a.expr, -1)) == 0 {
			t.Errorf("%s: the expression %q names no metric of ours", a.name, a.expr)
		}
		for _, wrong := range checkExpr(a.expr, exist) {
			t.Errorf("%s: %s", a.name, wrong)
		}
		if a.severity != "page" && a.severity != "ticket" || a.summary == "" {
			t.Errorf("%s: severity %q, summary %q", a.name, a.severity, a.summary)
		}
		if want := "docs/observability.md#" + strings.ToLower(a.name); a.runbook != want || !strings.Contains(string(docs), "\n### "+a.name+"\n") {
			t.Errorf("%s: the runbook is %q, want %q and a heading there", a.name, a.runbook, want)
		}
	}
	shown := map[string]bool{}
	for _, expr := range dashboard(t) {
		for _, wrong := range checkExpr(expr, exist) {
			t.Errorf("dashboard: %s: %s", expr, wrong)
		}
		for _, name := range used.FindAllString(expr, -1) {
			shown[family(name, exist)] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(exist)) {
		if !shown[name] {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// dashboard returns every expression of the dashboard.
func dashboard(t *testing.T) (exprs []string) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID          int
			Type, Title string
			Description string
			Targets     []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range d.Panels {
		if seen[p.ID] || p.Title == "" || p.Type != "row" && (len(p.Targets) == 0 || p.Description == "") {
			t.Errorf("panel %d (%s) has no id of its own, no title, no target or no description", p.ID, p.Title)
		}
		seen[p.ID] = true
		for _, q := range p.Targets {
			exprs = append(exprs, strings.ReplaceAll(q.Expr, "$__rate_interval", "5m"))
		}
	}
	if len(exprs) < 20 {
		t.Fatalf("found %d expressions only", len(exprs))
	}
	return exprs
}

var documented = regexp.MustCompile("(?m)^\\| `(amends_\\w+)` \\| (\\w+) \\|([^|]*)\\| .* \\|$")

// Each metric has one row in the docs, with its labels, and no row is left of
// one that is gone.
func TestDocumentation(t *testing.T) {
	docs, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	exist, rows := labelsOf(t), map[string]int{}
	for _, m := range documented.FindAllStringSubmatch(string(docs), -1) {
		rows[m[1]]++
		if want := strings.Join(exist[m[1]], ", "); strings.TrimSpace(m[3]) != want {
			t.Errorf("%s: the docs give the labels %q, it has %q", m[1], m[3], want)
		}
		if counter := strings.HasSuffix(m[1], "_total"); counter != (m[2] == "counter") {
			t.Errorf("%s is documented as a %s", m[1], m[2])
		}
	}
	for name := range exist {
		if rows[name] != 1 {
			t.Errorf("%s has %d rows in the docs, want 1", name, rows[name])
		}
	}
	for _, name := range used.FindAllString(string(docs), -1) {
		if _, ok := exist[name]; !ok {
			t.Errorf("the docs name %s, which no collector describes", name)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Amends\w+)$`).FindAllStringSubmatch(string(docs), -1) {
		if !slices.ContainsFunc(alerts(t), func(a alert) bool { return a.name == m[1] }) {
			t.Errorf("the docs describe the alert %s, which is not in the rules", m[1])
		}
	}
}
