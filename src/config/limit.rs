//! `[[caller.limit]]`: how much of a currency a caller may spend.

use toml::Value;

use super::reader::{Mistakes, Section, tables, text};
use crate::amount::Amount;
use crate::coin::Currency;
use crate::policy::Limit;

impl Limit {
    pub(super) fn read_all(value: Option<Value>, path: &str, mistakes: &mut Mistakes) -> Vec<Self> {
        let mut limits: Vec<Self> = Vec::new();
        for (path, table) in tables(value, path, "caller.limit", mistakes) {
            let bounded = table.contains_key("per_payout") || table.contains_key("per_day");
            let mut section = Section::new(table, &path, mistakes);
            if !bounded {
                section.mistake("per_day", "is required (or per_payout)");
            }
            let currency = section.require("currency", |value| {
                Currency::parse(&text(value)?).ok_or("chain_id@token_id, such as 195@195")
            });
            let per_payout = section.optional("per_payout", amount);
            let per_day = section.optional("per_day", amount);
            if limits.iter().any(|known| Some(&known.currency) == currency.as_ref()) {
                section.mistake("currency", "stands twice");
            }
            section.end();
            limits.extend(currency.map(|currency| Self { currency, per_payout, per_day }));
        }
        limits
    }
}

fn amount(value: &Value) -> Result<Amount, &'static str> {
    Amount::parse(&text(value)?).map_err(|_| "a decimal text above 0, such as \"250.5\"")
}
