//! Creates the messages of a load run and checks delivered broadcasts. Matching answers with
//! requests, and checking them, is left to the session.

use super::settings::Traffic;
use crate::client::messages::session::{ClientSession, Unsendable};
use crate::wire::messages::payload::Request;

/// Bytes at the start of a payload, if it is long enough, that differ from message to message.
const STAMP_BYTES: usize = 8;

/// Makes the messages of one thread.
#[derive(Debug)]
pub(crate) struct MessageSource {
    traffic: Traffic,
    /// Sent in every message; its stamp is overwritten each time.
    payload: Vec<u8>,
    /// Number of messages made so far.
    made: u64,
}

impl MessageSource {
    /// A source of messages with `payload_bytes` bytes of payload, the same in every thread.
    pub(crate) fn new(traffic: Traffic, payload_bytes: usize) -> Self {
        // Printable, so that the body of a DATA is not a valid length of record packets.
        let mut random = fastrand::Rng::with_seed(1);
        let payload = (0..payload_bytes).map(|_| random.alphanumeric() as u8).collect();
        MessageSource { traffic, payload, made: 0 }
    }

    /// Appends the next message to a session. `number` counts the connection's messages and is the
    /// sequence of a DATA. `sent_ns` is the stamp of a BROADCAST and the tag of any other message.
    #[inline]
    pub(crate) fn send(
        &mut self,
        session: &mut ClientSession,
        number: u64,
        sent_ns: u64,
    ) -> Result<(), Unsendable> {
        self.made += 1;
        let stamp = match self.traffic {
            Traffic::Broadcast => sent_ns,
            _ => self.made,
        };
        let stamp = stamp.to_be_bytes();
        if let Some(place) = self.payload.first_chunk_mut()
            && self.traffic != Traffic::Data
        {
            *place = stamp;
        }
        let request = match self.traffic {
            Traffic::Ping => Request::Ping(&stamp),
            Traffic::Echo => Request::Echo(&self.payload),
            Traffic::Data => Request::Data { sequence: number as u32, body: &self.payload },
            Traffic::Broadcast => Request::Broadcast(&self.payload),
        };
        session.send(request, sent_ns)
    }

    /// Checks that a BROADCAST belongs to this run. Returns when it was sent, if the payload is
    /// long enough to say.
    #[inline]
    pub(crate) fn check_delivery(&self, payload: &[u8]) -> Result<Option<u64>, Foreign> {
        match (payload.split_first_chunk(), self.payload.get(STAMP_BYTES..)) {
            (Some((stamp, rest)), Some(expected)) if rest == expected => {
                Ok(Some(u64::from_be_bytes(*stamp)))
            }
            (None, None) if payload == self.payload => Ok(None),
            _ => Err(Foreign),
        }
    }
}

/// A BROADCAST with content that this run does not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::frame;

    fn payload_of(messages: &mut MessageSource, sent_ns: u64) -> Vec<u8> {
        let mut session = ClientSession::default();
        messages.send(&mut session, 5, sent_ns).unwrap();
        frame::decode(session.outbox()).unwrap().unwrap().payload.to_vec()
    }

    #[test]
    fn no_two_messages_are_alike_where_there_is_room() {
        for traffic in [Traffic::Ping, Traffic::Echo] {
            let mut messages = MessageSource::new(traffic, 20);
            assert_ne!(payload_of(&mut messages, 0), payload_of(&mut messages, 0));
        }
        let mut data = MessageSource::new(Traffic::Data, 20);
        let payload = payload_of(&mut data, 0);
        assert_eq!((&payload[..4], payload.len()), (&[0, 0, 0, 5][..], 24));
        assert!(payload[4..].is_ascii());
    }

    #[test]
    fn deliveries_are_checked_to_the_last_byte() {
        for bytes in [0, 7, 8, 9, 100] {
            let mut sender = MessageSource::new(Traffic::Broadcast, bytes);
            let receiver = MessageSource::new(Traffic::Broadcast, bytes);
            let mut payload = payload_of(&mut sender, 0x0123_4567_89AB_CDEF);
            let sent = (bytes >= 8).then_some(0x0123_4567_89AB_CDEF);
            assert_eq!(receiver.check_delivery(&payload), Ok(sent));
            payload.push(0);
            assert_eq!(receiver.check_delivery(&payload), Err(Foreign));
            payload.pop();
            if let Some(last) = payload.last_mut()
                && bytes != 8
            {
                *last ^= 1;
                assert_eq!(receiver.check_delivery(&payload), Err(Foreign));
            }
        }
    }
}
