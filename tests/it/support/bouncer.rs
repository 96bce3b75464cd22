//! pgbouncer between the service and a server; `tests/postgres/server` installs Debian's.

use std::path::Path;
use std::process::{Child, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::server::{Server, as_stranger};
use super::{any_port, within};

/// Runs for as long as it lives.
pub(crate) struct Bouncer {
    process: Child,
    pub(crate) port: u16,
    _folder: TempDir,
}

impl Bouncer {
    /// In front of `server`; `mode` is its `pool_mode`, with up to `size` connections.
    pub(crate) async fn start(server: &Server, mode: &str, size: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        super::authority::mode(folder.path(), 0o755);
        let listener = std::net::TcpListener::bind(any_port()).expect("bound");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
             default_pool_size = {size}\nignore_startup_parameters = extra_float_digits\n",
            server.port
        )
        .replace("* = host=127.0.0.1", "* = user=postgres host=127.0.0.1");
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("written");
        super::authority::mode(&file, 0o644);
        let mut command = as_stranger(Path::new("/usr/sbin/pgbouncer"));
        let process = command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.expect("tests/postgres/server installs it");
        within(async { while TcpStream::connect(("127.0.0.1", port)).await.is_err() {} }).await;
        Self { process, port, _folder: folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // It is our own child, and has nothing to lose.
        let _ = (self.process.kill(), self.process.wait());
    }
}
