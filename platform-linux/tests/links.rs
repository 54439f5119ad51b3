//! Links over the loopback interface: content, order, trains, refusals and counters.
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "a test of a hosted crate")]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use hal::link::{Ecn, Link, LinkRx, LinkTx, TxMeta};
use hal::readiness::{Interest, Key, Park, Readiness};
use hal::time::{Clock, Instant, Span};
use platform_linux::clock::MonotonicClock;
use platform_linux::net::{OpenError, UdpConfig, UdpLink};
use platform_linux::readiness::Epoll;

const LOCAL: &str = "127.0.0.1:0";

fn bind(address: &str) -> UdpLink {
    UdpLink::bind(address.parse().unwrap(), UdpConfig::default()).unwrap()
}

fn stage(link: &mut UdpLink, to: SocketAddr, bytes: &[u8]) {
    let slot = link.grant(bytes.len()).expect("room");
    slot[..bytes.len()].copy_from_slice(bytes);
    link.commit(TxMeta::new(to, bytes.len()));
}

/// All datagrams that arrive until `count` are there, cut from their trains, with their senders.
fn receive(link: &mut UdpLink, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut park = Epoll::new().unwrap();
    park.watch(link.as_fd(), Key(0), Interest::READ).unwrap();
    let limit = MonotonicClock.now().after(Span::secs(10));
    let mut got = Vec::new();
    while got.len() < count && MonotonicClock.now() < limit {
        while link.advance() {
            let rx = link.current().unwrap();
            assert!(rx.meta.stride <= rx.data.len() || rx.data.is_empty());
            if rx.data.is_empty() {
                got.push((rx.meta.from, Vec::new()));
            }
            got.extend(rx.data.chunks(rx.meta.stride.max(1)).map(|data| (rx.meta.from, data.to_vec())));
        }
        if got.len() < count {
            park.park(Some(limit), &mut || true, &mut |_, _| {});
        }
    }
    got
}

#[test]
fn datagrams_of_all_lengths_arrive_whole_in_order_and_with_their_sender() {
    let mut server = bind(LOCAL);
    let mut client = UdpLink::connect(server.local_addr(), UdpConfig::default()).unwrap();
    let lengths = [0, 1, 2, 47, 1200, 1200, 1200, 300, 1200, 1452, 1452, 1, 0, 0, 9000, 65_507, 64];
    for (number, len) in (0_u8..).zip(lengths) {
        stage(&mut client, server.local_addr(), &vec![number; len]);
    }
    assert!(client.flush());
    let got = receive(&mut server, lengths.len());
    for ((number, len), (from, data)) in (0_u8..).zip(lengths).zip(&got) {
        assert_eq!((*from, data), (client.local_addr(), &vec![number; len]), "datagram {number}");
    }
    assert_eq!(got.len(), lengths.len());
    assert_eq!((client.counters().tx, client.counters().tx_lost), (17, 0));
    assert_eq!((server.counters().rx, server.counters().rx_bad), (17, 0));
}

#[test]
fn equal_datagrams_for_one_peer_leave_as_one_train_and_arrive_as_single_ones() {
    // A plain socket, which knows nothing of trains, must see the datagrams that were committed.
    let plain = UdpSocket::bind(LOCAL).unwrap();
    let mut link = bind(LOCAL);
    for number in 0..40_u8 {
        let len = if number == 39 { 500 } else { 1000 };
        stage(&mut link, plain.local_addr().unwrap(), &vec![number; len]);
    }
    assert!(link.flush());
    assert_eq!(link.caps().segments, 64, "loopback takes trains");
    assert_eq!((link.counters().tx, link.counters().calls), (40, 1));
    let mut buffer = [0; 2048];
    for number in 0..40_u8 {
        let (len, from) = plain.recv_from(&mut buffer).unwrap();
        assert_eq!(from, link.local_addr());
        assert_eq!(buffer[..len], vec![number; if number == 39 { 500 } else { 1000 }], "datagram {number}");
    }
}

#[test]
fn a_train_stops_at_another_peer_length_or_congestion_mark() {
    let mut servers = [bind(LOCAL), bind(LOCAL)];
    let mut link = bind(LOCAL);
    let plan = [(0, 100, Ecn::Ect0), (0, 100, Ecn::Ect0), (1, 100, Ecn::Ect0), (0, 100, Ecn::Ect0)];
    let plan =
        plan.into_iter().chain([(0, 101, Ecn::Ect0), (0, 100, Ecn::Ce), (0, 60, Ecn::Ce), (0, 60, Ecn::Ce)]);
    let plan: Vec<(usize, usize, Ecn)> = plan.collect();
    for (number, (server, len, ecn)) in (0_u8..).zip(&plan) {
        link.grant(*len).unwrap()[..*len].fill(number);
        link.commit(TxMeta::new(servers[*server].local_addr(), *len).ecn(*ecn));
    }
    assert!(link.flush());
    for (server, link) in servers.iter_mut().enumerate() {
        let mine: Vec<_> = (0_u8..).zip(&plan).filter(|(_, (to, ..))| *to == server).collect();
        let got = receive(link, mine.len());
        let lengths: Vec<_> = got.iter().map(|(_, data)| (data[0], data.len())).collect();
        assert_eq!(lengths, mine.iter().map(|(number, (_, len, _))| (*number, *len)).collect::<Vec<_>>());
    }
}

#[test]
fn trains_that_the_kernel_refuses_go_in_pieces_and_say_so() {
    let mut server = bind(LOCAL);
    let mut link = bind(LOCAL);
    let before = link.caps();
    // 200 segments are more than the kernel takes (UDP_MAX_SEGMENTS is 64, 128 since Linux 6.9).
    let train: Vec<u8> = (0..200_u8).flat_map(|number| [number; 100]).collect();
    link.grant(train.len()).unwrap()[..train.len()].copy_from_slice(&train);
    link.commit(TxMeta::new(server.local_addr(), train.len()).stride(100));
    assert!(link.flush());
    let got = receive(&mut server, 200);
    assert!(got.iter().map(|(_, data)| data.as_slice()).eq(train.chunks(100)), "{} of 200", got.len());
    assert_eq!((link.caps().segments, link.caps().mtu), (1, before.mtu));
    assert_ne!(link.caps().epoch, before.epoch);
    assert_eq!((link.counters().tx, link.counters().tx_lost), (200, 0));
    // And from now on everything goes one by one.
    stage(&mut link, server.local_addr(), &[1; 100]);
    stage(&mut link, server.local_addr(), &[2; 100]);
    assert!(link.flush());
    assert_eq!(receive(&mut server, 2).len(), 2);
}

#[test]
fn congestion_bits_arrive_on_both_families() {
    for address in [LOCAL, "[::1]:0"] {
        let Ok(mut server) = UdpLink::bind(address.parse().unwrap(), UdpConfig::default()) else {
            eprintln!("skipped: no IPv6 on this machine");
            continue;
        };
        let mut client = UdpLink::connect(server.local_addr(), UdpConfig::default()).unwrap();
        assert!(client.caps().ecn);
        for ecn in [Ecn::Ce, Ecn::Ect0, Ecn::NotEct, Ecn::Ect1] {
            client.grant(10).unwrap()[..10].fill(ecn.bits());
            client.commit(TxMeta::new(server.local_addr(), 10).ecn(ecn));
            assert!(client.flush());
            while !server.advance() {}
            let rx = server.current().unwrap();
            assert_eq!((rx.meta.ecn, &*rx.data), (ecn, &[ecn.bits(); 10][..]), "{address}");
        }
    }
}

#[test]
fn a_socket_of_ipv6_serves_ipv4_too() {
    let Ok(mut server) = UdpLink::bind("[::]:0".parse().unwrap(), UdpConfig::default()) else {
        return eprintln!("skipped: no IPv6 on this machine");
    };
    let plain = UdpSocket::bind(LOCAL).unwrap();
    let to: SocketAddr = format!("127.0.0.1:{}", server.local_addr().port()).parse().unwrap();
    plain.send_to(b"ask", to).unwrap();
    assert_eq!(receive(&mut server, 1), [(plain.local_addr().unwrap(), b"ask".to_vec())]);
    server.grant(6).unwrap()[..6].copy_from_slice(b"answer");
    server.commit(TxMeta::new(plain.local_addr().unwrap(), 6).ecn(Ecn::Ect0));
    assert!(server.flush());
    let mut buffer = [0; 16];
    assert_eq!(plain.recv(&mut buffer).unwrap(), 6);
}

#[test]
fn a_gateway_that_was_away_costs_no_datagram_of_the_next_one() {
    let gone = UdpSocket::bind(LOCAL).unwrap();
    let address = gone.local_addr().unwrap();
    let mut node = UdpLink::connect(address, UdpConfig::default()).unwrap();
    drop(gone);
    for _ in 0..3 {
        stage(&mut node, address, b"nobody");
        assert!(node.flush());
        assert!(!node.advance());
    }
    let mut back = UdpLink::bind(address, UdpConfig::default()).unwrap();
    // The error of the datagram before is still pending: this one must be sent all the same.
    stage(&mut node, address, b"somebody");
    assert!(node.flush());
    assert_eq!(receive(&mut back, 1), [(node.local_addr(), b"somebody".to_vec())]);
    assert_eq!(node.counters().tx_lost, 0);
}

#[test]
fn datagrams_that_cannot_be_sent_are_counted_and_do_not_stop_the_others() {
    let mut server = bind(LOCAL);
    let mut link = bind(LOCAL);
    let unreachable: SocketAddr = "255.255.255.255:9".parse().unwrap(); // needs SO_BROADCAST
    stage(&mut link, unreachable, &[1; 10]);
    stage(&mut link, unreachable, &[1; 10]);
    stage(&mut link, "127.0.0.1:0".parse().unwrap(), &[2; 10]);
    stage(&mut link, server.local_addr(), &[3; 10]);
    stage(&mut link, server.local_addr(), &[4; 10]);
    assert!(link.flush());
    let got: Vec<_> = receive(&mut server, 2).into_iter().map(|(_, data)| data[0]).collect();
    assert_eq!(got, [3, 4]);
    let counters = link.counters();
    assert_eq!((counters.tx, counters.tx_lost), (2, 3));
    assert_eq!(link.caps().segments, 64, "a bad destination is not the trains' fault");
}

#[test]
fn a_commit_without_or_beyond_a_grant_is_a_loss_and_no_more() {
    let mut link = bind(LOCAL);
    let to = link.local_addr();
    link.commit(TxMeta::new(to, 10));
    let room = link.grant(10).unwrap().len();
    link.commit(TxMeta::new(to, room + 1));
    assert!(link.grant(70_000).is_none());
    assert!(link.flush());
    assert_eq!((link.counters().tx, link.counters().tx_lost), (0, 2));
    // The largest stride that a caller could come up with.
    link.grant(10).unwrap();
    link.commit(TxMeta::new(to, 10).stride(usize::MAX));
    link.grant(10).unwrap();
    link.commit(TxMeta::new(to, 10).stride(0));
    assert!(link.flush());
    assert_eq!(receive(&mut link, 2).len(), 2);
}

#[test]
fn more_than_the_send_buffer_holds_is_flushed_by_grant() {
    let mut server = bind(LOCAL);
    let config = UdpConfig { send_buffer: 65_507, trains: false, ..UdpConfig::default() };
    let mut link = UdpLink::bind(LOCAL.parse().unwrap(), config).unwrap();
    let mut got = 0;
    for number in 0..300_u32 {
        stage(&mut link, server.local_addr(), &number.to_le_bytes().repeat(250));
        if number % 100 == 99 {
            assert!(link.flush());
            for (_, data) in receive(&mut server, 100) {
                assert_eq!(data[..4], u32::to_le_bytes(got));
                got += 1;
            }
        }
    }
    assert_eq!((got, link.counters().tx, server.counters().rx), (300, 300, 300));
    assert_eq!(link.caps().segments, 1);
}

#[test]
fn a_slow_reader_learns_how_much_it_lost() {
    let config = UdpConfig { receive_buffer: 4096, ..UdpConfig::default() };
    let mut server = UdpLink::bind(LOCAL.parse().unwrap(), config).unwrap();
    let config = UdpConfig { trains: false, ..UdpConfig::default() };
    let mut link = UdpLink::bind(LOCAL.parse().unwrap(), config).unwrap();
    for _ in 0..200 {
        stage(&mut link, server.local_addr(), &[0; 1000]);
    }
    assert!(link.flush());
    let first = receive(&mut server, 1).len();
    assert!((1..200).contains(&first));
    // The count travels with the next datagram that gets in.
    stage(&mut link, server.local_addr(), &[0; 1000]);
    assert!(link.flush());
    assert_eq!(receive(&mut server, 1).len(), 1);
    assert_eq!(server.counters().rx_lost, 200 - first as u64);
}

#[test]
fn opening_says_what_is_wrong() {
    let taken = UdpSocket::bind(LOCAL).unwrap().local_addr().unwrap();
    let _holder = UdpSocket::bind(taken).unwrap();
    let why = UdpLink::bind(taken, UdpConfig::default()).unwrap_err();
    assert!(matches!(why, OpenError::AddressInUse(_)), "{why:?}");
    assert_eq!(why.kind(), std::io::ErrorKind::AddrInUse);
    assert!(why.to_string().contains("choose another port"), "{why}");
    let why = UdpLink::bind("192.0.2.1:0".parse().unwrap(), UdpConfig::default()).unwrap_err();
    assert!(matches!(why, OpenError::NoSuchAddress(_)), "{why:?}");
}

#[test]
#[ignore = "a measurement: run with --release -- --ignored --nocapture"]
fn bulk_over_loopback() {
    for trains in [true, false] {
        let config = UdpConfig { trains, ..UdpConfig::default() };
        let mut server = UdpLink::bind(LOCAL.parse().unwrap(), config).unwrap();
        let mut client = UdpLink::connect(server.local_addr(), config).unwrap();
        let (start, mut sent, mut got) = (MonotonicClock.now(), 0_u64, 0_u64);
        while sent < 900_000 {
            for _ in 0..60 {
                client.grant(1200).unwrap()[..8].copy_from_slice(&sent.to_le_bytes());
                client.commit(TxMeta::new(server.local_addr(), 1200));
                sent += 1;
            }
            client.flush();
            while server.advance() {
                let rx = server.current().unwrap();
                for data in rx.data.chunks(rx.meta.stride) {
                    got += u64::from(data.len() == 1200);
                }
            }
        }
        let took: Instant = MonotonicClock.now();
        let ns = took.since(start).as_ns() / sent;
        println!(
            "trains {trains}: {ns} ns a datagram, sent and received; {got} of {sent}; {:?}",
            client.counters()
        );
    }
}
