//! The processes under measurement, and what the kernel says about them.

use std::fs::{File, read_to_string};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use payoutd::metrics::Metrics;
use payoutd::sandbox::{API_KEY, PID};

/// A server process. Killed when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    address: String,
    control: String,
    log: PathBuf,
}

/// A folder with a ledger, empty or filled.
pub(crate) struct Folder(TempDir);

#[allow(dead_code, reason = "not every benchmark needs all of them")]
impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// A ledger with `rows` accepted payouts under random ids.
    pub(crate) fn filled(rows: i64) -> Self {
        let folder = Self::new();
        let path = folder.ledger();
        drop(payoutd::ledger::Ledger::open(&path, &Metrics::new([])).expect("a ledger"));
        let db = rusqlite::Connection::open(&path).expect("the ledger's file");
        let fill = format!(
            "BEGIN;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO payout SELECT i, {PID}, lower(hex(randomblob(16))), '195@195',
                 'TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS', '1.1', '', '', '', 1, 2, 1, 'SUCCEEDED', '', '',
                 i, 6, '', 0, NULL, '', NULL, NULL, 1, 1, NULL, 0, '', NULL FROM n;
             INSERT INTO event SELECT id, 1, 1, 'RECORDED', NULL, 'SENDING', 1, '', '', NULL, NULL, '', 0,
                 NULL, '' FROM payout;
             INSERT INTO event SELECT id, 2, 1, 'REPLY', NULL, 'SUCCEEDED', 1, '', '', cid, 6, '', 0, NULL,
                 '' FROM payout;
             COMMIT;
             PRAGMA wal_checkpoint(TRUNCATE);"
        );
        db.execute_batch(&fill).expect("filled");
        folder
    }

    /// Payouts in the ledger.
    pub(crate) fn rows(&self) -> i64 {
        let db = rusqlite::Connection::open(self.ledger()).expect("the ledger's file");
        db.query_row("SELECT count(*) FROM payout", [], |row| row.get(0)).expect("counted")
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.0.path().join("payoutd.db")
    }
}

#[allow(dead_code, reason = "not every benchmark needs all of them")]
impl Child {
    /// The real sandbox, well-behaved.
    pub(crate) fn sandbox() -> Self {
        let mut command = payoutd();
        command.args(["sandbox", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
        let mut child = Self::spawn(command, Path::new("/dev/null"));
        let line = child.first_line();
        let mut urls = line.split("http://").skip(1).map(|rest| {
            rest.split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).next().unwrap_or("")
        });
        child.address = urls.next().expect("an address").to_owned();
        child.control = urls.next().expect("a control address").to_owned();
        child
    }

    /// The floor over `upstream`.
    pub(crate) fn floor(upstream: &Self) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["floor", &upstream.address]);
        let mut child = Self::spawn(command, Path::new("/dev/null"));
        child.address = child.first_line();
        child
    }

    /// The real service with its default settings, but for `in_flight`.
    pub(crate) fn payoutd(upstream: &Self, folder: &Folder, in_flight: usize) -> Self {
        let settings = [
            ("PAYOUTD_LEDGER__URL", format!("sqlite:{}", folder.ledger().display())),
            ("PAYOUTD_PROJECT__MAX_IN_FLIGHT", in_flight.to_string()),
        ];
        let child = Self::service(&upstream.address, folder, &settings);
        while TcpStream::connect(&child.address).is_err() {
            std::thread::yield_now();
        }
        child
    }

    /// The real service over `upstream`, with `settings` where they are not the default ones; it may not
    /// listen yet. Its log is kept in `folder`.
    pub(crate) fn service(upstream: &str, folder: &Folder, settings: &[(&str, String)]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.expect("a free port").to_string();
        let mut command = payoutd();
        command.arg("serve").envs([
            ("PAYOUTD_GRPC__LISTEN", address.clone()),
            ("PAYOUTD_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
            ("PAYOUTD_CALLBACK__LISTEN", "127.0.0.1:0".to_owned()),
            ("PAYOUTD_PROJECT__PID", PID.to_string()),
            ("PAYOUTD_PROJECT__BASE_URL", format!("http://{upstream}")),
            ("PAYOUTD_PROJECT__API_KEY", API_KEY.to_owned()),
        ]);
        command.envs(settings.iter().map(|(name, value)| (*name, value)));
        let mut child = Self::spawn(command, &folder.0.path().join("log"));
        child.address = address;
        child
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn control(&self) -> &str {
        &self.control
    }

    /// CPU time that the process has used, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        cpu_us(&self.process.id().to_string())
    }

    /// Resident memory in MB.
    pub(crate) fn rss_mb(&self) -> f64 {
        let status = read_to_string(format!("/proc/{}/status", self.process.id())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        kb.expect("VmRSS") / 1024.0
    }

    /// Stops the service in good order; its last log line says how often it has committed.
    pub(crate) fn stop_and_count_commits(mut self) -> u64 {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("signalled");
        self.process.wait().expect("ended");
        let log = read_to_string(&self.log).expect("a log");
        let count = log.split("\"ledger.commits\":").nth(1).unwrap_or("0");
        let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    fn spawn(mut command: Command, log: &Path) -> Self {
        let errors = File::options().append(true).create(true).open(log).expect("a log");
        let process = command.stdout(Stdio::piped()).stderr(errors).spawn().expect("started");
        let (address, control) = (String::new(), String::new());
        Self { process, address, control, log: log.to_owned() }
    }

    fn first_line(&mut self) -> String {
        let mut line = String::new();
        let out = self.process.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn payoutd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_payoutd"))
}

/// CPU time that this program has used itself, in microseconds.
#[allow(dead_code, reason = "not every benchmark needs it")]
pub(crate) fn own_cpu_us() -> f64 {
    cpu_us("self")
}

fn cpu_us(process: &str) -> f64 {
    let fields = stat(process).expect("stat");
    let ticks: f64 = fields[11..13].iter().map(|t| t.parse::<f64>().expect("ticks")).sum();
    // USER_HZ is 100 on every Linux that Rust supports.
    ticks * 10_000.0
}

/// What the kernel says of a process, after its name; None where it is gone.
pub(crate) fn stat(process: &str) -> Option<Vec<String>> {
    let stat = read_to_string(format!("/proc/{process}/stat")).ok()?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}
