//! Recipients: what the chains' own libraries take is taken, and what certainly loses the money is not.

use std::fs::read_to_string;
use std::path::Path;

use payoutd::coin::{Chain, Currency, published};
use payoutd::order::{Draft, Order};

/// A file of tests/corpus: the currency, and each address with its section.
struct Corpus {
    currency: String,
    sections: Vec<(String, Vec<String>)>,
}

const CORPUS: [&str; 11] = [
    "bitcoin",
    "bitcoin-cash",
    "dogecoin",
    "evm",
    "filecoin",
    "litecoin",
    "solana",
    "sui",
    "ton",
    "tron",
    "xrp",
];

impl Corpus {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/corpus/{name}.txt"));
        let text = read_to_string(path).expect(name);
        let mut sections: Vec<(String, Vec<String>)> = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match (line.strip_prefix('['), sections.last_mut()) {
                (Some(heading), _) => sections.push((heading.to_owned(), Vec::new())),
                (None, Some((_, addresses))) => addresses.push(line.to_owned()),
                (None, None) => panic!("{name}: an address before the first section"),
            }
        }
        let currency = text.lines().find_map(|line| line.strip_prefix("# currency "));
        Self { currency: currency.expect(name).to_owned(), sections }
    }

    /// The addresses under headings of this verdict, each with the rest of its heading.
    fn under(&self, verdict: &str) -> Vec<(&str, &str)> {
        let headings = self.sections.iter().filter_map(|(heading, addresses)| {
            Some((heading.strip_prefix(verdict)?.strip_prefix("] ")?, addresses))
        });
        headings.flat_map(|(what, all)| all.iter().map(move |it| (what, it.as_str()))).collect()
    }
}

/// What is said against `address` as a recipient, if anything is.
fn objection(currency: &str, address: &str) -> Option<String> {
    let draft = Draft {
        pid: 1,
        currency: currency.to_owned(),
        address: address.to_owned(),
        amount: "1".to_owned(),
        third_party_id: "a".to_owned(),
        ..Draft::default()
    };
    let mut violations = Order::check(draft, false).err()?;
    assert_eq!((violations.len(), violations[0].field), (1, "address"), "{currency} {address}");
    violations.pop().map(|violation| violation.rule)
}

/// The chain of the corpus, and those that have the same addresses.
fn currencies(corpus: &Corpus) -> Vec<String> {
    let chain = |currency: &str| Currency::parse(currency).expect(currency).chain();
    let natives = published().map(|(id, _, _)| format!("{id}@{id}"));
    let tests = ["198@198", "2610@2610"].map(str::to_owned);
    let mut alike: Vec<_> = natives
        .chain(tests)
        .filter(|currency| chain(currency) == chain(&corpus.currency))
        .collect();
    alike.dedup();
    alike
}

#[test]
fn no_address_of_the_corpus_is_judged_wrongly() {
    let mut wrong = Vec::new();
    for name in CORPUS {
        let corpus = Corpus::read(name);
        let (taken, bad) = (corpus.under("taken"), corpus.under("bad"));
        assert!(taken.len() >= 200 && bad.len() >= 200, "{name}");
        for currency in currencies(&corpus) {
            for (what, address) in &taken {
                if let Some(rule) = objection(&currency, address) {
                    wrong.push(format!("{currency} refuses {what} {address}: {rule}"));
                }
            }
            for (what, address) in &bad {
                if objection(&currency, address).is_none() {
                    wrong.push(format!("{currency} takes {address}: {what}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are judged wrongly:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_form_that_is_not_taken_is_refused_with_the_one_that_is() {
    let mut forms = 0;
    for name in CORPUS {
        let corpus = Corpus::read(name);
        for (what, address) in corpus.under("refused") {
            let rule = objection(&corpus.currency, address).expect(address);
            assert!(rule.contains(what), "{address}: {rule:?} does not say {what:?}");
            assert!(!rule.contains(address), "the message repeats the text");
            forms += 1;
        }
    }
    assert!(forms > 200, "{forms} forms that are refused on purpose");
}

#[test]
fn an_address_of_a_test_network_is_refused_as_one() {
    let mut told = 0;
    for name in CORPUS {
        let corpus = Corpus::read(name);
        for (_, address) in
            corpus.under("bad").iter().filter(|(what, _)| *what == "of a test network")
        {
            let rule = objection(&corpus.currency, address).expect(address);
            assert!(rule.contains("test network"), "{name} {address}: {rule}");
            told += 1;
        }
    }
    assert!(told > 300, "{told} addresses of test networks");
}

#[test]
fn the_addresses_of_every_published_chain_are_checked() {
    for (chain, _, _) in published() {
        let currency = Currency::parse(&format!("{chain}@{chain}")).expect(chain);
        assert_ne!(currency.chain(), Chain::Other, "{chain}");
    }
    assert_eq!(objection("7777@7777", "anything-at-all"), None, "unknown chains are let through");
}

#[test]
fn the_contract_of_the_token_itself_is_no_recipient_in_any_spelling() {
    for (currency, address) in [
        ("195@TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"),
        ("198@TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"),
        (
            "60@0xdac17f958d2ee523a2206206994597c13d831ec7",
            "0xdAC17F958D2ee523a2206206994597C13D831ec7",
        ),
        (
            "60@0xdAC17F958D2ee523a2206206994597C13D831ec7",
            "0xDAC17F958D2EE523A2206206994597C13D831EC7",
        ),
        (
            "2510@0x55d398326f99059ff775485246999027b3197955",
            "0x55d398326f99059fF775485246999027B3197955",
        ),
        (
            "1000@EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
            "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
        ),
        (
            "2000@EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_sDs",
            "UQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_p0p",
        ),
        (
            "2000@EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_sDs",
            "0:b113a994b5024a16719f69139328eb759596c38a25f59028b146fecdc3621dfe",
        ),
        (
            "3000@0xdba34672e30cb065b1f93e3ab55318768fd6fef66c15942c9f7cb846e2f900e7::usdc::USDC",
            "0xDBA34672E30CB065B1F93E3AB55318768FD6FEF66C15942C9F7CB846E2F900E7",
        ),
        (
            "7777@0xdac17f958d2ee523a2206206994597c13d831ec7",
            "0xDAC17F958D2EE523A2206206994597C13D831EC7",
        ),
        ("7777@some-token", "some-token"),
    ] {
        let rule = objection(currency, address).expect(currency);
        assert!(rule.contains("the contract of the token itself"), "{currency} {address}: {rule}");
    }
    // The native coin's id is no contract, and another token's contract is told by nobody.
    assert_eq!(objection("195@195", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"), None);
    assert_eq!(objection("7777@7777", "7777"), None);
}

#[test]
fn an_address_from_which_nobody_can_spend_is_no_recipient() {
    for (currency, addresses) in [
        (
            "0@0",
            &[
                "1111111111111111111114oLvT2",
                "31h1vYVSYuKP6AhS86fbRdMw9XHieotbST",
                "1BitcoinEaterAddressDontSendf59kuE",
                "1CounterpartyXXXXXXXXXXXXXXXUWLpVr",
            ][..],
        ),
        ("3@3", &["DDogepartyxxxxxxxxxxxxxxxxxxw1dfzr"]),
        ("5@5", &["1111111111111111111114oLvT2", "1BitcoinEaterAddressDontSendf59kuE"]),
        (
            "60@60",
            &[
                "0x0000000000000000000000000000000000000000",
                "0x0000000000000000000000000000000000000001",
                "0x0000000000000000000000000000000000000009",
                "0x000000000000000000000000000000000000dEaD",
                "0x000000000000000000000000000000000000dead",
                "0xEeeeeEeeeEeEeeEeEeEeeEEEeeeeEeeeeeeeEEeE",
                "0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
                "0xdead000000000000000000000000000000000000",
                "0xdead000000000000000042069420694206942069",
            ],
        ),
        (
            "144@144",
            &[
                "rrrrrrrrrrrrrrrrrrrrrhoLvTp",
                "rrrrrrrrrrrrrrrrrrrrBZbvji",
                "rrrrrrrrrrrrrrrrrrrn5RM1rHd",
                "rrrrrrrrrrrrrrrrrNAMEtxvNvQ",
            ],
        ),
        ("195@195", &["T9yD14Nj9j7xAB4dbGeiX9h8unkKHxuWwb", "TLsV52sRDL79HXGGm9yzwKibb6BeruhUzy"]),
        (
            "1000@1000",
            &[
                "11111111111111111111111111111111",
                "1nc1nerator11111111111111111111111111111111",
                "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
                "BPFLoaderUpgradeab1e11111111111111111111111",
                "ComputeBudget111111111111111111111111111111",
                "Config1111111111111111111111111111111111111",
                "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
                "So11111111111111111111111111111111111111112",
                "NativeLoader1111111111111111111111111111111",
                "Stake11111111111111111111111111111111111111",
                "Sysvar1nstructions1111111111111111111111111",
                "SysvarC1ock11111111111111111111111111111111",
                "SysvarRecentB1ockHashes11111111111111111111",
                "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
                "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
                "Vote111111111111111111111111111111111111111",
            ],
        ),
        (
            "2000@2000",
            &[
                "EQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM9c",
                "UQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJKZ",
                "0:0000000000000000000000000000000000000000000000000000000000000000",
                "-1:0000000000000000000000000000000000000000000000000000000000000000",
            ],
        ),
        (
            "2307@2307",
            &["f00", "f01", "f05", "f010", "f099", "f410faaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaonc6iji"],
        ),
        (
            "3000@3000",
            &[
                "0x0000000000000000000000000000000000000000000000000000000000000000",
                "0x0000000000000000000000000000000000000000000000000000000000000002",
                "0x0000000000000000000000000000000000000000000000000000000000000403",
            ],
        ),
    ] {
        for address in addresses {
            let rule = objection(currency, address).expect(address);
            let said = rule == "is an address from which nobody can spend";
            assert!(said, "{currency} {address}: {rule}");
        }
    }
}
