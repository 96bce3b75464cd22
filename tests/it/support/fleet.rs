//! Several services over one database.

use std::net::SocketAddr;
use std::time::Duration;

use payoutd::config::{Config, Ledger};
use payoutd::pb;
use payoutd::pb::operator_service_client::OperatorServiceClient;
use tempfile::TempDir;
use tonic::Status;

use super::proxy::Proxy;
use super::{Client, Database, Service, Upstream, within};

/// Replicas in this process, a sandbox, and the database between them.
pub(crate) struct Fleet {
    pub(crate) upstream: Upstream,
    pub(crate) database: Database,
    pub(crate) services: Vec<Service>,
    pub(crate) clients: Vec<Client>,
    _folder: TempDir,
}

impl Fleet {
    pub(crate) async fn start(replicas: usize) -> Self {
        Self::with(replicas, |_| {}).await
    }

    pub(crate) async fn with(replicas: usize, change: impl Fn(&mut Config)) -> Self {
        let (upstream, database) = (Upstream::start().await, Database::new().await);
        let folder = tempfile::tempdir().expect("a folder");
        let (mut services, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..replicas {
            let mut config = super::config(upstream.address, folder.path().join("none"));
            config.ledger = database.ledger();
            change(&mut config);
            let service = Service::start(config).await;
            clients.push(service.client().await);
            services.push(service);
        }
        Self { upstream, database, services, clients, _folder: folder }
    }

    /// Asks the replica `number` for `request`.
    pub(crate) async fn create(
        &self,
        number: usize,
        request: pb::CreatePayoutRequest,
    ) -> Result<pb::Payout, Status> {
        let answer = within(self.clients[number].clone().create_payout(request)).await?;
        Ok(answer.into_inner().payout.expect("a payout"))
    }

    /// Pauses or resumes all projects by way of the replica `number`.
    pub(crate) async fn set_intake(&self, number: usize, paused: bool) {
        let address = format!("http://{}", self.services[number].addresses.grpc);
        let mut operator = OperatorServiceClient::connect(address).await.expect("connected");
        let request = pb::SetIntakeRequest { pid: 0, paused, note: "why".to_owned() };
        within(operator.set_intake(request)).await.expect("OK");
    }

    /// How often `id` was sent.
    pub(crate) fn posts(&self, id: &str) -> usize {
        let posts = self.upstream.book.posts();
        posts.iter().filter(|post| post.third_party_id.as_deref() == Some(id)).count()
    }
}

/// The ledger of `database` by way of a wire that can be held and cut; short leases.
pub(crate) async fn wired(database: &Database) -> (Proxy, Ledger) {
    let mut shared = database.shared();
    let (host, port) = (&shared.database.get_hosts()[0], shared.database.get_ports()[0]);
    let server: SocketAddr = match host {
        tokio_postgres::config::Host::Tcp(host) => {
            format!("{host}:{port}").parse().expect("an address")
        }
        tokio_postgres::config::Host::Unix(path) => panic!("a socket: {}", path.display()),
    };
    let proxy = Proxy::start(server).await;
    let mut database = tokio_postgres::Config::new();
    database.host("127.0.0.1").port(proxy.address.port());
    database.user(shared.database.get_user().expect("a user"));
    database.dbname(shared.database.get_dbname().expect("a name"));
    database.options(shared.database.get_options().expect("a schema"));
    database.ssl_mode(tokio_postgres::config::SslMode::Disable);
    shared.database = database;
    shared.lease = Duration::from_secs(4);
    (proxy, Ledger::Shared(Box::new(shared)))
}
