//! The dashboard, the alerts and the documents speak of meters that are there, and of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use std::path::Path;

use serde_json::Value;

use super::Page;
use crate::support::{Whole, order};

fn file(path: &str) -> String {
    read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// What the service tells of, by name as it is stored: with its kind.
async fn told() -> BTreeMap<String, String> {
    let whole = Whole::start().await;
    whole.create(order("a")).await.expect("OK");
    let page = Page::of(&whole.service).await;
    let types = page.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let named = types.map(|line| {
        let (name, kind) = line.split_once(' ').expect("a kind");
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        (name, kind.to_owned())
    });
    let named: BTreeMap<_, _> = named.collect();
    assert!(named.len() > 30, "read {} names", named.len());
    named
}

/// Every name that a query may use.
fn usable(told: &BTreeMap<String, String>) -> BTreeSet<String> {
    let names = told.iter().flat_map(|(name, kind)| match kind.as_str() {
        "histogram" => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
        _ => vec![name.clone()],
    });
    // Prometheus's own.
    names.chain(["up".to_owned()]).collect()
}

/// The metrics in a query: every word with our prefixes, and `up`.
fn metrics(query: &str) -> Vec<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours =
        |word: &&str| word.starts_with("payoutd_") || word.starts_with("process_") || *word == "up";
    words.filter(ours).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_names_metrics_that_exist() {
    let usable = usable(&told().await);
    let dashboard: Value =
        serde_json::from_str(&file("deploy/grafana/payoutd.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut queries = 0;
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query");
            let metrics = metrics(query);
            assert!(!metrics.is_empty(), "{query} asks for nothing of ours");
            for metric in metrics {
                assert!(usable.contains(metric), "{metric} does not exist: {query}");
            }
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{query}");
            queries += 1;
        }
    }
    assert!(queries > 30, "read {queries} queries");
    let rows: Vec<_> = panels.iter().filter(|panel| panel["type"] == "row").collect();
    let rows: Vec<_> = rows.iter().map(|row| row["title"].as_str().expect("a title")).collect();
    assert_eq!(rows, ["Now", "Callers", "Money", "Doubts", "Cregis", "Ledger", "Process"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_asks_for_metrics_that_exist_and_links_to_its_own_section() {
    let usable = usable(&told().await);
    let (rules, tests) = (
        file("deploy/prometheus/payoutd.rules.yaml"),
        file("deploy/prometheus/payoutd.rules.test.yaml"),
    );
    let page = file("docs/operations.md");
    let (_, alerts) = page.split_once("\n## Alerts\n").expect("a chapter");
    let (alerts, _) = alerts.split_once("\n## ").expect("its end");
    let mut names = Vec::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().expect("a name");
        let field = |field: &str| {
            let line = rule.lines().find_map(|line| line.trim().strip_prefix(field));
            line.unwrap_or_else(|| panic!("{name} has no {field}"))
        };
        let asked = metrics(field("expr: "));
        assert!(
            !asked.is_empty() && asked.iter().all(|m| usable.contains(*m)),
            "{name}: {asked:?}"
        );
        assert!(["critical", "warning"].contains(&field("severity: ")), "{name}");
        assert!(!field("summary: ").is_empty() && !field("description: ").is_empty(), "{name}");
        let anchor = format!("docs/operations.md#{}", name.to_lowercase());
        assert_eq!(field("runbook_url: "), anchor, "{name}");
        let (_, section) =
            alerts.split_once(&format!("\n### {name}\n")).unwrap_or_else(|| panic!("no {name}"));
        let steps = section.split("\n### ").next().expect("a section");
        assert!(["\n1. ", "\n2. ", "\n3. "].iter().all(|step| steps.contains(step)), "{name}");
        assert_eq!(
            tests.matches(&format!("alertname=\"{name}\", alertstate")).count(),
            2,
            "{name}"
        );
        names.push(name);
    }
    assert!(names.len() > 15, "read {} alerts", names.len());
    assert_eq!(alerts.matches("\n### ").count(), names.len(), "a section without an alert");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_metrics_is_what_is_told() {
    let page = file("docs/operations.md");
    let (_, table) = page.split_once("\n## Metrics\n").expect("a chapter");
    let (table, _) = table.split_once("\n## ").expect("its end");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeMap<String, Vec<String>> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.replace([' ', '`'], "")).collect();
            let labels = cells[2].split(',').filter(|label| !label.is_empty());
            (cells[1].clone(), labels.map(str::to_owned).collect())
        })
        .collect();
    let told = told().await;
    let (listed_names, told_names) = (listed.keys(), told.keys());
    assert!(listed_names.clone().eq(told_names.clone()), "{listed_names:?}\n{told_names:?}");

    let whole = Whole::start().await;
    whole.create(order("a")).await.expect("OK");
    let page = Page::of(&whole.service).await;
    for series in page.samples.keys() {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let name = base.filter(|base| told.get(*base).is_some_and(|k| k == "histogram"));
        let name = name.unwrap_or_else(|| series.split('{').next().expect("a name"));
        let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.split('=').next().expect("a name"));
        let labels: Vec<_> = labels.filter(|label| *label != "le").collect();
        assert_eq!(listed[name], labels, "{series}");
    }
}
