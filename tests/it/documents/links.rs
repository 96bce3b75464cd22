//! Readers find every document, and no link of theirs leads nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_dir;
use std::path::{Component, Path, PathBuf};

use super::{file, path};

/// Every document of the repository, by its path from the top; what git ignores is not ours.
fn documents() -> Vec<String> {
    let ignored = file(".gitignore");
    let ignored: BTreeSet<_> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let mut folders = vec![PathBuf::new()];
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in read_dir(path("").join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("UTF-8");
            let place = folder.join(&name);
            let whole = place.to_str().expect("UTF-8").to_owned();
            if name == ".git" || ignored.contains(&*name) || ignored.contains(&*whole) {
                continue;
            }
            // Links are not followed: they may lead out of the repository.
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                folders.push(place);
            } else if kind.is_file() && name.ends_with(".md") {
                documents.push(whole);
            }
        }
    }
    documents.sort();
    documents
}

/// The lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Where the links of a document lead, as they are written.
fn links(text: &str) -> Vec<&str> {
    let after = prose(text).flat_map(|line| line.split("](").skip(1));
    after.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// What a code host makes of a document's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let headings = prose(text).filter_map(|line| {
        line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
    });
    let mut anchors = BTreeSet::new();
    for heading in headings {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let times = seen.entry(anchor.clone()).or_default();
        anchors.insert(if *times == 0 { anchor } else { format!("{anchor}-{times}") });
        *times += 1;
    }
    anchors
}

/// The file that `target`, a path without an anchor, names in the document `from`.
fn resolved(from: &str, target: &str) -> PathBuf {
    let mut place = PathBuf::from(from);
    if target.is_empty() {
        return place;
    }
    place.pop();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => assert!(place.pop(), "{from}: {target} leaves the repository"),
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => place.push(part),
        }
    }
    place
}

/// What is wrong with a link of the document `from`, if anything is.
fn wrong(from: &str, target: &str) -> Option<String> {
    let outside = ["https://", "http://", "mailto:"];
    if outside.iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (name, anchor) = target.split_once('#').unwrap_or((target, ""));
    let place = resolved(from, name);
    let place = place.to_str().expect("UTF-8");
    if !path(place).exists() {
        return Some(format!("{from}: {target}: no such file"));
    }
    let here = anchor.is_empty() || anchors(&file(place)).contains(anchor);
    (!here).then(|| format!("{from}: {target}: no such heading"))
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let (mut count, mut bad) = (0, Vec::new());
    for document in documents() {
        let text = file(&document);
        let links = links(&text);
        count += links.len();
        bad.extend(links.into_iter().filter_map(|target| wrong(&document, target)));
    }
    assert!(count > 60, "read {count} links: are they read right?");
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn the_index_names_every_document_of_its_folder() {
    let index = file("docs/README.md");
    let named: BTreeSet<_> = links(&index).into_iter().collect();
    let documents = documents();
    let inside = documents.iter().filter_map(|document| document.strip_prefix("docs/"));
    let missing: Vec<_> =
        inside.filter(|name| *name != "README.md" && !named.contains(name)).collect();
    assert!(named.len() > 8 && missing.is_empty(), "docs/README.md does not name {missing:?}");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let text = "# A `b_c`: d-e?\n## A\n## A\n```sh\n# no\n[x](y)\n```\n[x](#a-1) and [`y`](z.md#q)";
    assert_eq!(links(text), ["#a-1", "z.md#q"]);
    assert_eq!(anchors(text), ["a", "a-1", "a-b_c-d-e"].map(str::to_owned).into());
    let from = "docs/mesh.md";
    for good in ["#the-stop", "outcomes.md#errors", "../deploy", "../README.md", "https://a.b/c"] {
        assert_eq!(wrong(from, good), None, "{good}");
    }
    for bad in ["#the-end", "outcomes.md#error", "../README", "mesh", "docs/mesh.md"] {
        assert!(wrong(from, bad).is_some(), "{bad}");
    }
}
