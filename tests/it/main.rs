//! Behaviour of the whole service: real sockets, a real ledger, the sandbox as Cregis.

#![allow(clippy::too_many_lines, reason = "tables of cases are long")]

mod access;
mod address;
mod attacks;
mod callback;
mod callers;
mod crash;
mod damage;
mod disk;
mod documents;
mod endpoint;
mod exposure;
mod fence;
mod fleet;
mod follow;
mod identity;
mod intake;
mod kills;
mod ledger;
mod life;
mod list;
mod listener;
mod mesh;
mod meters;
mod once;
mod operator;
mod outcomes;
mod overload;
mod policy;
mod resolve;
mod sandbox;
mod scope;
mod serving;
mod settings;
mod spend;
mod stop;
mod support;
mod tls;
mod validate;
mod watch;
mod witness;
