# Amends. Only go (1.26 or newer) and make are needed; a C compiler adds the race
# detector. Everything else is built here, from pinned versions, into bin/. Tests
# on real servers want Docker, or MariaDB, Redis and Java (docs/testing.md).

SHELL      := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS  += --no-builtin-rules

GO       ?= go
PKG      ?= ./...
# How many packages are tested at once, and how many parallel tests in each: for 2 cores.
P        ?= 2
PARALLEL ?= 4
TIMEOUT  ?= 15m
# Tested first, as they take longest: at the end they would run alone.
LONGEST  := cmd/amends outbox/outboxtest coordinator/internal/engine coordinator/console examples/shop outbox/inbox \
	coordinator/store/sqlstore outbox outbox/binlog sdk/sdktest
TESTED    = $(if $(filter ./...,$(PKG)),$(addprefix ./,$(LONGEST))) $(PKG)
FUZZTIME ?= 20s
FOR      ?= 2m
# In `make sim`: random transactions per machine, and seeds of the whole system.
SIM      ?= 500000
SEEDS    ?= 2000
BENCH    ?= .
BENCHTIME ?= 1s

# Without HOME the go command has nowhere to cache.
ifeq ($(strip $(HOME)),)
export GOPATH  := $(CURDIR)/.cache/go
export GOCACHE := $(CURDIR)/.cache/go-build
export XDG_CACHE_HOME := $(CURDIR)/.cache
endif

TAGS := amends_invariants
# The race detector needs cgo and a C compiler. `make test RACE=` goes without it.
CC_FOUND := $(shell command -v "$$($(GO) env CC)" 2>/dev/null)
RACE ?= $(if $(CC_FOUND),-race $(UNRACED),)
# SQLite translated to Go is by far the most that tests run: its own code is not
# instrumented, which takes most of their time. Ours and the driver are.
UNRACED := $(foreach p,sqlite/lib libc/... memory,-gcflags=modernc.org/$(p)=-race=false)

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)

TOOLS := $(CURDIR)/bin/tools
PROTOC_TOOLS := $(addprefix $(TOOLS)/,buf protoc-gen-go protoc-gen-go-grpc protoc-gen-grpc-gateway protoc-gen-openapiv2)

# Runs a command among real services, and ends those that it started, on Ctrl-C
# and on failure too: exec, so that make's signals reach it.
WITH_SERVICES = $(GO) build -o bin/ ./.ci/services ./.ci/report && exec bin/services with

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST) \
		| if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi

.PHONY: build
build: ## Build bin/amends and bin/shop
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/amends ./cmd/amends
	$(GO) build -trimpath -o bin/shop ./examples/shop

.PHONY: demo
demo: build ## Run the shop with crashes in the middle (SERVICES=real: on MySQL, Redis, Kafka; ORDERS=file: your own)
	bin/shop demo --amends bin/amends $(if $(SERVICES),--services '$(SERVICES)',) $(if $(ORDERS),--orders '$(ORDERS)',)

.PHONY: test
test: $(TOOLS)/grpcurl ## Run every test, uncached, with the race detector and the invariants on
	@$(if $(RACE),,echo "no C compiler: testing without the race detector (install gcc or clang)" >&2; \
		[ -z "$${AMENDS_REQUIRE_SERVICES:-}" ] || { echo "AMENDS_REQUIRE_SERVICES is set: refusing" >&2; exit 1; })
	@$(WITH_SERVICES) bin/report $(GO) test -json $(RACE) -count 1 -tags $(TAGS) \
		-p $(P) -parallel $(PARALLEL) -timeout $(TIMEOUT) $(TESTED) ./.ci/report ./.ci/services

.PHONY: services
services: ## Bring up MySQL, Redis and Kafka for tests, and leave them running
	@$(GO) build -o bin/ ./.ci/services && exec bin/services up

.PHONY: services-down
services-down: ## End the services that were started here, and remove their data
	@$(GO) build -o bin/ ./.ci/services && exec bin/services down

.PHONY: race
race: ## Run every test three times with the race detector, uncached, in random order, in its long form
	@export AMENDS_LONG=1; $(WITH_SERVICES) bin/report $(GO) test -json -race $(UNRACED) -tags $(TAGS) -count 3 -shuffle on \
		-p $(P) -parallel $(PARALLEL) -timeout 60m $(PKG)

.PHONY: sim
sim: ## Run simulations and models longer, from new seeds (SIM, SEEDS: how many; SEED=n repeats one of the whole system)
ifeq ($(SEED),)
	AMENDS_SIM_SEED=$$(date +%s)000 AMENDS_SIM_N=$(SIM) \
		$(GO) test -tags $(TAGS) -count 1 -timeout 60m -run 'TestSimulation' -v ./saga ./tcc
	AMENDS_MODEL=full $(GO) test -count 1 -timeout 60m -run 'TestExploration' -v ./coordinator/internal/model
endif
	@mkdir -p .cache
	$(if $(SEED),AMENDS_SIM_SEED=$(SEED),AMENDS_SIM_SEED=$$(date +%s)000 AMENDS_SIM_N=$(SEEDS)) \
		$(GO) test -overlay "$$($(GO) run ./coordinator/internal/simulation/exact .cache/exact)" -tags $(TAGS),amends_exact \
		-count 1 -timeout 180m -run 'TestSimulation$$' -v ./coordinator/internal/simulation

.PHONY: mutants
mutants: ## Plant faults in the code, one by one, and say which test catches each (docs/mutants.md)
	$(GO) run ./.ci/mutants

.PHONY: spec
spec: ## Check the TLA+ specification (docs/spec; fetches TLC from Maven Central)
	docs/spec/check

.PHONY: torture
torture: build ## Attack a cluster of processes on real servers (FOR=2m SCENE=kills|term|rolling|resume SEED=n TORTURE='--flags')
	$(GO) build -trimpath -o bin/torture ./cmd/torture
	exec bin/torture $(SCENE) $(if $(filter resume,$(SCENE)),,--for $(FOR) $(if $(SEED),--seed $(SEED),)) $(TORTURE)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (20s)
	.ci/fuzz $(FUZZTIME) $(PKG)

.PHONY: bench
bench: ## Run the benchmarks (BENCH=regexp BENCHTIME=1s)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -p 1 -timeout 60m $(PKG) \
		| grep -vE '^(PASS|ok|\?)'

.PHONY: bench-smoke
bench-smoke: ## Run every workload of `amends bench` for a moment
	$(GO) test -count 1 -run '^TestBench' ./cmd/amends

.PHONY: bench-compare
bench-compare: $(TOOLS)/benchstat ## Compare benchmarks with a commit, in turns (REF=commit PKG='./saga ./tcc' BENCH=regexp TURNS=6)
	GO='$(GO)' TOOLS='$(TOOLS)' REF='$(REF)' PKG='$(PKG)' BENCH='$(BENCH)' BENCHTIME='$(BENCHTIME)' \
		TURNS='$(or $(TURNS),6)' .ci/bench-compare

.PHONY: cover
cover: ## Write cover.out and print the coverage of each package
	@$(WITH_SERVICES) $(GO) test -tags $(TAGS) -p $(P) -timeout $(TIMEOUT) -cover -coverprofile cover.out $(PKG) \
		| grep -v 'no test files'
	@$(GO) tool cover -func cover.out | tail -1

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Run golangci-lint (its first build takes minutes)
	$(TOOLS)/golangci-lint run $(PKG)

.PHONY: verify
verify: $(PROTOC_TOOLS) $(TOOLS)/compose ## Check format, vet, modules, generated code, docker-compose.yml
	GO='$(GO)' TOOLS='$(TOOLS)' TAGS='$(TAGS)' .ci/verify

.PHONY: generate
generate: $(PROTOC_TOOLS) ## Regenerate the code beside the .proto files
	PATH="$(TOOLS):$$PATH" $(TOOLS)/buf generate

.PHONY: clean
clean: ## Remove what was built here
	rm -rf bin cover.out .cache

# Tools come from modules of their own, so that users of Amends inherit none.
$(TOOLS)/buf: .ci/tools/buf/go.mod .ci/tools/buf/go.sum
$(TOOLS)/golangci-lint: .ci/tools/lint/go.mod .ci/tools/lint/go.sum
$(filter-out $(TOOLS)/buf,$(PROTOC_TOOLS)): .ci/tools/protoc/go.mod .ci/tools/protoc/go.sum
$(TOOLS)/grpcurl: .ci/tools/grpcurl/go.mod .ci/tools/grpcurl/go.sum
$(TOOLS)/benchstat: .ci/tools/benchstat/go.mod .ci/tools/benchstat/go.sum
$(TOOLS)/compose: .ci/tools/compose/go.mod .ci/tools/compose/go.sum .ci/tools/compose/main.go
$(TOOLS)/%:
	@mkdir -p $(TOOLS)
	@echo "building $* from $(<D) (once)"
	@cd $(<D) && GOBIN=$(TOOLS) $(GO) install tool
	@touch $@
