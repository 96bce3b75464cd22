//! `[grpc.tls]`: the files behind the listener for callers.

use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::duration;
use super::reader::{Section, text};
use crate::metrics::family::Known;
use crate::tls::Certificates;

/// `[grpc.tls]`
#[derive(Clone, Debug)]
pub struct Tls {
    /// `cert_file`: the listener's certificate and those between it and its root, PEM.
    pub cert_file: PathBuf,
    /// `key_file`: its private key, PEM.
    pub key_file: PathBuf,
    /// `client_ca_file`: roots for callers' certificates, PEM. Where it is given, a caller without
    /// a certificate from one of them does not get past the handshake.
    pub client_ca_file: Option<PathBuf>,
    /// `reload`, default 10 s: how often the files are read again.
    pub reload: Duration,
}

impl Tls {
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let cert_file = section.require("cert_file", file);
        let key_file = section.require("key_file", file);
        let client_ca_file = section.optional("client_ca_file", file);
        let reload = section.get("reload", Duration::from_secs(10), duration);
        let tls = match (cert_file, key_file) {
            (Some(cert_file), Some(key_file)) => {
                Some(Self { cert_file, key_file, client_ca_file, reload })
            }
            (None, _) | (_, None) => None,
        };
        // What cannot be used would only be noticed by the first caller.
        let load = |tls| Certificates::load(tls, &Known::default());
        if let Some(Err(broken)) = tls.as_ref().map(load) {
            for broken in broken {
                section.mistake(broken.setting, broken.what);
            }
        } else if let Some(tls) = &tls {
            section.warn_if_open("key_file", &tls.key_file);
        }
        section.end();
        tls
    }
}

fn file(value: &Value) -> Result<PathBuf, &'static str> {
    let path = text(value).ok().filter(|path| !path.is_empty());
    path.map(PathBuf::from).ok_or("the name of a file")
}
