//! What the tests beside the code pay, and through which project.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Project;
use crate::disk::Disk;
use crate::engine::{self, Engine};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::order::{Draft, Order};

/// Longer than any of these tests takes.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// A good order, as a caller writes it.
pub(crate) fn draft() -> Draft {
    Draft {
        pid: 1,
        currency: "195@195".into(),
        address: "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS".into(),
        amount: "1.10".into(),
        third_party_id: "id".into(),
        ..Draft::default()
    }
}

/// The same, checked.
pub(crate) fn order() -> Order {
    Order::check(draft(), false).expect("good")
}

/// The project of these, at a Cregis that nobody is.
pub(crate) fn project() -> Project {
    Project {
        pid: 1,
        base_url: "http://127.0.0.1:9".parse().expect("a URL"),
        api_key: "k".into(),
        timeout: LONG,
        connect_timeout: LONG,
        max_in_flight: 1,
        poll_first: LONG,
        verification: false,
        resend_in_doubt: false,
        strict_text: false,
    }
}

/// An engine with that project over the ledger at `path`.
pub(crate) fn engine(path: &Path) -> (Arc<Engine>, Ledger) {
    let ledger = Ledger::open(path, &Metrics::new([1])).expect("opened");
    let project = engine::Project::new(&project(), String::new()).expect("built");
    let books = (ledger.clone(), Disk::new(path, 0));
    (Engine::new(books, HashMap::from([(1, project)]), LONG, 1), ledger)
}
