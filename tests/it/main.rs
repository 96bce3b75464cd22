//! Behaviour of the whole service: real sockets, a real ledger file, the sandbox as Cregis.

#![allow(clippy::too_many_lines, reason = "tables of cases are long")]

mod callers;
mod crash;
mod documents;
mod ledger;
mod once;
mod outcomes;
mod sandbox;
mod serving;
mod settings;
mod stop;
mod support;
