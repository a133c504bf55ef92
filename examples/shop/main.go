// Shop is a whole application on Amends: four services with a database each, a
// saga for every order, a TCC transaction for its reward, an outbox and inboxes
// for its messages. `shop demo` runs them as processes, takes some of what they
// stand on away in the middle, and checks; README.md explains what to see.
//
//	shop demo                         the whole story, checked at the end
//	shop service NAME --dir DIR …     one service, as the demo runs it
//	shop orders                       writes the orders file
//
// It exits with 0 when all went well, 1 when something failed and 2 when it was
// called wrongly.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/services"
	"github.com/amends-dev/amends/examples/shop/internal/demo"
	"github.com/amends-dev/amends/examples/shop/internal/orders"
	"github.com/amends-dev/amends/examples/shop/internal/service"
)

//go:embed orders.jsonl
var ordersFile []byte

const usage = `usage:
  shop demo [--services embedded|real] [--amends FILE] [--orders FILE] [--dir DIR] [--keep] [--rate N] [--output text|json]
  shop service order|inventory|payment|notification --dir DIR [--mysql] [--prefix PREFIX]
               --coordinator ADDR --kafka ADDR,… --redis ADDR
  shop orders [--n N] [--seed N]
`

// errUsage says that the program was called wrongly.
var errUsage = errors.New("called wrongly")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	commands := map[string]func(context.Context, []string, io.Writer, io.Writer) error{
		"demo": runDemo, "service": runService, "orders": runOrders,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprint(stderr, usage)
		return 2
	}
	err := commands[args[0]](ctx, args[1:], stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "shop %s: %v\n%s", args[0], err, usage)
		return 2
	case !errors.Is(err, demo.ErrFailed): // which was reported
		fmt.Fprintln(stderr, "shop:", err)
	}
	return 1
}

// parse reads flags. What is wrong is an errUsage.
func parse(f *flag.FlagSet, args []string) error {
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		err = fmt.Errorf("%w: %w", errUsage, err)
	}
	return err
}

func runOrders(_ context.Context, args []string, stdout, _ io.Writer) error {
	f := flag.NewFlagSet("orders", flag.ContinueOnError)
	n := f.Int("n", 1000, "orders")
	seed := f.Uint64("seed", 1, "another seed gives other orders")
	if err := parse(f, args); err != nil {
		return err
	}
	return orders.Generate(stdout, *n, *seed)
}

func runService(ctx context.Context, args []string, _, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: which service?", errUsage)
	}
	var cfg service.Config
	f := flag.NewFlagSet("service", flag.ContinueOnError)
	f.StringVar(&cfg.Dir, "dir", "", "directory of the service, with its SQLite database")
	onMySQL := f.Bool("mysql", false, "the database is the one that "+services.MySQL.Env()+" names, not SQLite")
	f.StringVar(&cfg.Prefix, "prefix", "", "begins the names of topics, consumer group and Redis keys")
	f.StringVar(&cfg.Coordinator, "coordinator", "127.0.0.1:7460", "address of the coordinator")
	brokers := f.String("kafka", "", "addresses of Kafka, separated by commas")
	f.StringVar(&cfg.Redis, "redis", "", "address of Redis")
	tethered := f.Bool("tethered", false, "end when standard input closes")
	if err := parse(f, args[1:]); err != nil {
		return err
	}
	if cfg.Dir == "" || *brokers == "" || cfg.Redis == "" {
		return fmt.Errorf("%w: --dir, --kafka and --redis are required", errUsage)
	}
	cfg.Kafka = strings.Split(*brokers, ",")
	if *onMySQL {
		if cfg.MySQL = os.Getenv(services.MySQL.Env()); cfg.MySQL == "" {
			return fmt.Errorf("%w: --mysql, but %s is not set", errUsage, services.MySQL.Env())
		}
	}
	cfg.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if *tethered {
		var g errgroup.Group // nobody waits for it: a read cannot be interrupted, and ends with the process
		g.Go(func() error {
			defer stop()
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})
	}
	return service.Run(ctx, args[0], cfg, stderr)
}

func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := demo.Config{Shop: self, Source: "orders.jsonl", Out: stdout, Err: stderr}
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.StringVar(&cfg.Amends, "amends", filepath.Join(filepath.Dir(self), "amends"), "the coordinator's program")
	file := f.String("orders", "", "your own orders; empty: those that come with the example")
	f.StringVar(&cfg.Dir, "dir", "", "an empty directory for databases and logs, which is kept; empty: a temporary one")
	keep := f.Bool("keep", false, "keep the temporary directory")
	f.IntVar(&cfg.Rate, "rate", 0, "orders handed in per second; 0: 250")
	kind := f.String("services", "embedded", "embedded, or real: MySQL, Redis and Kafka")
	output := f.String("output", "text", "text or json")
	if err := parse(f, args); err != nil {
		return err
	}
	if *output != "text" && *output != "json" {
		return fmt.Errorf("%w: --output is %q, want text or json", errUsage, *output)
	}
	if *kind != "embedded" && *kind != "real" {
		return fmt.Errorf("%w: --services is %q, want embedded or real", errUsage, *kind)
	}
	if cfg.Rate < 0 {
		return fmt.Errorf("%w: --rate is %d, want 0 or more", errUsage, cfg.Rate)
	}
	cfg.JSON, cfg.Real = *output == "json", *kind == "real"
	if _, err := os.Stat(cfg.Amends); err != nil {
		return fmt.Errorf("--amends: %w (go build -o %s ./cmd/amends)", err, cfg.Amends)
	}
	if err := readOrders(*file, &cfg); err != nil {
		return err
	}
	cfg.Keep = *keep || cfg.Dir != ""
	if err := directory(&cfg); err != nil {
		return err
	}
	err = demo.Run(ctx, cfg)
	if !cfg.Keep {
		err = errors.Join(err, os.RemoveAll(cfg.Dir))
	}
	return err
}

func readOrders(file string, cfg *demo.Config) (err error) {
	text := ordersFile
	if file != "" {
		cfg.Source = file
		if text, err = os.ReadFile(file); err != nil { //nolint:gosec // the user's own
			return fmt.Errorf("--orders: %w", err)
		}
	}
	if cfg.Orders, cfg.Bad, err = orders.Read(bytes.NewReader(text)); err != nil {
		return fmt.Errorf("--orders %s: %w", file, err)
	}
	return nil
}

// directory makes the directory of a demo.
func directory(cfg *demo.Config) (err error) {
	if cfg.Dir == "" {
		cfg.Dir, err = os.MkdirTemp("", "amends-shop-")
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if entries, err := os.ReadDir(cfg.Dir); err != nil || len(entries) > 0 {
		return errors.Join(err, fmt.Errorf("--dir: %s is not empty: give another directory", cfg.Dir))
	}
	return nil
}
