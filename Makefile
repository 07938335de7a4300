# Every task of developers and users. `make help` lists them; each target installs what it needs, pinned, into .tools/.

SHELL := /bin/bash
PYTHON ?= python3
STACK := $(PYTHON) localstack/stack.py
# Arguments of libtest for `make test-ministack`.
TESTS ?=
# Settings of `make local`: a folder with songs.csv, users.csv and streams*.csv; a definition of other events, whose
# folder has events anywhere and files that are looked up in reference/; the length of a window.
DATA ?=
DEFINITION ?=
WINDOW ?= 5s
# Random walks of `make sim`.
SEEDS ?= 10000
# Tests of `make test-browser`, by the letters that it prints.
ONLY ?=
# Seconds that `make chaos`, `make fuzz` and `make test-contract` run, seed of the first, target of the second.
SECONDS ?= 120
SEED ?= 1
TARGET ?= file
# Sizes and rounds of `make bench-peers`, events of `make bench-events`; a baseline to save and one to compare with, of `make bench`.
ROWS ?= 1000000 10000000
ROUNDS ?= 5
EVENTS ?= 1000000
# Latency that `make bench-publish` and `make bench-e2e` add to every call; the program that they measure; its flags.
LATENCY_MS ?= 5
BINARY ?= target/release/music-streams
FLAGS ?=
# Consumers and stack of `make bench-publish` (stand-in, dynoxide); listens of `make bench-day`.
CONSUMERS ?= 1 10 30
STORE ?= stand-in
LISTENS ?= 1000000
SAVE ?=
COMPARE ?=
# Tests that run at the same time. Those of the pipeline mostly wait for windows and leases.
export RUST_TEST_THREADS ?= 4
# Profile and output folder of `make dist`.
PROFILE ?= dist
DIST ?= target/image/dist

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: local
local: up build ## run the whole pipeline on sample data, or on yours: make local [DEFINITION=file] DATA=dir WINDOW=10s
	@.tools/stack/bin/python localstack/local.py --window '$(WINDOW)' $(if $(DATA),--data '$(DATA)') \
	    $(if $(DEFINITION),--definition '$(DEFINITION)')

.PHONY: run
run: up build ## run the consumer in the foreground, with 5-minute windows; Ctrl-C ends it
	@.tools/stack/bin/python localstack/local.py --foreground

.PHONY: demo
demo: up build ## show figures that move: a consumer, a file every second, and the page; Ctrl-C ends it
	@.tools/stack/bin/python localstack/local.py --demo

.PHONY: serve
serve: build ## serve the page of the last `make local`; Ctrl-C ends it
	@.tools/stack/bin/python localstack/local.py --serve

.PHONY: up
up: ## install and start the local stack: LocalStack on 127.0.0.1:4566
	@$(STACK) up

.PHONY: down
down: ## stop the local stack
	@$(STACK) down

.PHONY: build
build: ## build the release binary
	@[ -e target/release/music-streams ] || echo '  music-streams: building (some minutes, once)'
	cargo build --release --locked

.PHONY: dist
dist: ## build the static binary and the other files of the image: make dist PROFILE=dist DIST=target/image/dist
	@# Only the program itself is linked statically: its libraries are the same either way, and are not built again.
	cargo rustc --profile $(PROFILE) --locked --bin music-streams -- -C target-feature=+crt-static
	install -D --strip target/$(PROFILE)/music-streams $(DIST)/music-streams
	install -D -m 644 /etc/ssl/certs/ca-certificates.crt $(DIST)/etc/ssl/certs/ca-certificates.crt

.PHONY: image
image: dist ## build the container image, with Docker, or with podman and buildah
	@$(PYTHON) localstack/image.py build $(dir $(DIST))

.PHONY: test-image
test-image: image ## run the image as ECS would, on a LocalStack of its own
	@$(STACK) run .tools/stack/bin/python localstack/image.py check

.PHONY: release
release: dist sbom ## build a release into target/release-files: binary, checksums, bill of materials
	@rm -rf target/release-files && mkdir -p target/release-files
	@cp $(DIST)/music-streams target/release-files/music-streams-$$(uname -m)-linux
	@cp target/music-streams.cdx.json target/release-files/
	@cd target/release-files && sha256sum * > SHA256SUMS && cat SHA256SUMS

.PHONY: sbom
sbom: ## write the software bill of materials, target/music-streams.cdx.json (CycloneDX)
	@$(STACK) install-sbom
	@.tools/sbom/bin/cargo-cyclonedx cyclonedx --format json --override-filename music-streams.cdx --quiet
	@mv music-streams.cdx.json target/

.PHONY: fmt
fmt: ## format the code
	cargo fmt

.PHONY: test
test: ## run the tests, on a LocalStack of their own
	@# Those of the pipeline mostly wait, and the others compute: they run side by side.
	cargo test --release --locked --no-run
	@$(STACK) run $(MAKE) --no-print-directory --jobs 2 --output-sync=line test-pipeline test-others

.PHONY: test-pipeline
test-pipeline:
	@cargo test --release --locked --test pipeline

# Every other test program; that of chaos needs a build of its own.
OTHERS := $(filter-out pipeline chaos,$(basename $(notdir $(wildcard tests/*.rs))) \
    $(notdir $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs))))

.PHONY: test-others
test-others:
	@cargo test --release --locked --lib --bins $(addprefix --test ,$(OTHERS))

.PHONY: test-ministack
test-ministack: ## run the tests that need AWS on ministack instead; make test-ministack TESTS='--skip replay'
	@# Its DescribeTable says "true", a text, of tables that CloudFormation made: AWS's clients refuse the answer.
	@$(STACK) run --ministack cargo test --release --locked --test pipeline -- --skip definitions::a_definition $(TESTS)

# What the tests of the page need beside the program.
.PHONY: browser
browser: build
	@$(STACK) install
	@$(STACK) install-browser

.PHONY: test-browser
test-browser: browser ## test the page in Chromium, and the API by its contract: make test-browser [ONLY='b c']
	@$(STACK) run .tools/browser/bin/python tests/browser/run.py --binary '$(BINARY)' $(if $(ONLY),--only $(ONLY))

.PHONY: test-contract
test-contract: browser ## test the API alone, by its OpenAPI document: make test-contract SECONDS=120
	@$(STACK) run .tools/browser/bin/python tests/browser/run.py --binary '$(BINARY)' --only k --seconds $(SECONDS)

.PHONY: screenshots
screenshots: browser ## make the pictures of the page in docs/
	@$(STACK) run .tools/browser/bin/python tests/browser/run.py --binary '$(BINARY)' --screenshots

.PHONY: model
model: ## explore the protocol exhaustively with every failure at once (some minutes, 8 GiB)
	MODEL_EVERYTHING=1 cargo test --release --locked --test model -- --nocapture --test-threads 1

.PHONY: sim
sim: ## take random walks through the protocol's model: make sim SEEDS=10000
	SEEDS=$(SEEDS) cargo test --release --locked --test model walk -- --nocapture

.PHONY: chaos
chaos: ## kill, freeze and cut off consumers at random: make chaos SECONDS=120 SEED=1
	$(CHAOS) --no-run
	@# The random one freezes its stack, so the others have one of their own.
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line chaos-random chaos-others

CHAOS := cargo test --release --locked --features failpoints --test chaos

.PHONY: chaos-random
chaos-random:
	@CHAOS_SECONDS=$(SECONDS) CHAOS_SEED=$(SEED) $(STACK) run $(CHAOS) whatever -- --nocapture --test-threads 1

.PHONY: chaos-others
chaos-others:
	@$(STACK) run $(CHAOS) -- --nocapture --test-threads 1 --skip whatever

.PHONY: bench
bench: ## run the benchmarks: make bench [SAVE=name] [COMPARE=name]
	@rm -rf target/criterion/*/*/new
	cargo bench --locked --bench compute -- --quiet $(if $(SAVE),--save-baseline '$(SAVE)') $(if $(COMPARE),--baseline '$(COMPARE)')
	@$(PYTHON) benches/table.py $(if $(COMPARE),--compare '$(COMPARE)')

.PHONY: bench-peers
bench-peers: ## compare with DuckDB, Polars and PySpark on the same job: make bench-peers ROWS='1000000 10000000' ROUNDS=5
	@$(STACK) install-peers
	cargo build --release --locked --bench peers
	@.tools/peers/bin/python benches/peers/run.py --rows $(ROWS) --rounds $(ROUNDS)

.PHONY: bench-events
bench-events: build ## compare with DuckDB and Polars on events of other shapes: make bench-events EVENTS=1000000 ROUNDS=5
	@$(STACK) install-peers
	@.tools/peers/bin/python benches/peers/events.py --rows $(EVENTS) --rounds $(ROUNDS)

# What the following measure, and the AWS in memory that they measure it against.
.PHONY: bench-stack
bench-stack:
	@$(STACK) install
	cargo build --release --locked --bin music-streams --bench stand_in

# What LocalStack does not have: Glue and Athena.
.PHONY: test-catalog
test-catalog: ## test the template's catalog for analysts, on a ministack of its own
	@$(STACK) install
	@$(STACK) install-checks
	@.tools/checks/bin/python tests/catalog.py

.PHONY: test-stand-in
test-stand-in: bench-stack ## compare the answers of the benchmarks' stand-in for AWS with dynoxide's
	@.tools/stack/bin/python benches/stand_in/compare.py

.PHONY: bench-publish
bench-publish: bench-stack ## measure the upsert, with several consumers, or your data: make bench-publish CONSUMERS='1 10 30' [DATA=dir]
	@.tools/stack/bin/python benches/publish.py --latency-ms $(LATENCY_MS) --stack $(STORE) --consumers $(CONSUMERS) \
	    --binary '$(BINARY)' --flags='$(FLAGS)' $(if $(DATA),--data '$(DATA)' --windows 1 --rounds 3)

.PHONY: bench-publish-local
bench-publish-local: bench-stack ## the same on a LocalStack of its own, and dynoxide, for your data: make bench-publish-local DATA=dir
	@$(STACK) run .tools/stack/bin/python benches/publish.py --latency-ms 0 --stack local --data '$(DATA)' --windows 1 \
	    --binary '$(BINARY)' --flags='$(FLAGS)' --rounds 3

.PHONY: bench-day
bench-day: bench-stack ## count what a day of five-minute windows costs in DynamoDB: make bench-day LISTENS=1000000
	@.tools/stack/bin/python benches/publish.py --day $(LISTENS) --binary '$(BINARY)' --flags='$(FLAGS)'

# The table of the curated files: a day of listens, compacted, and the log over many batches.
.PHONY: bench-table
bench-table: bench-stack ## measure the table: what a batch costs, a day's compaction, scans, ten thousand batches: make bench-table LISTENS=1000000
	@$(STACK) install-checks
	cargo build --release --locked --bench lake
	@.tools/stack/bin/python benches/lake.py --listens $(LISTENS) --binary '$(BINARY)'

.PHONY: bench-e2e
bench-e2e: bench-stack ## compare with a plain Python consumer on many small files: make bench-e2e LATENCY_MS=5
	@$(STACK) install-peers
	@.tools/stack/bin/python benches/peers/e2e.py --latency-ms $(LATENCY_MS) --binary '$(BINARY)' --flags='$(FLAGS)'

.PHONY: bench-serve
bench-serve: build ## measure what reading costs: cold, kept, under load, for many viewers; memory and sizes
	@$(STACK) install
	@$(STACK) run .tools/stack/bin/python benches/serve.py --latency-ms $(LATENCY_MS) --binary '$(BINARY)'

.PHONY: measure-memory
measure-memory: up build ## measure peak memory on 20 files of 50 MB
	@.tools/stack/bin/python benches/memory.py

.PHONY: measure-telemetry
measure-telemetry: up build ## measure the cost of telemetry in a batch of ten million rows
	@.tools/stack/bin/python benches/telemetry.py

.PHONY: measure-consumers
measure-consumers: up build ## measure the time that one, two and three consumers take
	@.tools/stack/bin/python benches/consumers.py

.PHONY: fuzz
fuzz: ## fuzz one of the targets in tests/fuzz: make fuzz TARGET=file SECONDS=600
	@$(STACK) install-fuzz
	@# Findings go to target/; those worth keeping are copied to the corpus by hand.
	@mkdir -p target/fuzz-corpus/$(TARGET)
	.tools/fuzz/bin/cargo-fuzz fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none $(TARGET) \
	    target/fuzz-corpus/$(TARGET) tests/fuzz/corpus/$(TARGET) -- -max_total_time=$(SECONDS) -timeout=20 -max_len=16384

.PHONY: lint
lint: ## check format, lints, documentation, templates, compose file and Dockerfile
	@$(STACK) install-checks
	cargo fmt --check
	cargo clippy --release --locked --all-targets --features failpoints -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --release --locked --no-deps --document-private-items
	.tools/checks/bin/cfn-lint deploy/*.yaml
	.tools/checks/bin/hadolint Dockerfile
	.tools/checks/bin/yamllint -d '{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: {max-spaces-inside: 0}}}' localstack/compose.yaml deploy

.PHONY: deny
deny: ## check licences, sources and advisories of every dependency
	@$(STACK) install-deny
	.tools/deny/bin/cargo-deny --locked check bans licenses sources
	@# Advisories are a separate database. If it cannot be reached, that is reported, not ignored.
	@if timeout 120 .tools/deny/bin/cargo-deny --locked fetch db 2>/dev/null; \
	then .tools/deny/bin/cargo-deny --locked --offline check advisories; \
	else echo "advisories: NOT CHECKED, their database cannot be reached from this machine"; fi

# The parts of `make ci`, in order.
CI_PARTS := lint deny test chaos ci-stacks ci-benches ci-image local down

.PHONY: ci
ci: ## all checks, with the time of each: lint, licences, tests, chaos, ministack, browser, benchmarks, image, make local
	@for part in $(CI_PARTS); do \
	    TIMEFORMAT="== $$part: %0R s, of CPU %0U s and %0S s in the system"; \
	    time $(MAKE) --no-print-directory $$part || exit 1; \
	done

# Both mostly wait, each on a stack of its own: side by side they take as long as the longer one.
.PHONY: ci-stacks
ci-stacks: build
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target ci-ministack test-browser

.PHONY: ci-ministack
ci-ministack:
	@# The longest tests use nothing of S3, SQS and DynamoDB that the others do not use.
	@$(MAKE) --no-print-directory test-ministack TESTS='$(addprefix --skip ,refusals replay telemetry health reading table::a_ table::every table::what)'
	@$(MAKE) --no-print-directory test-catalog

.PHONY: ci-benches
ci-benches:
	cargo test --release --locked --bench compute

.PHONY: ci-image
ci-image:
	@$(MAKE) --no-print-directory test-image PROFILE=release
