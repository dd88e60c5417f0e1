//! `--memory-limit` and message clients: what waits for them counts, and the one for whom the most
//! waits is cut before there is too much.

use crate::common::beside::{stats, wrongs};
use crate::common::wire::*;
use crate::common::{Engine, PATIENCE, one_core, until};
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpStream};

/// A client for which the kernel keeps little.
fn connect_small(address: SocketAddr) -> Client<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::over(stream)
}

/// Sixteen clients that read no broadcasts may have 1 MiB each waiting, but there are 9 MiB for all
/// of them: one after the other is cut, and one that reads gets everything.
#[test]
fn clients_that_do_not_read_are_cut_when_memory_is_short() {
    const DEAF: usize = 16;
    let core = one_core();
    let options = ["--cores", &core, "--memory-limit", "44MiB", "--rate-limit", "0"];
    let engine = Engine::start_messages(&options);
    let address = engine.messages();
    let before = stats(&engine)["memory_counted_bytes"].as_u64().unwrap();
    let mut deaf: Vec<_> = (0..DEAF).map(|_| connect_small(address)).collect();
    deaf.iter_mut().for_each(|client| client.ping(0));
    let (mut sender, mut reader) = (Client::connect(address), Client::connect(address));
    reader.ping(0);
    let mut sent = 0_u64;
    while wrongs(&engine)["memory_limit"] == 0 {
        assert!(sent < 4096, "nobody is cut");
        sender.send(&frame(BROADCAST, &[&sent.to_be_bytes()[..], &[9; 16 << 10]].concat()));
        let got = reader.next().expect("a broadcast");
        assert_eq!((got.kind, &got.payload[..8]), (BROADCAST, &sent.to_be_bytes()[..]));
        sent += 1;
    }
    let (wrongs, counted) = (wrongs(&engine), stats(&engine)["memory_counted_bytes"].clone());
    assert_eq!(wrongs["slow_consumers"], 0, "before any of them has 1 MiB");
    assert!(counted.as_u64().unwrap() <= 44 << 20, "{counted}");
    sender.ping(1);
    reader.ping(1);
    drop((deaf, sender, reader));
    until("the memory to come back", || stats(&engine)["memory_counted_bytes"] == before);
}
