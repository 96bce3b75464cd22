# What CI runs, by name. `just` alone lists the recipes.

export PATH := justfile_directory() / ".tools/bin:" + env("PATH")

_list:
    @just --list

# Everything that CI checks.
ci:
    .ci/run

# One example payout, from nothing.
dev *arguments:
    cargo run --release --locked -- dev {{ arguments }}

# Formatting and lints.
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# Every test.
test:
    cargo test --locked

# The README's own lines, then every language against every scenario; `just clients matrix --client go` is less.
clients *arguments: tools
    tests/readme/run
    clients/run {{ arguments }}

# HTTP and JSON callers, through Envoy.
http: tools
    tests/http/run

# What is generated from the proto and checked in.
generate: tools
    clients/generate

# The proto: lint, stubs, no break with the last release.
proto: tools
    tests/proto/run

# At a release, after its proto has passed: what later ones may not break.
release-proto: tools
    buf build -o proto/released.binpb

# Metrics, alerts and traces: promtool and a real OTLP receiver.
metrics: tools
    tests/metrics/run

# A real Envoy in front of two services.
mesh: tools
    cargo test --locked --test it -- mesh:: --ignored

# The suite on a real PostgreSQL, then several replicas over one; `just postgres --ignored fleet::lease` is less.
postgres *arguments:
    tests/postgres/run {{ arguments }}

# What deploy/ ships: manifests, chart, mesh settings.
deploy: tools
    tests/deploy/run

# The image, built and run; as root on Debian.
image: tools
    deploy/image/run

# The Dockerfile, the dependencies.
files: tools
    hadolint Dockerfile
    cargo deny check bans licenses sources

# What a payout costs, against the floor; a quiet machine tells more.
bench *arguments:
    cargo bench --locked --bench payouts -- {{ arguments }}

# What callers see when more is asked for than can be done.
bench-overload *arguments:
    cargo bench --locked --bench overload -- {{ arguments }}

# Replicas over one PostgreSQL, and large ledgers; three minutes for each of its parts.
bench-fleet *arguments:
    cargo bench --locked --bench fleet -- {{ arguments }}

# The third-party tools of the checks, into .tools/.
tools:
    .ci/tools
