//! Ids that no other call has.

use std::sync::atomic::{AtomicU64, Ordering};

/// 32 hex digits that no other call has; the first 6 differ from one call to the next.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Multiplying by an odd number scatters the count over the whole range without collisions.
    let scattered = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{scattered:016x}{:016x}", scattered.rotate_left(17) ^ u64::from(std::process::id()))
}
