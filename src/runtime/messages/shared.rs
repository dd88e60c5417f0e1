//! What the message connections of one worker share.

use super::gate::Gate;
use super::hub::Hub;
use super::peer::Peers;
use crate::runtime::connection::deadlines::Deadlines;
use crate::runtime::records::stream::Streams;
use crate::runtime::ring::Buffers;
use crate::wire::messages::session::Policy;
use std::rc::Rc;
use std::sync::Arc;

/// What the message connections of one worker share.
pub(crate) struct MessageShared {
    /// What record streams share, including those within DATA.
    pub streams: Rc<Streams>,
    /// The worker's registered windows.
    pub buffers: Rc<Buffers>,
    /// The worker's timer.
    pub deadlines: Rc<Deadlines>,
    /// The rules of every session.
    pub policy: Arc<Policy>,
    /// Checks credentials.
    pub gate: Arc<Gate>,
    /// Passes broadcasts to the clients of all workers.
    pub hub: Hub,
    /// The clients of this worker.
    pub peers: Rc<Peers>,
}
