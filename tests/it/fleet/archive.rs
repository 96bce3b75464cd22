//! What docs/scaling.md says about old rows: history may go, an id never.

use std::path::Path;
use std::time::Duration;

use payoutd::pb::PayoutState;
use payoutd::pb::watch_payout_request::Id;

use crate::support::fleet::Fleet;
use crate::support::{Service, get, order, told, watch_from, within};

/// The page's own statements, for payouts of any age.
fn recipe() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scaling.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, rest) = page.split_once("```sql\n").expect("a recipe");
    let (recipe, _) = rest.split_once("```").expect("its end");
    let any_age = recipe.replace("90 days", "0 days");
    assert_ne!(any_age, recipe, "the recipe says how old");
    let any = any_age.replace("- 1000", "- 1");
    assert_ne!(any, any_age, "the recipe leaves what witnesses look for");
    any
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn the_history_of_what_is_over_can_be_archived_and_its_id_is_still_known() {
    let soon = Duration::from_millis(100);
    let mut fleet = Fleet::with(2, |config| config.projects[0].poll_first = soon).await;
    let over = fleet.create(0, order("over")).await.expect("OK");
    let open = fleet.create(0, order("open")).await.expect("OK");
    fleet.upstream.book.set_status(over.cid, 6, false);
    let over = within(async {
        loop {
            let payout = get(&fleet.clients[0], "over").await.expect("known");
            if payout.state() == PayoutState::Succeeded {
                return payout;
            }
        }
    })
    .await;

    // What witnesses look for is younger by far; so nobody who remembers it runs here.
    fleet.clients.clear();
    let mut configs = Vec::new();
    for service in fleet.services.drain(..) {
        configs.push(service.stop().await);
    }
    let (shell, _driver) = fleet.database.shell().await;
    shell.batch_execute(&recipe()).await.expect("the recipe runs");
    for config in configs {
        let service = Service::start(config).await;
        fleet.clients.push(service.client().await);
        fleet.services.push(service);
    }
    let count = async |what: &str, id: &str| -> i64 {
        let select = format!(
            "SELECT count(*) FROM {what} AS event JOIN payout ON payout.id = event.payout
             WHERE third_party_id = $1"
        );
        shell.query_one(&select, &[&id]).await.expect("counted").get(0)
    };
    assert_eq!(count("event_archive", "over").await, over.revision - 1);
    assert_eq!(count("event", "over").await, 1, "the last one stays");
    assert_eq!(count("event_archive", "open").await, 0, "it is not over");

    // Both replicas know it, and nobody sends it.
    for replica in 0..2 {
        assert_eq!(fleet.create(replica, order("over")).await.expect("known"), over);
    }
    assert_eq!(fleet.posts("over"), 1);
    assert_eq!(get(&fleet.clients[1], "open").await.expect("known").cid, open.cid);
    // Whoever had seen the first revision hears how it ended, and that this is all.
    let id = Id::ThirdPartyId("over".to_owned());
    let mut watching = watch_from(&fleet.clients[1], id, 1).await.expect("OK");
    assert_eq!(told(&mut watching).await.expect("OK"), Some(over));
    assert_eq!(told(&mut watching).await.expect("OK"), None);

    let delete = "DELETE FROM payout WHERE third_party_id = 'over'";
    let refused = shell.execute(delete, &[]).await.expect_err("never");
    assert!(refused.as_db_error().is_some_and(|why| why.message().contains("is never done")));
}
