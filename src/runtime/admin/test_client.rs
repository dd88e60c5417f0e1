//! A client of one admin connection for tests, in memory: writes any bytes in pieces of any size,
//! and reads all that comes back. No sockets and no threads.

use super::connection::{Limits, Questions, serve_on};
use super::site::{AdminState, Site};
use crate::engine::observe::counters::Counters;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::watch;

/// Bytes that either side can have underway.
const PIPE_BYTES: usize = 16 << 10;

/// What an engine that does nothing answers to `sent`, which arrives in pieces of `piece_bytes`,
/// on a connection for all questions or one for those about health.
pub(crate) fn answers(sent: &[u8], piece_bytes: usize, questions: Questions) -> Vec<u8> {
    let (_drain, drained) = watch::channel(None);
    let site = Site::new(AdminState {
        counters: Counters::new(1).0,
        cores: vec![0],
        drain: drained,
        readiness: Arc::default(),
        started: Instant::now(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let (client, server) = duplex(PIPE_BYTES);
    let serving = serve_on(server, Rc::new(site), Limits::default(), questions);
    runtime.expect("a runtime").block_on(async {
        let (mut from_server, mut to_server) = tokio::io::split(client);
        let sending = async {
            for piece in sent.chunks(piece_bytes.max(1)) {
                // The server may have had enough.
                if to_server.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = to_server.shutdown().await;
        };
        let reading = async {
            let mut received = Vec::new();
            // An error means that the server is gone; what came before counts.
            let _ = from_server.read_to_end(&mut received).await;
            received
        };
        tokio::join!(serving, sending, reading).2
    })
}
