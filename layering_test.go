package amends_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// arrow allows one room to import another, and says why.
type arrow struct{ from, to, why string }

const internals = "coordinator/internal/..."

// arrows are all there are between our own packages. A room may also import
// what lies under its own internal folder.
var arrows = []arrow{
	{"saga", "saga/txn", "the words that both machines share"},
	{"tcc", "saga/txn", "the words that both machines share"},

	{"outbox/inbox", "outbox", "messages and dialects are the outbox's"},
	{"outbox/outboxtest", "outbox", "the suite of every dialect"},
	{"outbox/outboxtest", "outbox/inbox", "the suite of every dialect"},
	{"outbox/outboxtest", "outbox/outboxdev", "the suite publishes to something"},
	{"outbox/binlog", "outbox", "a source of its relay"},
	{"outbox/rabbitmq", "outbox", "a publisher of its messages"},
	{"outbox/jetstream", "outbox", "a publisher of its messages"},
	{"outbox/cloudevents", "outbox", "makes its messages"},
	{"outbox/cloudevents", "outbox/inbox", "reads the consumer's"},
	{"outbox/debezium", "outbox", "makes its messages"},
	{"outbox/debezium", "outbox/inbox", "reads the consumer's"},
	{"outbox/schema", "outbox", "makes its messages"},
	{"outbox/schema/...", "outbox", "the messages of a serializer"},
	{"outbox/schema/...", "outbox/schema", "implement its interfaces"},

	{"coordinator/store/memstore", "coordinator/store", "implements it"},
	{"coordinator/store/sqlstore", "coordinator/store", "implements it"},
	{"coordinator/store/storetest", "coordinator/store", "tests it"},

	{"coordinator", internals, "is put together of them"},
	{"coordinator", "coordinator/store", "keeps transactions in one"},
	{"coordinator", "proto/amends/v1", "serves it"},
	{"coordinator", "coordinator/auth", "stands before the services"},
	{internals, internals, "the parts of one machine"},
	{internals, "coordinator/store", "what the engine commits to"},
	{internals, "saga", "drives its machine"},
	{internals, "tcc", "drives its machine"},
	{internals, "saga/txn", "calls and outcomes"},
	{internals, "proto/amends/v1", "speaks it"},

	{"proto/amends/v1/gateway", "proto/amends/v1", "its HTTP half"},
	{"coordinator/auth", "proto/amends/v1", "errors, roles, methods"},
	{"coordinator/gateway", "proto/amends/v1", "JSON over HTTP is a client of the API"},
	{"coordinator/gateway", "proto/amends/v1/gateway", "the generated handlers"},
	{"coordinator/gateway/gatewaytest", "proto/amends/v1", "a fake API"},
	{"coordinator/console", "coordinator/gateway", "its pages ask the JSON API"},
	{"coordinator/metrics", "coordinator", "exports its figures"},
	{"coordinator/metrics", "proto/amends/v1", "Guarded asks who may look"},
	{"coordinator/metrics", "outbox", "exports a relay's figures"},
	{"coordinator/metrics", "outbox/inbox", "exports a consumer's figures"},
	{"coordinator/metrics", "coordinator/notify", "exports its figures"},
	{"coordinator/metrics", "coordinator/store/sealedstore", "exports its figures"},
	{"coordinator/notify", "coordinator/store", "finds there what needs a person"},
	{"coordinator/notify", "saga/txn", "the names of states"},
	{"coordinator/store/sealedstore", "coordinator/store", "implements it over another"},
	{"outbox/outboxapi", "outbox", "operates it"},
	{"outbox/outboxapi", "outbox/inbox", "operates consumers' dead letters"},
	{"outbox/outboxapi", "proto/amends/v1", "speaks it"},

	{"deploy/servicestest", "deploy/services", "starts servers of a test's own"},

	{"sdk", "saga", "starts sagas, offers their actions"},
	{"sdk", "tcc", "runs TCC transactions, offers their actions"},
	{"sdk", "saga/txn", "states, outcomes, codecs"},
	{"sdk", "proto/amends/v1", "speaks to the coordinator: never imports it"},
	{"sdk", "outbox", "StartTx writes a row; the guard's dialect"},
	{"sdk", "outbox/inbox", "the guard is its Claim"},
	{"sdk/idempotency", "outbox", "the dialect; transactions"},
	{"sdk/sdktest", "sdk", "what it tests"},
	{"sdk/sdktest", "coordinator", "a whole coordinator in a test"},
	{"sdk/sdktest", "coordinator/store", "Crash keeps it"},
	{"sdk/sdktest", "coordinator/store/memstore", "Crash keeps it"},
	{"sdk/sdktest", "outbox", "the participants' dialect"},
	{"sdk/sdktest", "saga", "the enumerator walks the user's saga"},
	{"sdk/sdktest", "tcc", "and the user's TCC transaction"},
	{"sdk/sdktest", "saga/txn", "states in the trail"},
	{"sdk/sdktest", "proto/amends/v1", "reads the trail, loses messages on the way"},
}

// anywhere are rooms that may import every public package but test kits: they
// show what users can do.
var anywhere = []string{"cmd/...", "examples/..."}

// testArrows are what _test.go files may import beside their room's arrows;
// the compiler forbids cycles.
var testArrows = []arrow{
	{"...", "outbox/outboxdev", "in-process Kafka and Redis"},
	{"...", "coordinator/store/memstore", "a store that needs no disk"},
	{"...", "coordinator/store/sqlstore", "a store that survives a crash"},
	{"...", "coordinator/store", "what a fake implements"},
	{"sdk/...", "coordinator", "the other end of the wire"},
	{"sdk/...", "coordinator/auth", "the other end of the wire asks for credentials"},
	{"coordinator/...", "coordinator", "a whole one"},
	{"coordinator/...", "sdk", "its participants"},
	{"coordinator/...", "outbox", "a participant's dialect"},
	{"coordinator/...", "outbox/inbox", "the consumers of the simulation"},
	{"coordinator/console", "coordinator/gateway/gatewaytest", "a fake API"},
	{"coordinator/console", "outbox/outboxapi", "a real relay's API"},
	{"outbox/schema/...", "outbox/schema/...", "the registry with each codec"},
	{"outbox/...", "outbox/inbox", "handles once what was published"},
	{"outbox/...", "deploy/services", "how to run a server"},
	{"coordinator/gateway", "coordinator/gateway/gatewaytest", "a fake API"},
	{"coordinator/console", "proto/amends/v1", "what the fake answers"},
	{"coordinator/...", "proto/amends/v1", "the wire"},
	{"coordinator/...", "coordinator/store/storetest", "the suite of every store"},
	{"coordinator/...", "saga", "what it drives"},
	{"coordinator/...", "tcc", "what it drives"},
	{"coordinator/...", "saga/txn", "what it drives"},
}

// outside are the modules that are not ours nor the standard library's, each
// with the rooms that production code may use it in.
var outside = []arrow{
	{"coordinator/store/sqlstore", "modernc.org/sqlite", "the embedded store; users' own databases bring their own driver"},
	{"coordinator/store/sqlstore", "github.com/go-sql-driver/mysql", "the MySQL store: its DSN, its error numbers"},
	{"coordinator/store/sqlstore", "github.com/gofrs/flock", "one process at a time"},
	{"outbox/outboxdev", "github.com/twmb/franz-go", "Kafka for development"},
	{"outbox/outboxdev", "github.com/alicebob/miniredis/v2", "Redis for development"},
	{"outbox/...", "github.com/segmentio/kafka-go", "publisher and consumer"},
	{"outbox/...", "github.com/redis/go-redis/v9", "keys"},
	{"outbox/...", "github.com/google/uuid", "message ids"},
	{"outbox/...", "golang.org/x/sync", "errgroup: goroutines have an owner"},
	{"coordinator/...", "google.golang.org/grpc", "the services"},
	{"coordinator/...", "google.golang.org/protobuf", "the services"},
	{"coordinator/...", "github.com/google/uuid", "gids"},
	{"coordinator/...", "golang.org/x/sync", "errgroup: goroutines have an owner"},
	{"proto/amends/v1", "google.golang.org/grpc", "status of errors"},
	{"proto/amends/v1", "google.golang.org/protobuf", "messages"},
	{"proto/amends/v1", "google.golang.org/genproto/googleapis/rpc", "ErrorInfo"},
	{"sdk/...", "google.golang.org/grpc", "the connection is an argument"},
	{"sdk/...", "google.golang.org/protobuf", "messages"},
	{"sdk/...", "github.com/google/uuid", "gids"},
	{"sdk/...", "golang.org/x/sync", "errgroup: goroutines have an owner"},
	{"sdk/sdktest", "modernc.org/sqlite", "the participants' database in a test"},
	{"proto/amends/v1/gateway", "github.com/grpc-ecosystem/grpc-gateway/v2", "generated for it"},
	{"proto/amends/v1/gateway", "google.golang.org/grpc", "generated for it"},
	{"proto/amends/v1/gateway", "google.golang.org/protobuf", "generated for it"},
	{"coordinator/gateway/...", "github.com/grpc-ecosystem/grpc-gateway/v2", "the handlers' mux"},
	{"coordinator/gateway/...", "google.golang.org/genproto/googleapis/rpc", "names of codes"},
	{"coordinator/auth", "github.com/go-jose/go-jose/v4", "JWTs"},
	{"coordinator/metrics", "github.com/prometheus/client_golang", "what it exports to"},
	{"sdk/...", "go.opentelemetry.io/otel", "traces; the API only, the exporter is the user's"},
	{"outbox/...", "go.opentelemetry.io/otel", "traces; the API only, the exporter is the user's"},
	{"outbox/outboxapi", "google.golang.org/grpc", "the service"},
	{"outbox/outboxapi", "google.golang.org/protobuf", "the service"},
	{"deploy/services", "golang.org/x/sync", "errgroup: goroutines have an owner"},
	{"deploy/services", "github.com/go-sql-driver/mysql", "asks whether the server answers"},
	{"deploy/services", "github.com/segmentio/kafka-go", "asks whether the broker answers"},
	{"deploy/servicestest", "github.com/go-sql-driver/mysql", "a database for each test"},
	{"deploy/servicestest", "github.com/segmentio/kafka-go", "a topic for each test"},
	{"outbox/binlog", "github.com/go-mysql-org/go-mysql", "reads the binary log"},
	{"outbox/binlog", "github.com/go-sql-driver/mysql", "its DSN, its error numbers"},
	{"outbox/rabbitmq", "github.com/rabbitmq/amqp091-go", "the client"},
	{"outbox/jetstream", "github.com/nats-io/nats.go", "the client"},
	{"outbox/schema/jsonschema", "github.com/santhosh-tekuri/jsonschema/v6", "validates"},
	{"outbox/schema/avro", "github.com/twmb/avro", "encodes"},
	{"outbox/schema/protobuf", "google.golang.org/protobuf", "encodes"},
	{"outbox/schema/registry", "github.com/twmb/franz-go/pkg/sr", "asks a schema registry"},
	{"sdk/idempotency", "github.com/dunglas/httpsfv", "structured fields of HTTP"},
	{"deploy/services", "github.com/rabbitmq/amqp091-go", "asks whether the server answers"},
	{"deploy/services", "github.com/nats-io/nats.go", "asks whether the server answers"},
	{"coordinator", "go.opentelemetry.io/otel", "traces; the API only, the exporter is the user's"},
	{internals, "go.opentelemetry.io/otel", "traces; the API only, the exporter is the user's"},
	{"cmd/amends", "github.com/prometheus/client_golang", "what it shows at /metrics"},
	{"cmd/amends", "github.com/spf13/cobra", "commands and flags"},
	{"cmd/amends", "golang.org/x/term", "colour only on a terminal"},
	{"cmd/amends", "google.golang.org/grpc", "connects"},
	{"cmd/amends", "google.golang.org/protobuf", "--output json"},
	{"cmd/amends", "github.com/go-sql-driver/mysql", "--mysql: the DSN, the relay's database"},
	{"cmd/amends", "github.com/redis/go-redis/v9", "the relay's keys"},
	{"cmd/amends", "modernc.org/sqlite", "the relay's database"},
	{"cmd/amends", "golang.org/x/sync", "errgroup: goroutines have an owner"},
	{"cmd/amends", "github.com/segmentio/kafka-go", "--kafka-sasl: its mechanisms"},
	{"cmd/amends/internal/bench", "github.com/HdrHistogram/hdrhistogram-go", "latencies to their percentiles"},
	{"cmd/amends/internal/bench", "github.com/go-sql-driver/mysql", "a database to measure in"},
	{"cmd/amends/internal/bench", "github.com/google/uuid", "names that nobody has"},
	{"cmd/amends/internal/bench", "golang.org/x/sync", "errgroup: goroutines have an owner"},
	{"cmd/amends/internal/bench", "google.golang.org/grpc", "over loopback"},
	{"cmd/torture/...", "github.com/spf13/cobra", "commands and flags"},
	{"cmd/torture/...", "github.com/go-sql-driver/mysql", "the checker reads the databases itself"},
	{"cmd/torture/...", "github.com/redis/go-redis/v9", "flushes it"},
	{"cmd/torture/...", "github.com/segmentio/kafka-go", "the checker reads the log itself"},
	{"cmd/torture/...", "golang.org/x/sync", "errgroup: goroutines have an owner"},
	{"cmd/torture/...", "google.golang.org/grpc", "connects"},
}

// outsideAnywhere are rooms that use whatever the main module requires.
var outsideAnywhere = []string{"examples/..."}

func allowed(table []arrow, from, to string) bool {
	for _, a := range table {
		if (a.from == "..." || under(from, a.from)) && under(to, a.to) {
			return true
		}
	}
	return false
}

// mayImport tells whether the package in dir may import our package to.
func mayImport(dir, to string, test bool) bool {
	room, _, _ := strings.Cut(dir, "/internal")
	if from, _, ok := strings.Cut(to, "/internal"); ok && from == room && allowed(arrows, room, room+"/internal/...") {
		return true
	}
	if dir == to || allowed(arrows, dir, to) {
		return true
	}
	if test && (inTestPackage(to) || allowed(testArrows, dir, to)) {
		return true
	}
	for _, pattern := range anywhere {
		if under(dir, pattern) {
			private := strings.Contains(to, "internal") && !strings.HasPrefix(to, room+"/internal")
			return !private && (test || !inTestPackage(to))
		}
	}
	return false
}

// mayUse tells whether production code in dir may import a package of others.
func mayUse(dir, to string) bool {
	for _, pattern := range outsideAnywhere {
		if under(dir, pattern) {
			return true
		}
	}
	for _, a := range outside {
		if under(dir, a.from) && under(to, a.to+"/...") {
			return true
		}
	}
	return inTestPackage(dir) && under(to, "github.com/cockroachdb/datadriven/...")
}

// layering finds imports that no arrow allows.
func layering(tr *tree) []string {
	var found []string
	for _, s := range tr.files {
		for _, p := range s.imports() {
			if ours, ok := strings.CutPrefix(p, module+"/"); ok {
				if !mayImport(s.dir, ours, s.test) {
					found = append(found, fmt.Sprintf("%s: %s may not import %s: no arrow allows it", s.path, s.dir, ours))
				}
				continue
			}
			host, _, _ := strings.Cut(p, "/")
			if strings.Contains(host, ".") && !s.test && !mayUse(s.dir, p) {
				found = append(found, fmt.Sprintf("%s: %s may not use %s: see the table named outside", s.path, s.dir, p))
			}
		}
	}
	return found
}

func TestLayering(t *testing.T) {
	for _, f := range layering(loadTree(t, os.DirFS("."))) {
		t.Error(f)
	}
}

func TestLayeringFindsWrongArrows(t *testing.T) {
	file := func(imports ...string) string {
		return "package p\nimport (\n\"" + strings.Join(imports, "\"\n\"") + "\"\n)\n"
	}
	ours := func(p string) string { return module + "/" + p }
	for _, w := range []wrong{
		{name: "saga to txn", path: "saga/a.go", text: file(ours("saga/txn"), "errors")},
		{name: "saga to store", path: "saga/a.go", text: file(ours("coordinator/store")), want: "saga may not import coordinator/store"},
		{name: "store to saga", path: "coordinator/store/a.go", text: file(ours("saga")), want: "may not import saga"},
		{name: "sdk to coordinator", path: "sdk/a.go", text: file(ours("coordinator")), want: "sdk may not import coordinator"},
		{name: "sdk's test to coordinator", path: "sdk/a_test.go", text: file(ours("coordinator"))},
		{name: "coordinator to sdk", path: "coordinator/a.go", text: file(ours("sdk")), want: "coordinator may not import sdk"},
		{name: "coordinator to its engine", path: "coordinator/a.go", text: file(ours("coordinator/internal/engine"))},
		{name: "saga's test to engine", path: "saga/a_test.go", text: file(ours("coordinator/internal/engine")), want: "may not import"},
		{name: "example to internal", path: "examples/shop/a.go", text: file(ours("coordinator/internal/engine")), want: "may not import"},
		{name: "example to its own internal", path: "examples/shop/a.go", text: file(ours("examples/shop/internal/x"))},
		{name: "example to a test kit", path: "examples/shop/a.go", text: file(ours("sdk/sdktest")), want: "may not import"},
		{name: "example's test to a test kit", path: "examples/shop/a_test.go", text: file(ours("sdk/sdktest"))},
		{name: "outbox to a driver", path: "outbox/a.go", text: file("modernc.org/sqlite"), want: "outbox may not use modernc.org/sqlite"},
		{name: "saga to grpc", path: "saga/a.go", text: file("google.golang.org/grpc/codes"), want: "saga may not use"},
		{name: "sdk to grpc", path: "sdk/a.go", text: file("google.golang.org/grpc/codes")},
	} {
		w.rule = layering
		t.Run(w.name, w.check)
	}
}
