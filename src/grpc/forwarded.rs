//! `x-forwarded-client-cert`: what a mesh's proxy says about the certificate it was shown.
//!
//! Elements with commas between them, one for each proxy on the way, the nearest last. An element is
//! `Key=value` pairs with semicolons between them; a value may stand in double quotes, in which a
//! backslash takes the next character as it is. Anything else is malformed, and proves nothing.

use tonic::codegen::http::HeaderMap;

use crate::peer::is_uri;

/// The header's name.
pub(super) const HEADER: &str = "x-forwarded-client-cert";
/// More than any proxy sends.
const BYTES_MAX: usize = 16 * 1024;
/// Names of one certificate.
const NAMES_MAX: usize = 32;
/// The longest name: a SPIFFE id's limit.
const NAME_MAX: usize = 2048;

/// The DNS names and URIs that the nearest proxy saw in its client's certificate; none, where the
/// headers do not say, or do not say it properly.
pub(super) fn names(headers: &HeaderMap) -> Vec<String> {
    let mut lines = Vec::new();
    for line in headers.get_all(HEADER) {
        let Ok(line) = line.to_str() else { return vec![] };
        lines.push(line);
    }
    nearest(&lines.join(",")).unwrap_or_default()
}

fn nearest(text: &str) -> Option<Vec<String>> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let (pair, end, after) = pair(rest)?;
        let key = if is_uri(&pair.value) { "uri" } else { "dns" };
        if pair.key.eq_ignore_ascii_case(key) && !pair.value.is_empty() {
            if names.len() == NAMES_MAX || pair.value.len() > NAME_MAX {
                return None;
            }
            names.push(pair.value);
        }
        match end {
            End::Pair => {}
            End::Element => names.clear(),
            End::All => return Some(names),
        }
        rest = after;
    }
}

struct Pair<'a> {
    key: &'a str,
    value: String,
}

/// What a pair is followed by.
enum End {
    Pair,
    Element,
    All,
}

/// The first pair of `text`, what ends it, and what comes after that.
fn pair(text: &str) -> Option<(Pair<'_>, End, &str)> {
    let (key, text) = text.split_once('=')?;
    let key = key.trim_matches([' ', '\t']);
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let (value, rest) = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let length = text.find([';', ',']).unwrap_or(text.len());
            let (value, rest) = text.split_at_checked(length)?;
            if value.contains(['"', '=']) {
                return None;
            }
            (value.trim_end_matches([' ', '\t']).to_owned(), rest)
        }
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let (end, after) = match rest.as_bytes().first() {
        None => (End::All, ""),
        Some(b';') => (End::Pair, rest.get(1..)?),
        Some(b',') => (End::Element, rest.get(1..)?),
        Some(_) => return None,
    };
    Some((Pair { key, value }, end, after))
}

/// A quoted value, read up to its closing quote, and what comes after that.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut left = text.char_indices();
    loop {
        match left.next()? {
            (at, '"') => return Some((value, text.get(at + 1..)?)),
            (_, '\\') => value.push(left.next()?.1),
            (_, plain) => value.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, line.parse().expect("a header"));
        }
        names(&headers)
    }

    /// What a proxy may say, and the names in it.
    const GOOD: &[(&[&str], &[&str])] = &[
        (&[], &[]),
        (&["URI=spiffe://a/ns/b/sa/c"], &["spiffe://a/ns/b/sa/c"]),
        (&["By=spiffe://us;Hash=00ff;Subject=\"\";URI=spiffe://them"], &["spiffe://them"]),
        (
            &["By=spiffe://us;Hash=00ff;Subject=\"CN=x,O=y\";DNS=a.example;DNS=b.example"],
            &["a.example", "b.example"],
        ),
        (&["uri=spiffe://a;dns=b"], &["spiffe://a", "b"]),
        // Each of its own kind.
        (&["URI=b;DNS=spiffe://a;DNS=c"], &["c"]),
        // The nearest proxy's word is the last; what came before is what others told it.
        (&["URI=spiffe://forged,By=spiffe://us;URI=spiffe://true"], &["spiffe://true"]),
        (&["URI=spiffe://forged", "URI=spiffe://true"], &["spiffe://true"]),
        (&["URI=spiffe://forged,By=spiffe://us;Hash=00"], &[]),
        (&["URI=spiffe://a , URI=spiffe://b"], &["spiffe://b"]),
        (&["By=spiffe://us;URI="], &[]),
        // Quotes hide commas, semicolons, equals signs and escaped quotes.
        (&["Subject=\"x,URI=spiffe://no;DNS=no\";URI=spiffe://yes"], &["spiffe://yes"]),
        (&[r#"Subject="a\",URI=spiffe://no";URI=spiffe://yes"#], &["spiffe://yes"]),
        (&[r#"Subject="a\\";URI=spiffe://yes"#], &["spiffe://yes"]),
        (&["URI=\"spiffe://a,b\""], &["spiffe://a,b"]),
        (&["Cert=\"-----BEGIN%20CERTIFICATE-----%0A\";URI=spiffe://a"], &["spiffe://a"]),
    ];

    #[test]
    fn the_nearest_clients_names_are_read() {
        for (lines, expected) in GOOD {
            assert_eq!(read(lines), *expected, "{lines:?}");
        }
    }

    #[test]
    fn whatever_is_malformed_proves_nothing() {
        for line in [
            "",
            ",",
            ";",
            "=",
            "spiffe://a",
            "URI",
            "=spiffe://a",
            "URI=spiffe://a;",
            "URI=spiffe://a,",
            ",URI=spiffe://a",
            ";URI=spiffe://a",
            "URI=spiffe://a;;DNS=b",
            "URI=spiffe://a,,URI=spiffe://b",
            "URI=spiffe://a=b",
            "URI=spi\"ffe\"://a",
            "URI=\"spiffe://a",
            "URI=\"spiffe://a\\\"",
            "URI=\"spiffe://a\"x",
            "URI=\"spiffe://a\" x;DNS=b",
            "U RI=spiffe://a",
            "U-R=x;URI=spiffe://a",
            "Subject=\"open;URI=spiffe://a",
            // A broken element far away leaves nobody's word to rely on.
            "broken,URI=spiffe://a",
        ] {
            assert_eq!(read(&[line]), [""; 0], "{line}");
        }
        let mut headers = HeaderMap::new();
        let bytes = tonic::codegen::http::HeaderValue::from_bytes(b"URI=spiffe://\xff");
        headers.append(HEADER, bytes.expect("a header"));
        assert!(names(&headers).is_empty(), "not ASCII");
    }

    #[test]
    fn what_is_too_large_proves_nothing() {
        let uri = |length: usize| format!("URI=a://{}", "x".repeat(length - 4));
        assert_eq!(read(&[&uri(NAME_MAX)]).len(), 1);
        assert!(read(&[&uri(NAME_MAX + 1)]).is_empty());
        let many = |count| vec!["DNS=a"; count].join(";");
        assert_eq!(read(&[&many(NAMES_MAX)]).len(), NAMES_MAX);
        assert!(read(&[&many(NAMES_MAX + 1)]).is_empty());
        let long = format!("Cert=\"{}\";URI=spiffe://a", "x".repeat(BYTES_MAX));
        assert!(read(&[&long]).is_empty());
    }

    /// Whatever is cut, doubled or swapped in a good header: no panic, and no name out of a quote.
    #[test]
    fn no_mutation_lets_a_quoted_text_out() {
        let text = r#"By=spiffe://us;Subject="O=\"q\",URI=spiffe://EVIL;DNS=EVIL";URI=spiffe://ok"#;
        let pieces = ["", "\"", "\\", ";", ",", "=", "URI=", "x"];
        let mut seen = 0;
        for from in 0..=text.len() {
            for to in from..=(from + 3).min(text.len()) {
                for piece in pieces {
                    let mutant = format!("{}{piece}{}", &text[..from], &text[to..]);
                    let found = read(&[&mutant]);
                    // Only where a quote or its escape was touched may the text in it come out.
                    let touched = piece == "\"" || text[from..to].contains(['"', '\\', '=']);
                    let out = found.iter().any(|name| name.contains("EVIL") && !name.contains(','));
                    assert!(touched || piece == "\\" || !out, "{mutant}: {found:?}");
                    seen += found.len();
                }
            }
        }
        assert!(seen > 500, "most mutants are still headers: {seen}");
    }
}
