//! The page as one text: filled in on the server, so that it says something without JavaScript, too.

use std::fmt::Write;

use gateway::view::{Health, Snapshot};
use hal::time::Span;

const INDEX: &str = include_str!("page/index.html");
pub(crate) const SCRIPT: &str = include_str!("page/app.js");
pub(crate) const STYLE: &str = include_str!("page/style.css");
pub(crate) const ICON: &str = include_str!("page/icon.svg");

/// The page for `snapshot`.
pub(crate) fn render(snapshot: &Snapshot) -> String {
    let word = match snapshot.health {
        Health::Ok => "OK",
        Health::Warn => "WARN",
        Health::Fault => "FAULT",
    };
    let reasons: Vec<&str> = snapshot.alarms.iter().take(3).map(|alarm| alarm.text.as_str()).collect();
    let text = if reasons.is_empty() { "nothing to do".to_owned() } else { reasons.join(" · ") };
    let fill = |place: &str| match place {
        "health" => word.to_lowercase(),
        "health_word" => word.to_owned(),
        "health_text" => escaped(&text),
        "figures" => figures(snapshot),
        "log" => log(snapshot),
        "files" => files(snapshot),
        "empty_hidden" => if snapshot.nodes.is_empty() { "" } else { " hidden" }.to_owned(),
        "nodes" => nodes(snapshot),
        other => unreachable!("a place of index.html that nothing fills: {other}"),
    };
    // One pass over the template, so that what a node says is never taken for a place.
    let mut pieces = INDEX.split("{{");
    let mut html = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        let (place, rest) = piece.split_once("}}").unwrap_or(("", piece));
        html.push_str(&fill(place));
        html.push_str(rest);
    }
    html
}

fn pairs(pairs: &[(&str, String)]) -> String {
    pairs.iter().fold(String::new(), |mut html, (name, value)| {
        let _ = write!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(value));
        html
    })
}

fn figures(s: &Snapshot) -> String {
    pairs(&[
        ("Samples/s", format!("{:.0}", s.rate)),
        ("Samples", s.samples.to_string()),
        ("Acknowledged", s.acknowledged.to_string()),
        ("Ack p50 / p99", format!("{} / {}", Span::ns(s.ack.p50), Span::ns(s.ack.p99))),
        ("Up", Span::ns(s.uptime_ns).to_string()),
        ("Version", s.version.to_owned()),
    ])
}

fn log(s: &Snapshot) -> String {
    pairs(&[
        ("State", s.log.text.clone()),
        ("Written by", s.log.backend.clone()),
        ("Records durable", s.log.durable.to_string()),
        ("Size / budget", format!("{} / {} bytes", s.log.bytes, s.log.retention_bytes)),
    ])
}

fn files(s: &Snapshot) -> String {
    s.log.segments.iter().fold(String::new(), |mut html, file| {
        let name = escaped(&file.name);
        let _ = write!(html, "<li><a href=\"/log/{name}\">{name}</a> {} bytes</li>", file.bytes);
        html
    })
}

fn nodes(s: &Snapshot) -> String {
    s.nodes.iter().fold(String::new(), |mut html, node| {
        let seen = node.last_seen_ns.map_or("never".to_owned(), |ns| format!("{} ago", Span::ns(ns)));
        let seen = if node.silent { format!("<span class=tag>silent</span> {seen}") } else { seen };
        let _ = write!(
            html,
            "<tr{}><td>{} #{}</td><td>{seen}</td><td class=n>{:.0}</td><td class=n>{}</td><td class=n>{}</td>\
             <td class=n>{}</td><td class=n>{}</td><td class=n>{} / {}</td><td class=n></td><td>{}</td></tr>",
            if node.silent { " class=silent" } else { "" },
            escaped(&node.name),
            node.id,
            node.rate,
            node.durable,
            node.lost,
            node.deadline_misses,
            Span::ns(node.rtt_ns),
            node.held,
            node.pool,
            escaped(&node.firmware),
        );
        html
    })
}

/// Text for HTML: names come from nodes, that is from strangers.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::view::NodeView;

    #[test]
    fn a_name_cannot_become_markup() {
        let name = "<script>alert(\"x\")</script>{{figures}}".to_owned();
        let node = NodeView { name, firmware: "a&b".to_owned(), ..NodeView::default() };
        let html = render(&Snapshot { nodes: vec![node], ..Snapshot::default() });
        assert!(
            html.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;") && html.contains("a&amp;b")
        );
        assert!(html.contains("{{figures}} #0"), "what a node says is not filled in again");
    }

    #[test]
    fn every_place_is_filled_in() {
        let html = render(&Snapshot::default());
        assert!(!html.contains("{{"), "{html}");
    }
}
