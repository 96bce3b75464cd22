//! A wire between the service and its database that can be held and cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{any_port, within};

/// What the wire does with bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Hands on everything.
    Open,
    /// Holds a question that contains this, and all that follows on its connection.
    HoldsQuestion(String),
    /// Hands it on, and holds the answer.
    HoldsAnswer(String),
    /// Hands it on, and in place of the answer ends the connection, as a pooler does that has lost the server.
    LosesAnswer(String),
    /// Of the questions that contain one of these, hands on each so manieth and ends its connection: one
    /// at once, the next in place of the answer.
    Loses(&'static [&'static str], usize),
    /// Ends every connection.
    Cut,
}

/// Hands on every connection to `server` for as long as it lives.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    wire: Arc<watch::Sender<Wire>>,
    held: Arc<watch::Sender<usize>>,
    lost: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

/// What the connections share.
#[derive(Clone)]
struct Shared {
    /// Questions that were held, or that one of those that are lost is counted by.
    held: Arc<watch::Sender<usize>>,
    lost: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(any_port()).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let wire = Arc::new(watch::Sender::new(Wire::Open));
        let held = Arc::new(watch::Sender::new(0));
        let lost = Arc::<AtomicUsize>::default();
        let (wires, shared) =
            (Arc::clone(&wire), Shared { held: Arc::clone(&held), lost: Arc::clone(&lost) });
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, server, wires.subscribe(), shared.clone()));
            }
        });
        Self { address, wire, held, lost, _task: task }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.held.send_replace(0);
        self.wire.send_replace(wire);
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until it holds so much, or has lost it.
    pub(crate) async fn holds(&self, count: usize) {
        let mut held = self.held.subscribe();
        within(held.wait_for(|held| *held >= count)).await.expect("the proxy lives");
    }

    /// Ends every connection; new ones are served.
    pub(crate) async fn cut(&self) {
        self.set(Wire::Cut);
        // Whoever carries one holds a receiver.
        within(self.wire.closed()).await;
        self.set(Wire::Open);
    }
}

/// An ErrorResponse of the protocol's, in the words of a pooler.
const LOST: &[u8] = b"E\0\0\0\x27SFATAL\0VFATAL\0C08P01\0Mserver gone\0\0";

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    mut wire: watch::Receiver<Wire>,
    Shared { held, lost }: Shared,
) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let mut client = client;
    if *wire.borrow_and_update() == Wire::Cut {
        return;
    }
    let (mut question, mut answer) = ([0; 16 * 1024], [0; 16 * 1024]);
    let mut waits = false;
    loop {
        let handed = tokio::select! {
            biased;
            changed = wire.changed() => {
                waits = false;
                if changed.is_err() || *wire.borrow() == Wire::Cut {
                    return;
                }
                continue;
            }
            read = client.read(&mut question) => {
                let Ok(count @ 1..) = read else { return };
                let asked = &question[..count];
                let now = wire.borrow().clone();
                match now {
                    Wire::HoldsQuestion(text) if contains(asked, &text) => {
                        held.send_modify(|held| *held += 1);
                        // Until the wire changes; then it goes on, or everything ends.
                        if wire.changed().await.is_err() || *wire.borrow() == Wire::Cut {
                            return;
                        }
                    }
                    Wire::HoldsAnswer(text) if contains(asked, &text) => {
                        held.send_modify(|held| *held += 1);
                        waits = true;
                    }
                    Wire::LosesAnswer(text) if contains(asked, &text) => {
                        let handed = server.write_all(asked).await;
                        // It has come to its end there.
                        let _ = (handed, server.read(&mut answer).await);
                        held.send_modify(|held| *held += 1);
                        let _ = client.write_all(LOST).await;
                        return;
                    }
                    Wire::Loses(texts, every) if texts.iter().any(|text| contains(asked, text)) => {
                        let mut number = 0;
                        held.send_modify(|held| {
                            *held += 1;
                            number = *held;
                        });
                        if number % every == 0 {
                            lost.fetch_add(1, Ordering::Relaxed);
                            let handed = server.write_all(asked).await;
                            if handed.is_ok() && number / every % 2 == 0 {
                                tokio::select! {
                                    _ = server.read(&mut answer) => {}
                                    _ = wire.changed() => {}
                                }
                            }
                            return;
                        }
                    }
                    Wire::Open
                    | Wire::HoldsQuestion(_)
                    | Wire::HoldsAnswer(_)
                    | Wire::LosesAnswer(_)
                    | Wire::Loses(..)
                    | Wire::Cut => {}
                }
                server.write_all(&question[..count]).await
            }
            read = server.read(&mut answer), if !waits => {
                let Ok(count @ 1..) = read else { return };
                client.write_all(&answer[..count]).await
            }
        };
        if handed.is_err() {
            return;
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
