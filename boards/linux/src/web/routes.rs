//! What answers which path.
//!
//! | path | answer |
//! | --- | --- |
//! | `/` | the page |
//! | `/api/state` | everything that is shown, JSON |
//! | `/api/alarms` | the alarms alone, JSON |
//! | `/api/history?node=&group=&range=minute\|hour\|day` | plots of a group, JSON |
//! | `/api/export?format=csv\|json&from=&to=&last=&node=` | samples of a time range; seconds since 1970, or the last seconds |
//! | `/log/NAME` | a file of the log, byte for byte |
//! | `/metrics` | Prometheus text |

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use gateway::history::Range;
use hal::volume::Name;

use super::http::{Body, Request, Response, Routes, Stream};
use super::{Board, HistoryQuestion, metrics, page};
use crate::export;

const JSON: &str = "application/json";

/// The routes over `board`, with log files from `directory`.
pub(crate) fn routes(board: Arc<Board>, directory: PathBuf) -> Routes {
    Box::new(move |request| match request.path.as_str() {
        "/" => page(&board),
        "/app.js" => Response::ok("text/javascript; charset=utf-8", page::SCRIPT.as_bytes()),
        "/style.css" => Response::ok("text/css; charset=utf-8", page::STYLE.as_bytes()),
        "/icon.svg" => Response::ok("image/svg+xml", page::ICON.as_bytes()),
        "/metrics" => Response::ok(
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::render(&board.snapshot()).into_bytes(),
        ),
        "/api/state" => json(&*board.snapshot()),
        "/api/alarms" => json(&board.snapshot().alarms),
        "/api/history" => history(&board, request),
        "/api/export" => export(&directory, request),
        path => match path.strip_prefix("/log/") {
            Some(name) => log_file(&directory, name),
            None => Response::error("404 Not Found", "There is nothing here. The page is at /."),
        },
    })
}

fn page(board: &Board) -> Response {
    Response::ok("text/html; charset=utf-8", page::render(&board.snapshot()).into_bytes())
}

fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            Response { headers: "Cache-Control: no-store\r\n".to_owned(), ..Response::ok(JSON, bytes) }
        }
        Err(error) => Response::error("500 Internal Server Error", &error.to_string()),
    }
}

fn bad(text: &str) -> Response {
    Response::error("400 Bad Request", text)
}

fn history(board: &Board, request: &Request) -> Response {
    let number = |name| request.query(name).and_then(|text| text.parse::<u32>().ok());
    let (Some(node), Some(group)) =
        (number("node"), number("group").and_then(|group| u8::try_from(group).ok()))
    else {
        return bad("Give node=NUMBER and group=NUMBER.");
    };
    let range = match request.query("range").as_deref() {
        None | Some("minute") => Range::Minute,
        Some("hour") => Range::Hour,
        Some("day") => Range::Day,
        Some(_) => return bad("range is minute, hour or day."),
    };
    match board.history(HistoryQuestion { node, group, range }) {
        Some(view) => json(&*view),
        // Nobody has looked at this group yet: the gateway's thread draws it with its next publication.
        None => json(&super::HistoryView { step_ns: range.step().as_ns(), channels: Vec::new() }),
    }
}

fn export(directory: &std::path::Path, request: &Request) -> Response {
    let format = match request.query("format").as_deref() {
        None | Some("csv") => export::Format::Csv,
        Some("json") => export::Format::JsonLines,
        Some(_) => return bad("format is csv or json."),
    };
    let mut filter = export::Filter::default();
    for name in ["from", "to", "last", "node"] {
        let Some(text) = request.query(name) else { continue };
        let Ok(value) = text.parse::<f64>() else { return bad("from, to, last and node are numbers.") };
        if let Err(text) = filter.set(name, value) {
            return bad(&text);
        }
    }
    let content_type = match format {
        export::Format::Csv => "text/csv; charset=utf-8",
        export::Format::JsonLines => "application/x-ndjson",
    };
    match export::Exporter::open_directory(directory, format, filter) {
        Ok(mut exporter) => {
            let stream: Stream = Box::new(move |out| exporter.next_piece(out));
            Response { body: Body::Stream(stream), ..Response::ok(content_type, &b""[..]) }
        }
        Err(error) => Response::error("503 Service Unavailable", &format!("The log cannot be read: {error}")),
    }
}

/// The file as it is now. Its name is a name of the log's own form, so no path leads out of the directory.
fn log_file(directory: &std::path::Path, name: &str) -> Response {
    let found = Name::new(name).filter(|name| name.as_str().ends_with(".gpl"));
    let Some(name) = found else { return Response::error("404 Not Found", "The log has no such file.") };
    let opened = File::open(directory.join(name.as_str())).and_then(|file| {
        let len = file.metadata()?.len();
        Ok((file, len))
    });
    match opened {
        Ok((file, len)) => {
            let mut rest = file.take(len);
            let stream: Stream = Box::new(move |out| piece(&mut rest, out));
            Response { body: Body::Sized(len, stream), ..Response::ok("application/octet-stream", &b""[..]) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Response::error("404 Not Found", "The log has no such file.")
        }
        Err(error) => Response::error("503 Service Unavailable", &error.to_string()),
    }
}

/// The next piece of a file; fails when the file has become shorter, so that the answer is seen to be cut.
fn piece(rest: &mut io::Take<File>, out: &mut Vec<u8>) -> io::Result<bool> {
    const PIECE: u64 = 64 * 1024;
    let wanted = rest.limit().min(PIECE);
    let got = Read::by_ref(rest).take(wanted).read_to_end(out)?;
    if (got as u64) < wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(rest.limit() > 0)
}
