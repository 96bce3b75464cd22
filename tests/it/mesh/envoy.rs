//! A real Envoy, as `.ci/tools` brings it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::within;

/// An Envoy process with one listener for callers.
pub(super) struct Envoy {
    _process: Child,
    admin: String,
    /// Where callers reach it.
    pub(super) address: SocketAddr,
    _folder: TempDir,
}

impl Envoy {
    /// Starts it with `bootstrap`, whose listener and admin pages take any free port.
    pub(super) async fn start(bootstrap: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, place) = (folder.path().join("envoy.yaml"), folder.path().join("admin"));
        std::fs::write(&config, bootstrap).expect("written");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let process = Command::new(binary())
            .args(["--use-dynamic-base-id", "--disable-hot-restart", "--concurrency", "1"])
            .args(["--log-level", "warn", "--admin-address-path"])
            .arg(&place)
            .arg("--config-path")
            .arg(&config)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy: .ci/tools brings it");
        let (admin, address) = within(async {
            loop {
                if let Some(found) = listening(&place).await {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        Self { _process: process, admin, address, _folder: folder }
    }

    /// Waits until exactly the hosts at `ports` are fit to be used.
    pub(super) async fn uses(&self, ports: &[u16]) {
        within(async {
            loop {
                let clusters = page(&self.admin, "clusters?format=json").await;
                let mut fit = clusters.as_ref().map(healthy).unwrap_or_default();
                fit.sort_unstable();
                let mut wanted = ports.to_vec();
                wanted.sort_unstable();
                if fit == wanted {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// One of the counters of the cluster `payoutd`.
    pub(super) async fn counter(&self, name: &str) -> u64 {
        let stats = page(&self.admin, "stats?format=json").await.expect("stats");
        let name = format!("cluster.payoutd.{name}");
        let stats = stats["stats"].as_array().expect("stats").clone();
        let stat = stats.iter().find(|stat| stat["name"] == name.as_str());
        stat.and_then(|stat| stat["value"].as_u64()).unwrap_or_else(|| panic!("no {name}"))
    }
}

fn binary() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/envoy")
}

/// The admin pages' address and the listener's, once there are both.
async fn listening(place: &Path) -> Option<(String, SocketAddr)> {
    let admin = std::fs::read_to_string(place).ok().filter(|admin| !admin.is_empty())?;
    let listeners = page(&admin, "listeners?format=json").await?;
    let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
    // Warm, too: it answers calls only then.
    page(&admin, "server_info").await.filter(|info| info["state"] == "LIVE")?;
    Some((admin, SocketAddr::from(([127, 0, 0, 1], port))))
}

async fn page(admin: &str, page: &str) -> Option<Value> {
    let answer = reqwest::get(format!("http://{admin}/{page}")).await.ok()?;
    serde_json::from_slice(&answer.bytes().await.ok()?).ok()
}

fn healthy(clusters: &Value) -> Vec<u16> {
    let hosts = clusters["cluster_statuses"][0]["host_statuses"].as_array();
    let fit = |host: &&Value| {
        let health = &host["health_status"];
        health["failed_active_health_check"] != true && health["eds_health_status"] == "HEALTHY"
    };
    let port = |host: &Value| {
        let port = host["address"]["socket_address"]["port_value"].as_u64();
        port.and_then(|port| u16::try_from(port).ok()).expect("a port")
    };
    hosts.into_iter().flatten().filter(fit).map(port).collect()
}

/// A bootstrap in plain text on both sides: HTTP/2, active health checks, and `retry` for every call.
pub(super) fn plain(hosts: &[SocketAddr], retry: &Value) -> String {
    let endpoints: Vec<_> =
        hosts.iter().map(|host| json!({"endpoint": {"address": at(*host)}})).collect();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}
    });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{
                "match": {"prefix": "/"},
                "route": {"cluster": "payoutd", "timeout": "0s", "retry_policy": retry}
            }]
        }]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
        }]
    });
    let chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager", "typed_config": manager
    }]});
    let health = json!({
        "timeout": "1s", "interval": "0.5s", "no_traffic_interval": "0.5s",
        "unhealthy_threshold": 1, "healthy_threshold": 1, "grpc_health_check": {}
    });
    json!({
        "admin": {"address": at(any)},
        "static_resources": {
            "listeners": [{"name": "callers", "address": at(any), "filter_chains": [chain]}],
            "clusters": [{
                "name": "payoutd", "type": "STATIC", "connect_timeout": "1s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                },
                "load_assignment": {
                    "cluster_name": "payoutd", "endpoints": [{"lb_endpoints": endpoints}]
                },
                "health_checks": [health]
            }]
        }
    })
    .to_string()
}

fn at(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
