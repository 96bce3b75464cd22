# The service, alone and unprivileged. Settings come by PAYOUTD_ variables or --config; secrets as files.
# deploy/image/run builds this file as it stands and shows what the image does.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src

# Dependencies are built over empty sources, so that this layer lasts until the lockfile changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/payouts \
    && for file in build.rs src/main.rs benches/payouts/main.rs; do echo "fn main() {}" > "$file"; done \
    && touch src/lib.rs \
    && cargo build --release --locked --bin payoutd

# Cargo compares times: what the context brings may be older than the empty sources were.
COPY build.rs ./
COPY proto proto
COPY src src
# Which commit this is, for payoutd_build_info.
ARG PAYOUTD_REVISION=unknown
RUN find build.rs src proto -type f -exec touch {} + \
    && cargo build --release --locked --bin payoutd \
    && mkdir /ledger

FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/payoutd /usr/local/bin/payoutd
COPY --from=build --chown=65532:65532 /ledger /var/lib/payoutd

# By number, so that a platform can see without a look inside that it is not root.
USER 65532:65532
WORKDIR /var/lib/payoutd
# The ledger is what keeps a payout from being made twice: it must outlive the container.
VOLUME /var/lib/payoutd
ENV PAYOUTD_LEDGER__URL=sqlite:/var/lib/payoutd/payoutd.db

# Listeners stay on loopback, for a sidecar; to be reached without one, set PAYOUTD_GRPC__LISTEN and
# PAYOUTD_GRPC__TLS__*, and a probe that speaks TLS (docs/settings.md).
EXPOSE 50051 8080 9090
STOPSIGNAL SIGTERM
# Asks over plain loopback. Kubernetes ignores it and has probes of its own: deploy/.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["payoutd", "health"]
LABEL org.opencontainers.image.title="payoutd" \
      org.opencontainers.image.description="A gRPC gateway for Cregis payouts that pays each id at most once" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
ENTRYPOINT ["payoutd"]
CMD ["serve"]
