//! A PostgreSQL server of a test's own, which it may misconfigure, stop and copy.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio_postgres::Client as Shell;

use super::authority::{Authority, Leaf};
use super::database::{connect, setting};
use super::{any_port, within};

/// Listens at 127.0.0.1 and 127.0.0.2, with TLS. Everybody is let in, but `guarded` only with a password.
pub(crate) struct Server {
    folder: TempDir,
    pub(crate) port: u16,
}

/// A program, to be run by somebody who may run a server.
pub(crate) fn as_stranger(program: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").expect("a process").uid() == 0;
    let drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
    let words = if root { &drop[..] } else { &["env"] };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(program).current_dir("/");
    command
}

fn run(program: impl AsRef<Path>, arguments: &[&str]) {
    let program = program.as_ref();
    let mut command = as_stranger(program);
    command.args(arguments);
    // A server that it starts lives on, and holds what it was given.
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("ran");
    assert!(status.success(), "{} {arguments:?}", program.display());
}

fn bin(name: &str) -> PathBuf {
    Path::new(&setting("_BIN").expect("tests/postgres/run says where")).join(name)
}

impl Server {
    /// Its certificate, for 127.0.0.1 and localhost, comes from `authority`.
    pub(crate) async fn start(authority: &Authority) -> Self {
        let server = Self::unmade();
        let signed = authority.sign(Leaf::server("localhost"));
        server.write("server.crt", &signed.cert);
        server.write("server.pem", &signed.key);
        let (key, pem) = (server.path("server.key"), server.path("server.pem"));
        run("sh", &["-c", &format!("umask 077; cat {pem} >{key}")]);
        let data = server.path("data");
        let arguments = ["--pgdata", &data, "--username", "postgres", "--auth", "trust"];
        run(bin("initdb"), &[&arguments[..], &["--encoding", "UTF8", "--no-sync"]].concat());
        let rules = "host all guarded 127.0.0.1/32 scram-sha-256
                     host all all 127.0.0.0/8 trust
                     host replication all 127.0.0.1/32 trust";
        server.write("rules", rules);
        server.set("");
        let common = server.path("common");
        run("sh", &["-c", &format!("echo \"include '{common}'\" >>{data}/postgresql.conf")]);
        server.control("start");
        server
    }

    /// Another server that follows this one.
    pub(crate) async fn standby(&self) -> Self {
        let standby = Self::unmade();
        for file in ["server.crt", "rules"] {
            standby.write(file, &std::fs::read_to_string(self.path(file)).expect("read"));
        }
        standby.set("");
        let (from, data) = (self.port.to_string(), standby.path("data"));
        let source = ["--host", "127.0.0.1", "--port", &from, "--username", "postgres"];
        let copy = ["--pgdata", &data, "--write-recovery-conf", "--checkpoint", "fast"];
        run(bin("pg_basebackup"), &[&source[..], &copy].concat());
        let (old, new) = (self.path("common"), standby.path("common"));
        let file = format!("{data}/postgresql.conf");
        run(
            "sh",
            &["-c", &format!("echo \"include '{new}'\" >>{file}; sed -i '\\|{old}|d' {file}")],
        );
        standby.control("start");
        standby
    }

    fn unmade() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("open");
        let listener = std::net::TcpListener::bind(any_port()).expect("bound");
        let port = listener.local_addr().expect("an address").port();
        Self { folder, port }
    }

    /// Changes its settings to these and those that it cannot do without; they count when it is told.
    pub(crate) fn set(&self, settings: &str) {
        let Self { port, .. } = self;
        let (folder, rules, key) = (self.path(""), self.path("rules"), self.path("server.key"));
        let (certificate, tls) = (self.path("server.crt"), Path::new(&key).exists());
        let tls = if tls { "on" } else { "off" };
        let common = format!(
            "listen_addresses = '127.0.0.1,127.0.0.2'\nport = {port}\nssl = {tls}\n\
             unix_socket_directories = '{folder}'\nhba_file = '{rules}'\n\
             ssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n{settings}\n"
        );
        self.write("common", &common);
    }

    /// `start`, `stop`, `restart` or `reload`.
    pub(crate) fn control(&self, what: &str) {
        let (data, log) = (self.path("data"), self.path("log"));
        let wait = if what == "reload" { "--no-wait" } else { "--wait" };
        run(bin("pg_ctl"), &["--pgdata", &data, "--log", &log, wait, what]);
    }

    /// Ends it as a power cut would; `start` has it recover.
    pub(crate) fn crash(&self) {
        let data = self.path("data");
        run(bin("pg_ctl"), &["--pgdata", &data, "--mode", "immediate", "--wait", "stop"]);
    }

    /// Reloads its settings and waits until `setting` is `value`.
    pub(crate) async fn reload(&self, setting: &str, value: &str) {
        self.control("reload");
        let (shell, _driver) = self.shell().await;
        let shown = async {
            loop {
                let row = shell.query_one(&format!("SHOW {setting}"), &[]).await.expect("shown");
                if row.get::<_, &str>(0) == value {
                    return;
                }
            }
        };
        within(shown).await;
    }

    /// As its superuser.
    pub(crate) async fn shell(&self) -> (Shell, tokio::task::JoinSet<()>) {
        connect(&self.url("postgres", "").parse().expect("a URL")).await
    }

    pub(crate) fn url(&self, user: &str, more: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres{more}", self.port)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("utf-8").to_owned()
    }

    /// For everybody to read, since the server is somebody else.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
        let open = PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(self.path(name), open).expect("its mode");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.path("data");
        // It may be stopped already.
        if Path::new(&data).join("postmaster.pid").exists() {
            self.crash();
        }
        // What a stranger made there is the stranger's to remove.
        run("rm", &["-rf", &data, &self.path("server.key"), &self.path("log")]);
    }
}
