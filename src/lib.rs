//! payoutd: a gRPC gateway that sends payouts through Cregis, each id at most once.
//!
//! The map, from what is asked to what is sent:
//!
//! - [`grpc`]: the API. Requests in, statuses out, deadlines; nothing here decides about money.
//! - [`listener`]: connections from callers, plain or TLS, limited; [`tls`]: the certificates;
//!   [`peer`]: who is at the other end.
//! - [`order`]: what a caller asks for, checked; with [`coin`], [`address`] and [`amount`].
//! - [`caller`]: who calls, and how that is proven; [`policy`]: what they may have paid.
//! - [`engine`]: the use cases. Flights own sends; callers only wait.
//! - [`state`]: the one table that moves a payout; [`payout`]: what changes with it, and [`attention`]; [`outcome`]: what a
//!   send comes to. Pure.
//! - [`ledger`]: durable rows; one writer, group commit; the only SQL.
//! - [`disk`]: its low-water mark.
//! - [`cregis`]: the client: one call, one POST; the reply table. [`sign`] and [`json`] under it.
//! - [`breaker`]: stops sends when Cregis refuses us or leaves us in doubt.
//! - [`callback`]: Cregis's own messages: notices and external verification.
//! - [`app`]: the only wiring: open, recover, bind, serve, drain. [`health`] and [`admin`] beside it.
//! - [`config`], [`telemetry`]: settings, logs and traces. [`metrics`]: what can be counted.
//! - [`sandbox`]: a small Cregis with a memory, for tests and for callers.
//! - [`cli`]: the commands; [`dev`], [`doctor`] and [`probe`] are the longer ones.
//! - [`operator`]: the operator's commands, a client of the API like any other; [`endpoint`]: how
//!   such clients reach a service.

pub mod address;
pub mod admin;
pub mod amount;
pub mod app;
pub mod attention;
pub mod breaker;
pub mod callback;
pub mod caller;
pub mod causes;
pub mod cli;
pub mod coin;
pub mod config;
pub mod cregis;
pub mod dev;
pub mod disk;
pub mod doctor;
pub mod endpoint;
pub mod engine;
pub mod grpc;
pub mod health;
pub mod json;
pub mod ledger;
pub mod listener;
pub mod metrics;
pub mod operator;
pub mod order;
pub mod outcome;
pub mod payout;
pub mod peer;
pub mod policy;
pub mod probe;
#[cfg(test)]
mod sample;
pub mod sandbox;
pub mod sign;
pub mod state;
pub mod telemetry;
pub mod tls;

/// What `proto/payout/v1/payout.proto` becomes in Rust.
pub mod pb {
    #![expect(clippy::too_many_lines, reason = "generated")]
    tonic::include_proto!("payout.v1");

    /// The proto with everything it imports, for reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("payout_descriptor");
}
