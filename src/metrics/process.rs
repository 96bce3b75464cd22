//! Meters of the process, read from the kernel when somebody looks.

use std::fmt::Error;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Clock ticks of a second in the kernel's tables: 100 on every Linux that this builds for.
const TICKS: u64 = 100;

/// The process and its build.
#[derive(Debug)]
struct Process {
    /// When it started, in seconds since 1970.
    start: u64,
}

/// Registers what stands under names of its own, without the service's prefix.
pub(super) fn register(registry: &mut Registry) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    registry.register_collector(Box::new(Process { start: since.as_secs() }));
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut gauge = |name: &str, help: &str, value: Option<u64>| {
            let Some(value) = value else { return Ok(()) };
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        gauge("process_start_time_seconds", "When the process started.", Some(self.start))?;
        gauge("process_resident_memory_bytes", "Resident memory.", resident())?;
        gauge("process_open_fds", "Open descriptors.", open_fds())?;
        gauge("process_max_fds", "Descriptors that may be open.", max_fds())?;

        if let Some(ticks) = cpu_ticks() {
            let (name, help) = ("process_cpu_seconds", "Processor time, user and system.");
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            #[expect(clippy::float_arithmetic, reason = "time, never money")]
            let seconds = ticks as f64 / TICKS as f64;
            metric.encode_counter::<[(&str, &str); 0], f64, f64>(&seconds, None)?;
        }
        let revision = option_env!("PAYOUTD_REVISION").unwrap_or("unknown");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("revision", revision)];
        let (name, help) = ("payoutd_build_info", "The build that runs.");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(metric.encode_family(&labels)?)
    }
}

/// Bytes, from a line such as `VmRSS:     1234 kB`.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

fn open_fds() -> Option<u64> {
    // The one that reads the folder is open, too, but only while it does.
    u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?.checked_sub(1)
}

/// The soft limit, from a line such as `Max open files   1024   4096   files`.
fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The 14th and 15th field of the process's line; its name in the second may hold blanks.
fn cpu_ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = after_name.next()?.parse().ok()?;
    let system: u64 = after_name.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_all_of_it() {
        assert!(resident().expect("VmRSS") > 1 << 20);
        let open = open_fds().expect("descriptors");
        assert!((3..max_fds().expect("a limit")).contains(&open), "{open}");
        let (before, start) = (cpu_ticks().expect("ticks"), std::time::Instant::now());
        // Processor time grows with work and not with time: work until a tick has passed.
        while cpu_ticks().expect("ticks") == before {
            assert!(start.elapsed().as_secs() < 20, "no tick");
        }
    }
}
