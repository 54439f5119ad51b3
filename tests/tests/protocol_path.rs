//! How much of a path the protocol fills, by loss, reordering and queue. `--nocapture` prints the table.

use hal::fake::net::Faults;
use hal::time::Span;
use net_core::congestion::{Cubic, NewReno};
use tests::sim::link_path::{Path, transfer};

fn path() -> Path {
    Path {
        bits_per_second: 100_000_000,
        rtt: Span::ms(50),
        queue_milli_bdp: 1000,
        faults: Faults::default(),
        bytes: 50_000_000,
        lateness: Span::ZERO,
    }
}

struct Case {
    name: &'static str,
    path: Path,
    /// Least utilisation, and most bytes on the wire for each delivered; 1472-byte datagrams carry 1440, hence 1.042 at
    /// best.
    least: f64,
    most_wire: f64,
}

fn cases() -> Vec<Case> {
    let case = |name, path, least, most_wire| Case { name, path, least, most_wire };
    let with = |faults| Path { faults, ..path() };
    let lossy = |ppm| Path { bytes: 5_000_000, ..with(Faults { loss: ppm, ..Faults::default() }) };
    let reordered = Faults { reorder: 10_000, reorder_by: Span::ms(5), ..Faults::default() };
    vec![
        case("no loss", path(), 0.86, 1.08),
        case("0.1 % loss", lossy(1_000), 0.40, 1.09),
        case("1 % loss", lossy(10_000), 0.03, 1.08),
        case("5 % loss", lossy(50_000), 0.01, 1.12),
        case("1 % reordered by 5 ms", with(reordered), 0.86, 1.08),
        case("queue 0.1 BDP", Path { queue_milli_bdp: 100, ..path() }, 0.80, 1.07),
        case("timers 1 ms late", Path { lateness: Span::ms(1), ..path() }, 0.86, 1.08),
    ]
}

#[test]
fn paths_are_filled_and_little_is_sent_twice() {
    for Case { name, path, least, most_wire } in cases() {
        for (cc, outcome) in [("cubic", transfer::<Cubic>(1, &path)), ("reno", transfer::<NewReno>(1, &path))]
        {
            let o = outcome.expect("done in ten minutes");
            println!(
                "{name:24} {cc:6} {:.3} wire {:.3} losses {} spurious {} tail {} probes {} srtt {}",
                o.utilisation,
                o.wire,
                o.stats.losses,
                o.stats.spurious_losses,
                o.fired.tail_dropped,
                o.stats.probe_timeouts,
                o.stats.srtt
            );
            assert!(o.utilisation >= least, "{name}, {cc}: {:.3} of the link", o.utilisation);
            assert!(o.wire <= most_wire, "{name}, {cc}: {:.3} bytes a byte", o.wire);
        }
    }
}
