//! A PostgreSQL server of the benchmark's own, and what it says about itself.

use std::fs::read_dir;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::process::stat;

/// A server; thrown away when dropped.
pub(crate) struct Server {
    script: Child,
    url: String,
    shell: Shell,
    /// Its first process, whose children are all the others.
    postmaster: String,
    databases: usize,
}

/// A connection to it.
pub(crate) struct Shell {
    pub(crate) client: Client,
    _driver: JoinSet<()>,
}

/// A database of its own.
pub(crate) struct Database {
    name: String,
    pub(crate) url: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/postgres/server");
        let mut command = Command::new(script);
        // It lives for as long as the pipe to it is open.
        command.args(["sh", "-c", "echo \"$PAYOUTD_TEST_POSTGRES\"; exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = command.spawn().expect("started");
        let mut url = String::new();
        let out = script.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut url).expect("a URL");
        let url = url.trim().to_owned();
        let shell = Shell::connect(&url).await;
        let row = shell.client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a pid");
        let backend = stat(&row.get::<_, i32>(0).to_string()).expect("it lives");
        let postmaster = backend[1].clone();
        Self { script, url, shell, postmaster, databases: 0 }
    }

    /// An empty database.
    pub(crate) async fn database(&mut self) -> Database {
        self.databases += 1;
        let name = format!("fleet_{}", self.databases);
        let create = format!("CREATE DATABASE {name}");
        self.shell.client.batch_execute(&create).await.expect("created");
        let url = self.url.replace("/postgres?", &format!("/{name}?"));
        Database { name, url }
    }

    pub(crate) async fn forget(&self, database: Database) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", database.name);
        self.shell.client.batch_execute(&drop).await.expect("dropped");
    }

    /// CPU time that all its processes have used, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        let number = |field: &String| field.parse::<f64>().expect("ticks");
        let mut ticks = 0.0;
        for entry in read_dir("/proc").expect("/proc").flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let Some(fields) = stat(&pid) else { continue };
            if pid == self.postmaster {
                // With the children that have ended.
                ticks += fields[11..15].iter().map(number).sum::<f64>();
            } else if fields[1] == self.postmaster {
                ticks += fields[11..13].iter().map(number).sum::<f64>();
            }
        }
        // USER_HZ is 100 on every Linux that Rust supports.
        ticks * 10_000.0
    }

    /// Transactions that clients of `database` have committed; once all of them are gone, since they tell
    /// when they go.
    pub(crate) async fn transactions(&self, database: &Database) -> i64 {
        let clients = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        while self.number(clients, &database.name).await > 0 {
            std::thread::yield_now();
        }
        let committed = "SELECT xact_commit FROM pg_stat_database WHERE datname = $1";
        self.number(committed, &database.name).await
    }

    /// How often the log has been synced to the disk; of those who are gone, as above.
    pub(crate) async fn syncs(&self) -> i64 {
        let row = self.shell.client.query_one("SELECT wal_sync FROM pg_stat_wal", &[]).await;
        row.expect("read").get(0)
    }

    /// How long its log is, in bytes.
    pub(crate) async fn log(&self) -> i64 {
        let select = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
        self.shell.client.query_one(select, &[]).await.expect("read").get(0)
    }

    /// Under which circumstances all this is measured.
    pub(crate) async fn machine(&self) -> String {
        let row = self.shell.client.query_one("SHOW server_version", &[]).await.expect("read");
        let version: String = row.get(0);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = memory.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok());
        format!(
            "{cores} cores, {:.0} GiB, load average {load} at the start; PostgreSQL {} as it comes",
            memory.unwrap_or_default() / 1_048_576.0,
            version.split(' ').next().unwrap_or_default()
        )
    }

    async fn number(&self, select: &str, database: &str) -> i64 {
        self.shell.client.query_one(select, &[&database]).await.expect("read").get(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

impl Shell {
    pub(crate) async fn connect(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connected");
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        Self { client, _driver: driver }
    }
}
