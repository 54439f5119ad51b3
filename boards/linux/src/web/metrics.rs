//! `/metrics` in Prometheus text format 0.0.4: base units, `_total` for counters, a series per node, never per sample.

use std::fmt::Write;

use gateway::view::{Health, NodeView, Percentiles, Snapshot};

/// The text for `snapshot`.
pub(crate) fn render(s: &Snapshot) -> String {
    let mut m = Metrics(String::with_capacity(4096));
    m.one("groundplane_health", "gauge", "0 ok, 1 warn, 2 fault.", health(s.health));
    m.one("groundplane_uptime_seconds", "gauge", "Since the gateway started.", seconds(s.uptime_ns));
    m.one("groundplane_samples_total", "counter", "Samples taken into the log.", s.samples);
    m.one(
        "groundplane_acknowledged_samples_total",
        "counter",
        "Samples acknowledged as durable.",
        s.acknowledged,
    );
    m.quantiles("groundplane_ack_seconds", "From a block's arrival to its acknowledgement.", s.ack);
    m.quantiles("groundplane_log_commit_seconds", "From cutting a frame to its durability.", s.log.commit);
    m.one("groundplane_log_bytes", "gauge", "Bytes of all segments.", s.log.bytes);
    m.one("groundplane_log_retention_bytes", "gauge", "Budget for them.", s.log.retention_bytes);
    m.one("groundplane_log_written_bytes_total", "counter", "Bytes written.", s.log.written);
    m.one("groundplane_log_records_durable_total", "counter", "Records on disk.", s.log.durable);
    m.one(
        "groundplane_log_writable",
        "gauge",
        "1 while records are taken.",
        u8::from(s.log.state == "ready"),
    );
    if let Some(free) = s.log.free_bytes {
        m.one("groundplane_disk_free_bytes", "gauge", "Room on the log's volume.", free);
    }
    if let Some(heap) = s.heap_bytes {
        m.one("groundplane_heap_bytes", "gauge", "Bytes allocated by the program.", heap);
    }
    m.one("groundplane_link_received_packets_total", "counter", "Packets received.", s.link.rx);
    m.one("groundplane_link_bad_packets_total", "counter", "Packets damaged.", s.link.rx_bad);
    m.one("groundplane_link_sent_packets_total", "counter", "Packets sent.", s.link.tx);
    m.one("groundplane_link_lost_packets_total", "counter", "Packets the system refused.", s.link.tx_lost);
    let each: [Series; 11] = [
        ("groundplane_node_connected", "gauge", "1 while the node has a connection.", |n| {
            f64::from(u8::from(n.connected))
        }),
        ("groundplane_node_silent", "gauge", "1 when nothing came for three intervals.", |n| {
            f64::from(u8::from(n.silent))
        }),
        ("groundplane_node_last_seen_seconds", "gauge", "Since anything came.", |n| {
            n.last_seen_ns.map_or(f64::NAN, seconds)
        }),
        ("groundplane_node_durable_samples", "gauge", "Durable samples of this boot.", |n| number(n.durable)),
        ("groundplane_node_lost_samples_total", "counter", "Samples missing.", |n| number(n.lost)),
        ("groundplane_node_duplicate_samples_total", "counter", "Samples that came again.", |n| {
            number(n.duplicates)
        }),
        ("groundplane_node_deadline_misses_total", "counter", "Handlers that finished late.", |n| {
            number(n.deadline_misses)
        }),
        ("groundplane_node_rtt_seconds", "gauge", "Smoothed round trip.", |n| seconds(n.rtt_ns)),
        ("groundplane_node_retransmissions_total", "counter", "Packets sent again to it.", |n| {
            number(n.retransmissions)
        }),
        ("groundplane_node_held_blocks", "gauge", "Blocks waiting for acknowledgement.", |n| number(n.held)),
        ("groundplane_node_interrupt_latency_p99_seconds", "gauge", "Interrupt to handler.", |n| {
            seconds(n.irq_latency.p99)
        }),
    ];
    for (name, kind, help, get) in each {
        m.head(name, kind, help);
        for node in &s.nodes {
            let _ =
                writeln!(m.0, "{name}{{node=\"{}\",name=\"{}\"}} {}", node.id, label(&node.name), get(node));
        }
    }
    m.head("groundplane_alarm", "gauge", "1 for each alarm that is on.");
    for alarm in &s.alarms {
        let node = alarm.node.map_or(String::new(), |node| format!(",node=\"{node}\""));
        let _ = writeln!(m.0, "groundplane_alarm{{kind=\"{}\"{node}}} 1", alarm.kind);
    }
    m.0
}

/// Name, type and help of a series with one value a node, and the value.
type Series = (&'static str, &'static str, &'static str, fn(&NodeView) -> f64);

struct Metrics(String);

impl Metrics {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn quantiles(&mut self, name: &str, help: &str, p: Percentiles) {
        self.head(name, "summary", help);
        for (quantile, ns) in [("0.5", p.p50), ("0.99", p.p99), ("1", p.max)] {
            let _ = writeln!(self.0, "{name}{{quantile=\"{quantile}\"}} {}", seconds(ns));
        }
        let _ = writeln!(self.0, "{name}_count {}", p.count);
    }
}

fn health(health: Health) -> u8 {
    match health {
        Health::Ok => 0,
        Health::Warn => 1,
        Health::Fault => 2,
    }
}

#[allow(clippy::cast_precision_loss, reason = "the format carries doubles")]
fn number(n: u64) -> f64 {
    n as f64
}

fn seconds(ns: u64) -> f64 {
    number(ns) / 1e9
}

/// A label value: backslash, quote and line feed escaped (exposition format, "Comments, help text, and type").
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_has_a_type_and_labels_are_escaped() {
        let node = NodeView { id: 7, name: "a\"b\\\n".to_owned(), rtt_ns: 1_500_000, ..NodeView::default() };
        let text = render(&Snapshot { nodes: vec![node], ..Snapshot::default() });
        assert!(
            text.contains("groundplane_node_rtt_seconds{node=\"7\",name=\"a\\\"b\\\\\\n\"} 0.0015"),
            "{text}"
        );
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap().trim_end_matches("_count");
            assert!(text.contains(&format!("# TYPE {name} ")), "{line}");
        }
    }
}
