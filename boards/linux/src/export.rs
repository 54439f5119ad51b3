//! Samples of log files as CSV or JSON lines, piece by piece.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use gateway::log::{Kind, Record, Walk, format::SegmentHeader};
use node::codec::Reader;
use node::message::FromNode;
use node::sample::Samples;
use node::sensor::Channel;

/// How samples are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    JsonLines,
}

/// Which samples are wanted. Times are seconds since 1970; samples whose time is not known pass.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filter {
    from: Option<f64>,
    to: Option<f64>,
    node: Option<u32>,
}

impl Filter {
    /// Sets one of `from`, `to`, `last` and `node`; an error in words when the value makes no sense.
    pub(crate) fn set(&mut self, name: &str, value: f64) -> Result<(), String> {
        if !value.is_finite() || value < 0.0 {
            return Err(format!("{name} is not a number of that kind"));
        }
        match name {
            "from" => self.from = Some(value),
            "to" => self.to = Some(value),
            "last" => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                self.from = now.ok().map(|now| now.as_secs_f64() - value);
            }
            "node" => {
                // The cast saturates, and a number that is not whole matches no node that was meant.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
                let node = value as u32;
                self.node = Some(node);
            }
            _ => return Err(format!("{name} is unknown")),
        }
        Ok(())
    }

    fn takes(&self, node: u32, unix: Option<f64>) -> bool {
        let in_time =
            unix.is_none_or(|t| self.from.is_none_or(|from| t >= from) && self.to.is_none_or(|to| t <= to));
        in_time && self.node.is_none_or(|wanted| wanted == node)
    }
}

/// A channel as it was announced.
#[derive(Debug, Clone)]
struct Known {
    name: String,
    unit: String,
    exponent: i8,
}

/// Reads segments one after the other and writes their samples.
#[derive(Debug)]
pub(crate) struct Exporter {
    files: std::vec::IntoIter<PathBuf>,
    format: Format,
    filter: Filter,
    begun: bool,
    channels: BTreeMap<(u32, u32, u8), Vec<Known>>,
    /// Wall clock minus node clock, ns, by node and boot.
    clocks: BTreeMap<(u32, u32), i128>,
}

/// The segments among `paths` and in the directories among them, in order.
pub(crate) fn segments(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut inside = Vec::new();
            for entry in std::fs::read_dir(path)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "gpl") {
                    inside.push(path);
                }
            }
            inside.sort();
            files.append(&mut inside);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Where the segment before this one ends, as block 0 says.
pub(crate) fn previous_end(path: &Path) -> Option<u64> {
    let mut block = vec![0; gateway::log::format::BLOCK];
    io::Read::read_exact(&mut std::fs::File::open(path).ok()?, &mut block).ok()?;
    SegmentHeader::parse(&block).ok().filter(|header| header.previous != 0).map(|header| header.previous_end)
}

impl Exporter {
    /// All segments of a directory.
    pub(crate) fn open_directory(directory: &Path, format: Format, filter: Filter) -> io::Result<Self> {
        Self::new(segments(&[directory.to_owned()])?, format, filter)
    }

    /// These segments.
    pub(crate) fn new(files: Vec<PathBuf>, format: Format, filter: Filter) -> io::Result<Self> {
        let (channels, clocks) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { files: files.into_iter(), format, filter, begun: false, channels, clocks })
    }

    /// Writes the samples of the next segment to the end of `out`; false after the last.
    pub(crate) fn next_piece(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let mut text = String::new();
        if !self.begun {
            self.begun = true;
            if self.format == Format::Csv {
                text.push_str("time,node,boot,sequence,node_time_ns,group,flags,channel,unit,value\n");
            }
        }
        let next = self.files.next();
        if let Some(path) = &next {
            let bytes = std::fs::read(path)?;
            let limit = self.files.as_slice().first().and_then(|next| previous_end(next));
            // A file that is no segment, or a damaged one, is left out: `log verify` tells.
            if let Ok(walk) = Walk::new(&bytes, limit) {
                // Announcements and clocks first: a segment's first samples may stand before them.
                walk.records().for_each(|record| self.learn(&record));
                walk.records().for_each(|record| self.write(&record, &mut text));
            }
        }
        out.extend_from_slice(text.as_bytes());
        Ok(next.is_some())
    }

    fn learn(&mut self, record: &Record<'_>) {
        match record.kind {
            Kind::Channels => {
                let Ok(FromNode::Channels(channels)) = FromNode::parse(record.payload) else { return };
                let known = channels.iter().map(|c| Known {
                    name: c.name.to_owned(),
                    unit: c.unit.to_owned(),
                    exponent: c.exponent,
                });
                self.channels.insert((record.node, record.boot, channels.group), known.collect());
            }
            Kind::Time => {
                let mut r = Reader::new(record.payload);
                let (Some(node_time), Some(_), Some(unix)) = (r.u64(), r.u64(), r.u64()) else { return };
                self.clocks.insert((record.node, record.boot), i128::from(unix) - i128::from(node_time));
            }
            _ => {}
        }
    }

    fn write(&self, record: &Record<'_>, out: &mut String) {
        let Some(samples) = (record.kind == Kind::Samples).then(|| Samples::parse(record.payload)).flatten()
        else {
            return;
        };
        let (node, boot) = (record.node, record.boot);
        for sample in samples {
            let node_time = sample.time.as_ns();
            let clock = self.clocks.get(&(node, boot));
            let unix_ns = clock.and_then(|clock| u64::try_from(i128::from(node_time) + clock).ok());
            #[allow(clippy::cast_precision_loss, reason = "a filter in seconds")]
            let unix = unix_ns.map(|ns| ns as f64 / 1e9);
            if !self.filter.takes(node, unix) {
                continue;
            }
            let known = self.channels.get(&(node, boot, sample.group)).map_or(&[][..], Vec::as_slice);
            let time = unix_ns.map(|ns| format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000));
            let values = sample.values().iter().enumerate().map(|(index, raw)| {
                let channel = known.get(index);
                let exponent = channel.map_or(0, |channel| channel.exponent);
                let scaled = Channel { name: "", unit: "", exponent, min: 0, max: 0 }.scaled(*raw);
                let name = channel.map_or_else(|| format!("#{index}"), |channel| channel.name.clone());
                (name, channel.map_or("", |channel| channel.unit.as_str()), scaled)
            });
            match self.format {
                Format::Csv => {
                    for (name, unit, value) in values {
                        let _ = writeln!(
                            out,
                            "{},{node},{boot},{},{node_time},{},{},{},{},{value}",
                            time.as_deref().unwrap_or(""),
                            sample.sequence,
                            sample.group,
                            sample.flags.0,
                            quoted(&name),
                            quoted(unit)
                        );
                    }
                }
                Format::JsonLines => {
                    let values: serde_json::Map<_, _> =
                        values.map(|(name, _, value)| (name, serde_json::json!(value))).collect();
                    let line = serde_json::json!({
                        "time": time,
                        "node": node,
                        "boot": boot,
                        "sequence": sample.sequence,
                        "node_time_ns": node_time,
                        "group": sample.group,
                        "flags": sample.flags.0,
                        "values": values,
                    });
                    let _ = writeln!(out, "{line}");
                }
            }
        }
    }
}

/// A field of RFC 4180: quoted when it has to be.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas_and_quotes_stay_one_field() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn a_filter_passes_what_has_no_time_and_cuts_the_rest() {
        let mut filter = Filter::default();
        filter.set("from", 10.0).unwrap();
        filter.set("to", 20.0).unwrap();
        filter.set("node", 3.0).unwrap();
        assert!(filter.takes(3, Some(15.0)) && filter.takes(3, None));
        assert!(!filter.takes(3, Some(9.0)) && !filter.takes(3, Some(21.0)) && !filter.takes(4, None));
        assert!(filter.set("from", f64::NAN).is_err());
    }
}
