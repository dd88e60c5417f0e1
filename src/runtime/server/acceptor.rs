//! Accepts connections and assigns each to the worker with the fewest. Reads nothing from them.
//!
//! A connection for which no slot is free waits in its listener's queue, and its peer with it,
//! slowed down by TCP's own flow control. Only the first of the queue is accepted and held here.
//! It is refused when it has waited for `--admit-timeout` since it was established, and never
//! silently.

use super::refusal::Refusals;
use crate::config::ACCEPT_PAUSE;
use crate::engine::observe::counters::{Protocol, TallyWriter};
use crate::engine::stream::received::{Reason, Received};
use crate::runtime::clock;
use crate::runtime::connection::accepted::Accepted;
use crate::runtime::connection::quota::{Quota, Ticket};
use crate::runtime::connection::slots::{Slot, Slots};
use crate::runtime::failpoint::failpoint;
use crate::runtime::network::{self, AGE_TICK, BoundListener, Listener, NewSocket, closed_empty};
use crate::runtime::records::stream::Failure;
use crate::runtime::results::reporter::FinishedConnection;
use crate::runtime::tls::config::Certificates;
use crate::wire::messages::fault::Fault;
use crate::wire::schema::Schema;
use crate::wire::text::time_text;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

/// How often accepting is tried again when the time of a stopping engine is over.
const LAST_TRIES: u32 = 10;

/// The settings of a listener.
pub(crate) struct Door {
    /// The protocol of its connections.
    pub protocol: Protocol,
    /// The certificates; `None` without TLS.
    pub certificates: Option<Arc<Certificates>>,
}

/// What the acceptor needs.
pub(crate) struct Acceptor {
    /// The slots for connections.
    pub slots: Arc<Slots>,
    /// How many record connections the engine takes.
    pub quota: Arc<Quota>,
    /// How long a connection may wait for a slot.
    pub admit_timeout: Duration,
    /// Whether a connection that closed without a byte is reported.
    pub report_empty: bool,
    /// The workers' inboxes, by worker index.
    pub inboxes: Vec<mpsc::Sender<Accepted>>,
    /// Receives the reports of refused record connections.
    pub finished: mpsc::Sender<FinishedConnection>,
    /// Counts connections that never reach a worker.
    pub tally: TallyWriter,
    /// Holds an instant once the engine has been told to stop.
    pub drain: watch::Receiver<Option<Instant>>,
    /// The schema of the empty results of refused connections.
    pub schema: Arc<Schema>,
    /// Tells message clients that they are refused.
    pub refusals: Arc<Refusals>,
}

/// A connection that has been accepted and has no slot yet.
struct Newcomer {
    number: u64,
    stream: NewSocket,
    peer: SocketAddr,
    ticket: Option<Ticket>,
}

/// Why a connection gets no slot.
enum NoSlot {
    /// None became free in time.
    TimedOut,
    /// The engine is stopping.
    Stopping,
    /// The peer has closed without sending a byte, and needs none.
    Empty,
    /// The worker with the slot has died.
    NoWorker,
}

impl Acceptor {
    /// Accepts at every door until the engine drains. Then closes the listeners and the inboxes, so
    /// that the workers end once their connections have.
    ///
    /// # Errors
    /// If this thread's runtime cannot be created; then no connection has been accepted.
    pub(crate) fn run(self, doors: Vec<(BoundListener, Door)>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // All doors on this thread, the one that writes the acceptor's counters.
        LocalSet::new().block_on(&runtime, self.accept_at(doors))
    }

    /// The same in the current local set.
    pub(crate) async fn accept_at(self, doors: Vec<(BoundListener, Door)>) -> io::Result<()> {
        let acceptor = Rc::new(self);
        let mut tasks: JoinSet<io::Result<()>> = JoinSet::new();
        for (listener, door) in doors {
            tasks.spawn_local(Rc::clone(&acceptor).accept_all(listener, door));
        }
        while let Some(task) = tasks.join_next().await {
            task.map_err(io::Error::other)??;
        }
        Ok(())
    }

    async fn accept_all(self: Rc<Self>, listener: BoundListener, door: Door) -> io::Result<()> {
        let listener = Listener::from_std(listener)?;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stopping() => {
                    return self.take_in_waiting(listener.into_std()?, &door).await;
                }
                accepted = self.accept(&listener, &door) => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.take_in(&door, stream, peer).await,
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Takes in the record connections that wait in the queue of a listener that is about to close:
    /// their senders may have sent everything and gone. Those that came after the engine was told
    /// to stop are reset, as by the listener's end.
    async fn take_in_waiting(&self, listener: BoundListener, door: &Door) -> io::Result<()> {
        let told = clock::now();
        let mut tries_left = LAST_TRIES;
        if door.protocol == Protocol::Messages {
            return Ok(());
        }
        loop {
            let (stream, peer) = match network::accept_waiting(&listener) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    // The connections that have just ended give descriptors back.
                    if self.is_drained() {
                        if tries_left == 0 {
                            tracing::error!(
                                "connections that waited in the queue are reset without a report"
                            );
                            break;
                        }
                        tries_left -= 1;
                    }
                    pause_after(&error).await;
                    continue;
                }
            };
            if network::age(&stream) + AGE_TICK < clock::since(told) {
                network::reset_at_close(&stream);
                break;
            }
            self.take_in(door, stream, unmapped(peer)).await;
        }
        Ok(())
    }

    async fn accept(
        &self,
        listener: &Listener,
        door: &Door,
    ) -> io::Result<(NewSocket, SocketAddr)> {
        if door.protocol == Protocol::Records {
            self.quota.wait_for_one().await;
        }
        let (stream, peer) = network::accept(listener).await?;
        Ok((stream, unmapped(peer)))
    }

    /// Waits until the engine has been told to stop.
    async fn stopping(&self) {
        let mut drain = self.drain.clone();
        // Fails only if the engine is gone.
        let _ = drain.wait_for(Option::is_some).await;
    }

    /// Waits until the time that a stopping engine has is over.
    async fn drained(&self) {
        let mut drain = self.drain.clone();
        loop {
            let end = *drain.borrow_and_update();
            let over = async {
                match end {
                    Some(end) => clock::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = over => return,
                // The end may come nearer.
                changed = drain.changed() => if changed.is_err() { return },
            }
        }
    }

    fn is_drained(&self) -> bool {
        self.drain.borrow().is_some_and(|end| end <= clock::now())
    }

    async fn take_in(&self, door: &Door, stream: NewSocket, peer: SocketAddr) {
        failpoint("acceptor");
        let ticket = match door.protocol {
            // Another listener may have taken the last one since the quota was asked.
            Protocol::Records => tokio::select! {
                biased;
                ticket = self.quota.take() => Some(ticket),
                () = self.stopping() => return network::reset_at_close(&stream),
            },
            Protocol::Messages => None,
        };
        let newcomer = Newcomer { number: self.slots.next_number(), stream, peer, ticket };
        match self.admit(door, &newcomer).await {
            Ok(slot) => self.deal(door, newcomer, slot).await,
            Err(NoSlot::Empty) if !self.report_empty => {
                self.tally.add(|tally| &tally.empty[door.protocol as usize], 1);
            }
            Err(cause) => self.refuse(door, newcomer, &cause).await,
        }
    }

    /// A slot for the connection, which waits for it as long as it may.
    async fn admit(&self, door: &Door, newcomer: &Newcomer) -> Result<Slot, NoSlot> {
        if let Some(slot) = self.slots.take(door.protocol) {
            return Ok(slot);
        }
        if closed_empty(&newcomer.stream) {
            return Err(NoSlot::Empty);
        }
        let (tally, kind) = (&self.tally, door.protocol as usize);
        tally.add(|tally| &tally.admission_waits[kind], 1);
        let begun = clock::now();
        // It may have been in the queue for long.
        let age = network::age(&newcomer.stream);
        let left = self.admit_timeout.saturating_sub(age);
        let admitted = tokio::select! {
            biased;
            slot = self.slots.admit(door.protocol) => Ok(slot),
            () = self.drained() => Err(NoSlot::Stopping),
            // A client of the message server would be sent away at once.
            () = self.stopping(), if door.protocol == Protocol::Messages => Err(NoSlot::Stopping),
            () = clock::sleep(left) => Err(NoSlot::TimedOut),
        };
        tally.add(
            |tally| &tally.admission_wait_ns[kind],
            (age + clock::since(begun)).as_nanos() as u64,
        );
        match admitted {
            Err(_) if closed_empty(&newcomer.stream) => Err(NoSlot::Empty),
            admitted => admitted,
        }
    }

    async fn deal(&self, door: &Door, newcomer: Newcomer, slot: Slot) {
        let Newcomer { number, stream, peer, ticket } = newcomer;
        let worker = slot.worker();
        let tls = door.certificates.as_ref().map(|certificates| match door.protocol {
            Protocol::Records => certificates.current_for_senders(),
            Protocol::Messages => certificates.current(),
        });
        let accepted =
            Accepted { protocol: door.protocol, number, stream, peer, slot, tls, ticket };
        if let Err(SendError(accepted)) = self.inboxes[worker].send(accepted).await {
            let Accepted { number, stream, peer, ticket, .. } = accepted;
            let newcomer = Newcomer { number, stream, peer, ticket };
            self.refuse(door, newcomer, &NoSlot::NoWorker).await;
        }
    }

    async fn refuse(&self, door: &Door, newcomer: Newcomer, cause: &NoSlot) {
        let Newcomer { number, stream, peer, ticket } = newcomer;
        match door.protocol {
            Protocol::Records => {
                let received = Received::nothing(number, peer, clock::now());
                let received = self.describe(cause).of_stream(received);
                if !matches!(cause, NoSlot::Empty) {
                    network::reset_at_close(&stream);
                }
                drop(stream);
                ticket.into_iter().for_each(Ticket::count);
                let _ =
                    self.finished.send(FinishedConnection::refused(received, &self.schema)).await;
            }
            Protocol::Messages => {
                tracing::debug!(connection = number, %peer, "refused: no slot is free");
                match cause {
                    NoSlot::NoWorker => {
                        return self.tally.count_fault(Fault::InternalError);
                    }
                    NoSlot::TimedOut => self.tally.count_fault(Fault::ConnectionsLimit),
                    NoSlot::Stopping | NoSlot::Empty => return,
                }
                // A TLS client could not read the message.
                if door.certificates.is_none() {
                    self.refusals.tell(stream);
                }
            }
        }
    }

    fn describe(&self, cause: &NoSlot) -> Failure {
        let limit = time_text(self.admit_timeout);
        match cause {
            NoSlot::TimedOut => Failure::of(
                Reason::ConnectionsLimit,
                format_args!(
                    "no slot became free in {limit} (--admit-timeout, --max-streams, \
                     --max-connections); refused unread"
                ),
            ),
            NoSlot::Stopping => Failure::of(
                Reason::Shutdown,
                "the engine stopped before a slot was free; refused unread",
            ),
            NoSlot::Empty => {
                Failure::of(Reason::ClosedBeforeData, "closed by the peer before it had a slot")
            }
            NoSlot::NoWorker => Failure::bug("its worker has died; refused unread"),
        }
    }
}

/// The peer's own address: a listener of both families shows IPv4 addresses as `::ffff:a.b.c.d`.
fn unmapped(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, peer.port()),
        IpAddr::V6(_) => peer,
    }
}

/// Waits before accepting again if descriptors or memory ran out, because retrying at once would
/// spin. Other errors concern a single connection and need no pause.
async fn pause_after(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
        _ => {
            tracing::warn!(
                %error,
                "cannot accept: if descriptors ran out, raise the limit (ulimit -n) or lower \
                 --max-connections"
            );
            clock::sleep(ACCEPT_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_have_their_own_addresses() {
        for (seen, expected) in [
            ("[::ffff:127.0.0.1]:9", "127.0.0.1:9"),
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("[::1]:9", "[::1]:9"),
            // Neither a mapped address nor the scope of a link-local one is lost.
            ("[::127.0.0.1]:9", "[::127.0.0.1]:9"),
            ("[fe80::1%3]:9", "[fe80::1%3]:9"),
        ] {
            assert_eq!(unmapped(seen.parse().unwrap()), expected.parse().unwrap(), "{seen}");
        }
    }
}
