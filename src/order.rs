//! What a caller asks for, checked: an [`Order`] that exists is fit to be recorded and sent.

use crate::address;
use crate::amount::Amount;
use crate::coin::{Chain, Currency};

/// One `(pid, third_party_id)`: the key under which at most one payout exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The Cregis project.
    pub pid: i64,
    /// The caller's id.
    pub third_party_id: String,
}

/// A payout as asked for. Every field obeys the rules that [`Order::check`] enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The key it is paid under.
    pub key: Key,
    /// The coin.
    pub currency: Currency,
    /// The recipient, exactly as asked.
    pub address: String,
    /// How much; compared by value.
    pub amount: Amount,
    /// Text for Cregis's records, or empty.
    pub remark: String,
    /// Destination tag without leading zeros, or comment, or empty.
    pub memo: String,
    /// Where the caller wants Cregis's notices, or empty.
    pub callback_url: String,
}

/// The same, as it arrives: text that nobody has looked at.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The project; already resolved.
    pub pid: i64,
    /// Becomes [`Order::currency`].
    pub currency: String,
    /// Becomes [`Order::address`].
    pub address: String,
    /// Becomes [`Order::amount`].
    pub amount: String,
    /// Becomes the key's id.
    pub third_party_id: String,
    /// Becomes [`Order::callback_url`].
    pub callback_url: String,
    /// Becomes [`Order::remark`].
    pub remark: String,
    /// Becomes [`Order::memo`].
    pub memo: String,
}

/// A field that breaks a rule, and the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The request's field.
    pub field: &'static str,
    /// What it must be; never what it was.
    pub rule: String,
}

impl Violation {
    /// A violation of `rule` by `field`.
    pub fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }
}

/// Names of signed parameters. Text that contains one can make two messages share a signature.
const SIGNED_NAMES: &[&str] = &[
    "address",
    "amount",
    "block_height",
    "block_time",
    "callback_url",
    "chain_id",
    "cid",
    "currency",
    "from_address",
    "memo",
    "nonce",
    "pid",
    "remark",
    "sign",
    "status",
    "third_party_id",
    "timestamp",
    "to_address",
    "token_id",
    "txid",
    "wallet_id",
];

impl Order {
    /// Checks every field of `draft`, the amount by the published decimals of its coin.
    ///
    /// `strict_text` also refuses free text that contains the name of a signed parameter.
    ///
    /// # Errors
    /// All violations together, in the request's field order.
    pub fn check(draft: Draft, strict_text: bool) -> Result<Self, Vec<Violation>> {
        let (order, late) = Self::examine(draft, strict_text, Currency::decimals)?;
        late.map_or(Ok(order), |violation| Err(vec![violation]))
    }

    /// As [`Order::check`], with `decimals` telling those of a coin. These can change, and the rules for
    /// addresses became stricter over time: where nothing else is wrong than an amount that is too fine
    /// or an address, the order comes with that violation, since an id that is recorded is answered all
    /// the same.
    ///
    /// # Errors
    /// All violations together, in the request's field order.
    pub fn examine(
        draft: Draft,
        strict_text: bool,
        decimals: impl FnOnce(&Currency) -> Option<usize>,
    ) -> Result<(Self, Option<Violation>), Vec<Violation>> {
        let mut violations = Vec::new();
        let mut refuse = |field, rule: String| violations.push(Violation { field, rule });

        let currency = Currency::parse(&draft.currency);
        if currency.is_none() {
            refuse("currency", "must be chain_id@token_id, such as 195@195".into());
        }
        let chain = currency.as_ref().map_or(Chain::Other, Currency::chain);
        let objection = |currency: &Currency| address::objection(currency, &draft.address);
        let decimals = currency.as_ref().and_then(decimals);

        let mut may_be_recorded = false;
        let printable = !draft.address.is_empty()
            && draft.address.len() <= 128
            && draft.address.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable {
            refuse("address", "must be 1 to 128 printable ASCII characters without blanks".into());
        } else if let Some(rule) = currency.as_ref().and_then(objection) {
            refuse("address", rule.into());
            may_be_recorded = true;
        }

        let amount = Amount::parse(&draft.amount);
        match &amount {
            Err(invalid) => refuse("amount", invalid.to_string()),
            Ok(amount) => {
                if let Some(rule) = too_fine(amount, decimals) {
                    refuse("amount", rule);
                    may_be_recorded = true;
                }
            }
        }

        if !id_fits(&draft.third_party_id) {
            refuse("third_party_id", "must match [A-Za-z0-9_-]{1,64}".into());
        }
        if let Err(rule) = callback_url_fits(&draft.callback_url) {
            refuse("callback_url", rule.into());
        }
        if let Err(rule) = text_fits(&draft.remark) {
            refuse("remark", rule.into());
        }
        if let Err(rule) = memo_fits(chain, &draft.memo) {
            refuse("memo", rule.into());
        }
        if strict_text {
            let texts = [
                ("third_party_id", &draft.third_party_id),
                ("remark", &draft.remark),
                ("memo", &draft.memo),
            ];
            for (field, text) in texts {
                if SIGNED_NAMES.iter().any(|name| text.contains(name)) {
                    let rule = "must not contain the name of a signed parameter (strict_text)";
                    refuse(field, rule.into());
                }
            }
        }

        may_be_recorded &= violations.len() == 1;
        match (currency, amount) {
            (Some(currency), Ok(amount)) if violations.is_empty() || may_be_recorded => {
                let order = Self {
                    key: Key { pid: draft.pid, third_party_id: draft.third_party_id },
                    currency,
                    address: draft.address,
                    amount,
                    remark: draft.remark,
                    memo: canonical_memo(chain, draft.memo),
                    callback_url: draft.callback_url,
                };
                Ok((order, violations.pop()))
            }
            _ => Err(violations),
        }
    }

    /// Names the fields in which `other` differs; empty means the same payout is asked for. Coins,
    /// addresses, amounts and tags are compared by meaning, whatever their spelling.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let fields = [
            ("currency", !self.currency.is(other.currency.chain_id(), other.currency.token_id())),
            ("address", !self.pays_to(&other.address)),
            ("amount", self.amount != other.amount),
            ("memo", !self.has_memo(&other.memo)),
            ("remark", self.remark != other.remark),
            ("callback_url", self.callback_url != other.callback_url),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Tells whether `address` is the recipient, as the chain reads it.
    pub fn pays_to(&self, address: &str) -> bool {
        address::same(self.currency.chain(), &self.address, address)
    }

    /// Tells whether `memo` is this order's: a tag of the XRP Ledger by its number, anything else letter
    /// by letter. Ledgers from before tags were made canonical hold some with leading zeros.
    pub fn has_memo(&self, memo: &str) -> bool {
        // Some libraries print every JSON number with a fraction.
        let is_zero = |(_, digits): &(&str, &str)| digits.bytes().all(|digit| digit == b'0');
        let digits = memo.split_once('.').filter(is_zero).map_or(memo, |(whole, _)| whole);
        let same_tag = || tag(digits).is_some_and(|it| Some(it) == tag(&self.memo));
        self.memo == memo || self.currency.chain() == Chain::Xrp && same_tag()
    }
}

/// The number that a tag of the XRP Ledger is: below 2^32 - 1, in at most ten digits.
fn tag(memo: &str) -> Option<u32> {
    let digits = memo.len() <= 10 && memo.bytes().all(|byte| byte.is_ascii_digit());
    memo.parse().ok().filter(|tag| digits && *tag < u32::MAX)
}

/// The rule that `amount` breaks in a coin of at most `decimals`, if it does and they are known.
pub fn too_fine(amount: &Amount, decimals: Option<usize>) -> Option<String> {
    let most = decimals.filter(|most| amount.decimals() > *most)?;
    Some(format!("must have at most {most} decimals in this coin"))
}

/// Tells whether `id` can be a caller's id.
pub fn id_fits(id: &str) -> bool {
    matches!(id.len(), 1..=64)
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn callback_url_fits(url: &str) -> Result<(), &'static str> {
    const RULE: &str = "must be an absolute http or https URL of at most 512 ASCII characters";
    if url.is_empty() {
        return Ok(());
    }
    // The parser forgives blanks and control characters; what is passed on verbatim must not.
    if url.len() > 512 || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RULE);
    }
    match url::Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(()),
        Ok(_) | Err(_) => Err(RULE),
    }
}

/// Blank text is refused because the vendor's own code disagrees on whether it is signed.
fn text_fits(text: &str) -> Result<(), &'static str> {
    if text.chars().count() > 256 {
        Err("must be at most 256 characters")
    } else if text.chars().any(char::is_control) {
        Err("must not contain control characters")
    } else if !text.is_empty() && text.trim().is_empty() {
        Err("must not be only blanks")
    } else {
        Ok(())
    }
}

fn memo_fits(chain: Chain, memo: &str) -> Result<(), &'static str> {
    match chain {
        _ if memo.is_empty() => Ok(()),
        Chain::Ton => text_fits(memo),
        Chain::Xrp => tag(memo).map(|_| ()).ok_or("must be digits below 4294967295 for XRP"),
        Chain::Bitcoin { .. }
        | Chain::BitcoinCash
        | Chain::Evm
        | Chain::Tron
        | Chain::Solana
        | Chain::Filecoin
        | Chain::Sui
        | Chain::Other => Err("is for TON and XRP only"),
    }
}

/// One spelling for one tag: what is recorded, signed and sent.
fn canonical_memo(chain: Chain, memo: String) -> String {
    match tag(&memo) {
        Some(tag) if chain == Chain::Xrp => tag.to_string(),
        Some(_) | None => memo,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::draft;

    fn bad_fields(draft: Draft) -> Vec<&'static str> {
        let violations = Order::check(draft, false).expect_err("a violation");
        violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn a_good_order_keeps_its_text_and_the_amount_becomes_canonical() {
        let order = Order::check(draft(), false).expect("good");
        assert_eq!(order.amount.as_str(), "1.1");
        assert_eq!(order.key, Key { pid: 1, third_party_id: "id".into() });
    }

    #[test]
    fn all_violations_are_reported_together() {
        let bad = Draft {
            pid: 1,
            currency: "TRX".into(),
            address: "with blank".into(),
            amount: "-1".into(),
            third_party_id: "a b".into(),
            callback_url: "ftp://host".into(),
            remark: "a\u{7}".into(),
            memo: "1".into(),
        };
        let all =
            ["currency", "address", "amount", "third_party_id", "callback_url", "remark", "memo"];
        assert_eq!(bad_fields(bad), all);
    }

    #[test]
    fn each_rule_refuses_its_field_and_no_other() {
        type Change = fn(&mut Draft);
        let rows: &[(&str, Change)] = &[
            ("currency", |d| d.currency = String::new()),
            ("address", |d| d.address = String::new()),
            ("address", |d| d.address = "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FT".into()),
            ("address", |d| d.address = "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FＳ".into()),
            ("amount", |d| d.amount = "1.1234567".into()),
            ("amount", |d| d.amount = "0".into()),
            ("third_party_id", |d| d.third_party_id = String::new()),
            ("third_party_id", |d| d.third_party_id = "x".repeat(65)),
            ("third_party_id", |d| d.third_party_id = "a:b".into()),
            ("callback_url", |d| d.callback_url = "/relative".into()),
            ("callback_url", |d| d.callback_url = " https://a.example".into()),
            ("callback_url", |d| d.callback_url = format!("https://a.example/{}", "x".repeat(512))),
            ("remark", |d| d.remark = "x".repeat(257)),
            ("remark", |d| d.remark = " ".into()),
            ("memo", |d| d.memo = "7".into()),
        ];
        for (number, (field, change)) in rows.iter().enumerate() {
            let mut bad = draft();
            change(&mut bad);
            assert_eq!(bad_fields(bad), [*field], "row {number}");
        }
        let longest = Draft { remark: "提".repeat(256), ..draft() };
        assert!(Order::check(longest, false).is_ok(), "256 characters, not bytes");
    }

    #[test]
    fn an_amount_that_is_only_too_fine_leaves_the_rest_of_the_order_standing() {
        let fine = Draft { amount: "1.123".into(), ..draft() };
        let in_coin = |decimals| Order::examine(fine.clone(), false, |_| decimals).expect("read").1;
        assert_eq!(in_coin(Some(2)).map(|violation| violation.field), Some("amount"));
        assert_eq!((in_coin(Some(3)), in_coin(None)), (None, None));
        let bad = Draft { remark: " ".into(), ..fine.clone() };
        assert_eq!(Order::examine(bad, false, |_| Some(2)).expect_err("both").len(), 2);
    }

    #[test]
    fn a_memo_is_a_tag_on_xrp_and_text_on_ton() {
        let with = |currency: &str, address: &str, memo: &str| {
            let draft = Draft {
                currency: currency.into(),
                address: address.into(),
                memo: memo.into(),
                ..draft()
            };
            Order::check(draft, false).is_ok()
        };
        let xrp = "rn5Jyu5J6PG64543KdGvS25rQBYFQo7GLc";
        assert!(with("144@144", xrp, "0") && with("144@144", xrp, "4294967294"));
        for bad in ["4294967295", "-1", "+1", "1a", "99999999999999999999", "00000000001", " 1"] {
            assert!(!with("144@144", xrp, bad), "{bad:?}");
        }
        let ton = "EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_sDs";
        assert!(with("2000@2000", ton, "any text") && !with("2000@2000", ton, "a\nb"));
    }

    #[test]
    fn strict_text_refuses_the_names_of_signed_parameters() {
        let draft = Draft { remark: "refund amount".into(), ..draft() };
        assert!(Order::check(draft.clone(), false).is_ok(), "off by default");
        let violations = Order::check(draft, true).expect_err("strict");
        assert_eq!(violations[0].field, "remark");
    }

    #[test]
    fn differences_are_named_and_amounts_compare_by_value() {
        let order = Order::check(draft(), false).expect("good");
        let same = Order::check(Draft { amount: "1.100".into(), ..draft() }, false).expect("good");
        assert!(order.differences(&same).is_empty());
        let other = Order {
            remark: "x".into(),
            callback_url: "https://a.example".into(),
            memo: "1".into(),
            address: "y".into(),
            amount: Amount::parse("2").expect("good"),
            currency: Currency::parse("60@60").expect("good"),
            ..same
        };
        let all = ["currency", "address", "amount", "memo", "remark", "callback_url"];
        assert_eq!(order.differences(&other), all);
    }
}
