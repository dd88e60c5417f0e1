//! What the message connections of one worker share, in addition to the worker itself.

use super::gate::Gate;
use super::hub::Hub;
use super::peer::Peers;
use crate::runtime::worker::Worker;
use crate::wire::messages::session::Policy;
use std::rc::Rc;
use std::sync::Arc;

/// What the message connections of one worker share.
pub(crate) struct MessageShared {
    /// Their worker.
    pub worker: Rc<Worker>,
    /// The rules of every session.
    pub policy: Arc<Policy>,
    /// Checks credentials.
    pub gate: Arc<Gate>,
    /// Passes broadcasts to the clients of all workers.
    pub hub: Hub,
    /// The clients of this worker.
    pub peers: Rc<Peers>,
}
