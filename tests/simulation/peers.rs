//! The peers of a world: what each sends and expects. They judge nothing; what they saw is left to
//! the oracle.

use crate::line::{PeerLine, SealedBytes, TlsManner};
use crate::model::Form;
use crate::scenario::{PeerKind, PeerPlan};
use fastrand::Rng;
use ringest::internals::simulation::{Dialer, LineWitness, VirtualSleep, note, now};
use ringest::protocol::frame::{FrameType, decode, encode};
use std::net::SocketAddr;
use std::time::Duration;

/// Packets after which a flood gives up: far more than any memory of a world has room for.
const FLOOD_PACKETS: u32 = 20_000;

/// DATA that a peer sent.
#[derive(Clone, Debug)]
pub struct SentData {
    pub sequence: u32,
    pub records: Vec<Vec<u8>>,
    pub acknowledged: bool,
}

/// What a peer saw and did.
#[derive(Clone, Debug)]
pub struct PeerStory {
    pub plan: PeerPlan,
    pub address: SocketAddr,
    /// When it connected; `None` if nobody listened.
    pub connected: Option<Duration>,
    pub line: Option<LineWitness>,
    /// What it has sent through TLS, if it speaks that.
    pub sealed: Option<SealedBytes>,
    /// Whether it has sent all that it meant to, and ended its side properly.
    pub finished: bool,
    /// Whether it broke off itself.
    pub broke_off: bool,
    pub data: Vec<SentData>,
    /// The longest that an answer took, and how many came.
    pub slowest_answer: Duration,
    pub answers: u64,
    /// Answers that were due and did not come while the connection lasted.
    pub unanswered: u64,
    /// ERRORs that came.
    pub errors: u64,
    pub ended: Duration,
}

struct Client<'a> {
    line: &'a PeerLine,
    received: Vec<u8>,
}

fn frame(kind: FrameType, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(kind, parts, &mut out);
    out
}

async fn pause(rng: &mut Rng, longest_ms: u64) {
    VirtualSleep::of(Duration::from_micros(rng.u64(0..=1000 * longest_ms))).await;
}

/// Connects and acts; returns what it saw.
pub async fn live(
    plan: PeerPlan,
    form: &'static Form,
    dialer: Dialer,
    idle_timeout: Duration,
) -> PeerStory {
    let address = SocketAddr::from(([10, 0, 0, 1], 1000 + plan.number as u16));
    let mut story = PeerStory {
        plan,
        address,
        connected: None,
        line: None,
        sealed: None,
        finished: false,
        broke_off: false,
        data: Vec::new(),
        slowest_answer: Duration::ZERO,
        answers: 0,
        unanswered: 0,
        errors: 0,
        ended: Duration::ZERO,
    };
    VirtualSleep::until(plan.start).await;
    let Some(end) = dialer.connect(address, plan.quality) else {
        note(format_args!("{address} finds nobody"));
        return story;
    };
    story.connected = Some(now());
    let line = PeerLine::new(end, TlsManner::of(&plan));
    story.line = Some(line.witness());
    let mut rng = Rng::with_seed(plan.seed);
    if !line.shake_hands().await {
        note(format_args!("{address} could not shake hands"));
    } else if plan.kind.is_message_client() {
        converse(&mut story, &line, form, &mut rng, idle_timeout).await;
    } else {
        stream(&mut story, &line, form, &mut rng, idle_timeout).await;
    }
    story.sealed = line.sealed();
    drop(line);
    story.ended = now();
    note(format_args!("{address} {:?} is done, finished: {}", plan.kind, story.finished));
    story
}

/// The bytes of a stream: packets of records, without its end.
fn packets(form: &Form, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..=12) {
        let records: Vec<_> = (0..rng.usize(1..=20)).map(|_| form.record(rng)).collect();
        bytes.extend(form.packet(&records));
    }
    bytes
}

/// A packet of records, each of a group that no record before it has.
fn new_groups(form: &Form, rng: &mut Rng, packet: u32) -> Vec<Vec<u8>> {
    let records = rng.u32(1..=100);
    (0..records).map(|number| form.record_of_group(rng, 100 * packet + number)).collect()
}

async fn flood(line: &PeerLine, form: &'static Form, rng: &mut Rng) {
    for packet in 0..FLOOD_PACKETS {
        if line.send(&form.packet(&new_groups(form, rng, packet))).await.is_err() {
            return;
        }
    }
}

async fn stream(
    story: &mut PeerStory,
    line: &PeerLine,
    form: &'static Form,
    rng: &mut Rng,
    idle_timeout: Duration,
) {
    let mut bytes = packets(form, rng);
    let part = rng.usize(1..=bytes.len());
    let mut write = rng.choice([usize::MAX, 3000, 271]).unwrap();
    let mut wait_ms = *rng.choice(&[0, 1, 30]).unwrap();
    match story.plan.kind {
        PeerKind::Empty => {
            pause(rng, 500).await;
            return;
        }
        PeerKind::Flood => return flood(line, form, rng).await,
        PeerKind::SteadySender => {}
        PeerKind::RightSender => bytes.extend(form.end()),
        PeerKind::WitnessSender => {
            bytes.extend(form.end());
            wait_ms = 1;
        }
        PeerKind::Talkative => {
            bytes.extend(form.end());
            bytes.extend((0..rng.usize(1..500)).map(|_| rng.u8(..)));
        }
        PeerKind::Liar => {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
            bytes.extend((0..rng.usize(1..900)).map(|_| rng.u8(..)));
        }
        PeerKind::Trickler => {
            bytes.truncate(300);
            (write, wait_ms) = (rng.usize(1..=30), 200);
        }
        _ => bytes.truncate(part),
    }
    if story.plan.kind == PeerKind::SteadySender {
        for _ in 0..rng.usize(5..30) {
            let records: Vec<_> = (0..rng.usize(1..=3)).map(|_| form.record(rng)).collect();
            if line.send(&form.packet(&records)).await.is_err() {
                return;
            }
            VirtualSleep::of(Duration::from_millis(rng.u64(50..500))).await;
        }
        bytes = form.end();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let now = rest.len().min(write);
        if line.send(&rest[..now]).await.is_err() {
            return;
        }
        rest = &rest[now..];
        if wait_ms > 0 {
            pause(rng, wait_ms).await;
        }
    }
    match story.plan.kind {
        PeerKind::Silent => {
            VirtualSleep::of(3 * idle_timeout).await;
            story.broke_off = true;
        }
        PeerKind::ResetInStream => {
            story.broke_off = true;
            line.reset();
        }
        PeerKind::RightSender
        | PeerKind::SteadySender
        | PeerKind::WitnessSender
        | PeerKind::Talkative => {
            // Where closing ends a stream, it must be closed properly.
            story.finished = form.zero_record || !line.is_rude();
            line.finish().await;
            // Until the engine closes as well.
            while line.receive(100).await.is_ok_and(|bytes| !bytes.is_empty()) {}
        }
        _ => story.broke_off = true,
    }
}

impl Client<'_> {
    async fn send(&mut self, kind: FrameType, parts: &[&[u8]]) -> bool {
        self.line.send(&frame(kind, parts)).await.is_ok()
    }

    /// The next frame; `None` at the end of the connection.
    async fn next(&mut self) -> Option<(FrameType, Vec<u8>)> {
        loop {
            if let Ok(Some(frame)) = decode(&self.received) {
                let found = (frame.kind, frame.payload.to_vec());
                let bytes = frame.payload.len() + ringest::protocol::frame::OVERHEAD_BYTES;
                self.received.drain(..bytes);
                return Some(found);
            }
            match self.line.receive(4096).await {
                Ok(bytes) if !bytes.is_empty() => self.received.extend(bytes),
                _ => return None,
            }
        }
    }

    /// Receives until the connection ends.
    async fn drain(&mut self) {
        while self.next().await.is_some() {}
    }
}

async fn converse(
    story: &mut PeerStory,
    line: &PeerLine,
    form: &'static Form,
    rng: &mut Rng,
    idle_timeout: Duration,
) {
    let mut client = Client { line, received: Vec::new() };
    match story.plan.kind {
        PeerKind::WitnessPinger => ping(story, &mut client, rng, Duration::from_secs(10)).await,
        PeerKind::DataSender
        | PeerKind::DataBroken
        | PeerKind::DataTalkative
        | PeerKind::DataIdle => {
            send_data(story, &mut client, form, rng).await;
            match story.plan.kind {
                PeerKind::DataTalkative => {
                    let records: Vec<_> = (0..3).map(|_| form.record(rng)).collect();
                    let (before, after) = records.split_at(1);
                    let body = [form.packet(before), form.end(), form.packet(after)].concat();
                    let sequence = 1_000_u32;
                    story.data.push(SentData { sequence, records, acknowledged: false });
                    client.send(FrameType::Data, &[&sequence.to_be_bytes(), &body]).await;
                    acknowledged(story, &mut client, usize::MAX).await;
                }
                PeerKind::DataSender => {
                    story.finished = client.send(FrameType::Close, &[]).await;
                    acknowledged(story, &mut client, usize::MAX).await;
                }
                PeerKind::DataIdle => {
                    ping(story, &mut client, rng, 3 * idle_timeout / 2).await;
                    line.finish().await;
                    acknowledged(story, &mut client, usize::MAX).await;
                }
                _ if rng.bool() => line.reset(),
                _ => {}
            }
        }
        PeerKind::DataFlood => {
            for sequence in 0..FLOOD_PACKETS {
                let records = new_groups(form, rng, sequence);
                let body = form.packet(&records);
                story.data.push(SentData { sequence, records, acknowledged: false });
                let sent = client.send(FrameType::Data, &[&sequence.to_be_bytes(), &body]).await;
                if !sent || acknowledged(story, &mut client, 1).await > 0 {
                    return;
                }
            }
        }
        PeerKind::Broadcaster => {
            for _ in 0..rng.usize(1..60) {
                let payload = vec![7; rng.usize(1..2000)];
                if !client.send(FrameType::Broadcast, &[&payload]).await {
                    return;
                }
                pause(rng, 20).await;
            }
            client.send(FrameType::Close, &[]).await;
            client.drain().await;
        }
        PeerKind::Listener => {
            client.send(FrameType::Ping, &[&[0; 8]]).await;
            client.drain().await;
        }
        PeerKind::Deaf => {
            let payload = vec![9; rng.usize(100..8000)];
            for _ in 0..200 {
                if !client.send(FrameType::Echo, &[&payload]).await {
                    return;
                }
            }
            VirtualSleep::of(2 * idle_timeout).await;
        }
        PeerKind::Garbage => {
            let mut bytes = frame(FrameType::Echo, &[&[1; 50]]);
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
            // It goes on before it listens.
            bytes.extend((0..rng.usize(0..6000)).map(|_| rng.u8(..)));
            let _ = line.send(&bytes).await;
            while let Some((kind, _)) = client.next().await {
                story.errors += u64::from(kind == FrameType::Error);
            }
        }
        _ => client.drain().await,
    }
}

async fn ping(story: &mut PeerStory, client: &mut Client<'_>, rng: &mut Rng, time: Duration) {
    let end = now() + time;
    for number in 0_u64.. {
        if now() >= end {
            break;
        }
        let begun = now();
        if !client.send(FrameType::Ping, &[&number.to_be_bytes()]).await {
            return;
        }
        story.unanswered += 1;
        loop {
            match client.next().await {
                None => return,
                Some((FrameType::Pong, payload)) if payload == number.to_be_bytes() => break,
                Some((FrameType::DataAck, payload)) => note_ack(story, &payload),
                Some(_) => {}
            }
        }
        story.unanswered -= 1;
        story.answers += 1;
        story.slowest_answer = story.slowest_answer.max(now() - begun);
        VirtualSleep::of(Duration::from_millis(rng.u64(0..500))).await;
    }
    if story.plan.kind == PeerKind::WitnessPinger {
        story.finished = client.send(FrameType::Close, &[]).await;
        client.drain().await;
    }
}

fn note_ack(story: &mut PeerStory, payload: &[u8]) {
    for data in &mut story.data {
        data.acknowledged |= data.sequence.to_be_bytes() == payload;
    }
}

/// Receives until `count` more DATA are acknowledged or the connection ends; returns how many were
/// not.
async fn acknowledged(story: &mut PeerStory, client: &mut Client<'_>, mut count: usize) -> usize {
    while count > 0 {
        match client.next().await {
            None => break,
            Some((FrameType::DataAck, payload)) => {
                note_ack(story, &payload);
                count -= 1;
            }
            Some(_) => {}
        }
    }
    count
}

async fn send_data(
    story: &mut PeerStory,
    client: &mut Client<'_>,
    form: &'static Form,
    rng: &mut Rng,
) {
    let waits = rng.bool();
    for sequence in 0..rng.u32(1..=12) {
        let mut body = Vec::new();
        let mut all = Vec::new();
        for _ in 0..rng.usize(1..=3) {
            let records: Vec<_> = (0..rng.usize(1..=8)).map(|_| form.record(rng)).collect();
            body.extend(form.packet(&records));
            all.extend(records);
        }
        story.data.push(SentData { sequence, records: all, acknowledged: false });
        if !client.send(FrameType::Data, &[&sequence.to_be_bytes(), &body]).await {
            return;
        }
        if waits {
            acknowledged(story, client, 1).await;
        }
        pause(rng, 50).await;
    }
}
