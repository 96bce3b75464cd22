//! What the checker needs of a PostgreSQL ledger.

use std::collections::BTreeMap;

use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::support::checker::{Account, Row, Step};

/// Every payout and every account, as of one moment.
pub(super) async fn read(shell: &mut Client) -> (BTreeMap<String, Row>, Vec<Account>) {
    let snapshot = shell.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let snapshot = snapshot.start().await.expect("a snapshot");
    (rows(&snapshot).await, accounts(&snapshot).await)
}

async fn rows(db: &Transaction<'_>) -> BTreeMap<String, Row> {
    let select = "SELECT payout, revision, state, reason, cid FROM event ORDER BY payout, revision";
    let mut histories: BTreeMap<i64, Vec<Step>> = BTreeMap::new();
    for row in db.query(select, &[]).await.expect("events") {
        let (state, reason) = (row.get(2), row.get(3));
        let step = Step { revision: row.get(1), state, reason, cid: row.get(4) };
        histories.entry(row.get(0)).or_default().push(step);
    }
    let select =
        "SELECT third_party_id, state, reason, cid, currency, address, amount, id FROM payout";
    let rows = db.query(select, &[]).await.expect("payouts");
    let rows = rows.into_iter().map(|row| {
        let history = histories.remove(&row.get(7)).unwrap_or_default();
        let order = (row.get(4), row.get(5), row.get(6));
        let (state, reason, cid) = (row.get(1), row.get(2), row.get(3));
        (row.get(0), Row { state, reason, cid, order, history })
    });
    rows.collect()
}

/// What is kept as spent beside what the payouts come to; a day is 86,400 million microseconds.
async fn accounts(db: &Transaction<'_>) -> Vec<Account> {
    let select = "
        WITH due AS (
            SELECT coalesce(sender, caller) AS caller, currency, send_time / 86400000000 AS day,
                sum(amount::numeric) AS total
            FROM payout
            WHERE coalesce(sender, caller) <> '' AND state IN ('SENDING', 'IN_DOUBT', 'ACCEPTED', 'SUCCEEDED')
            GROUP BY coalesce(sender, caller), currency, send_time / 86400000000)
        SELECT caller || ' ' || currency || ' ' || day,
            trim_scale(coalesce(spend.total, 0))::text, trim_scale(coalesce(due.total, 0))::text
        FROM spend FULL JOIN due USING (caller, currency, day)";
    let rows = db.query(select, &[]).await.expect("accounts");
    let account = |row: tokio_postgres::Row| {
        let (name, kept, sum) = (row.get(0), row.get(1), row.get(2));
        Account { name, kept, sum }
    };
    rows.into_iter().map(account).collect()
}
