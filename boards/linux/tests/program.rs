//! The program as a person runs it: processes, files, signals.
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "a hosted test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_groundplane");

/// A directory of its own, gone at the end.
struct Scratch(PathBuf);
impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("groundplane-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A UDP port that was free a moment ago.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Gateway {
    child: Child,
    lines: BufReader<ChildStdout>,
    page: String,
}

fn gateway(dir: &Path, port: u16, more: &[&str]) -> Gateway {
    let mut child = Command::new(PROGRAM)
        .args([
            "gateway",
            "--json",
            "--page",
            "127.0.0.1:0",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--dir",
        ])
        .arg(dir)
        .args(more)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let started: Value = serde_json::from_str(&first).unwrap();
    let page =
        started["page"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/').to_owned();
    Gateway { child, lines, page }
}

fn get(page: &str, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(page).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Sequence numbers in the log of node `node`, which has one boot, in order of the log.
fn logged(dir: &Path, node: u64) -> Vec<u64> {
    let out = Command::new(PROGRAM).args(["log", "cat", "--json"]).arg(dir).output().unwrap();
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["node"] == node).map(|line| line["sequence"].as_u64().unwrap()).collect()
}

#[test]
fn a_short_run_logs_every_sample_and_sums_up() {
    let dir = Scratch::new("short");
    let mut gateway = gateway(&dir.0, free_port(), &["--for", "2s", "--rate", "500"]);
    let mut text = String::new();
    gateway.lines.read_to_string(&mut text).unwrap();
    assert!(gateway.child.wait().unwrap().success());
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let made = summary["samples_taken"].as_u64().unwrap();
    assert!(made > 500, "{summary}");
    assert_eq!(summary["acknowledged"], made, "{summary}");
    assert_eq!(logged(&dir.0, 1), (0..made).collect::<Vec<_>>());
    let verify = Command::new(PROGRAM).args(["log", "verify"]).arg(&dir.0).output().unwrap();
    assert!(verify.status.success());
    assert!(String::from_utf8_lossy(&verify.stdout).contains("closed in order"));
}

#[test]
fn the_page_and_what_lies_beside_it_answer() {
    let dir = Scratch::new("page");
    let mut gateway = gateway(&dir.0, free_port(), &["--for", "4s"]);
    std::thread::sleep(Duration::from_millis(1800));
    let (head, body) = get(&gateway.page, "/");
    assert!(
        head.starts_with("HTTP/1.1 200")
            && head.contains("default-src 'self'")
            && body.contains("embedded #1")
    );
    let (_, state) = get(&gateway.page, "/api/state");
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["nodes"][0]["name"], "embedded");
    assert!(state["acknowledged"].as_u64().unwrap() > 0);
    assert!(get(&gateway.page, "/metrics").1.contains("groundplane_samples_total"));
    assert!(get(&gateway.page, "/api/export?format=csv&last=60").1.contains(",sine,V,"));
    let file = state["log"]["segments"][0]["name"].as_str().unwrap().to_owned();
    let (head, _) = get(&gateway.page, "/log/nothing.gpl");
    assert!(head.starts_with("HTTP/1.1 404"));
    for outside in ["/log/../Cargo.toml", "/log/%2e%2e%2fsecret.gpl", "/log/lock", "/nothing"] {
        assert!(get(&gateway.page, outside).0.starts_with("HTTP/1.1 404"), "{outside}");
    }
    let mut socket = TcpStream::connect(&gateway.page).unwrap();
    write!(socket, "GET /log/{file} HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let body = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert_eq!((&bytes[body..body + 8], bytes.len() - body), (&b"GPSEG001"[..], 16 << 20));
    assert!(gateway.child.wait().unwrap().success());
}

#[test]
fn a_directory_that_is_in_use_and_a_page_port_that_is_taken_are_explained() {
    let dir = Scratch::new("use");
    let mut first = gateway(&dir.0, free_port(), &["--for", "3s", "--no-node"]);
    let run = |args: &[&str]| {
        let out = Command::new(PROGRAM)
            .arg("gateway")
            .args(args)
            .args(["--no-node", "--for", "1s"])
            .output()
            .unwrap();
        assert!(!out.status.success());
        String::from_utf8(out.stderr).unwrap()
    };
    let dir_text = dir.0.to_str().unwrap();
    let text = run(&["--dir", dir_text, "--listen", "127.0.0.1:0", "--page", "127.0.0.1:0"]);
    assert!(text.contains("in use by another gateway"), "{text}");
    let other = Scratch::new("use2");
    let text = run(&["--dir", other.0.to_str().unwrap(), "--listen", "127.0.0.1:0", "--page", &first.page]);
    assert!(text.contains("--page"), "{text}");
    let text = run(&["--dir", "/proc/nowhere", "--listen", "127.0.0.1:0", "--page", "127.0.0.1:0"]);
    assert!(text.contains("log directory /proc/nowhere"), "{text}");
    assert!(first.child.wait().unwrap().success());
}

/// Every record that was acknowledged to the node is there, once and in order, after the gateway was killed again and
/// again in the middle of its work; in the end everything is.
#[test]
fn kill_dash_nine_loses_nothing_that_was_acknowledged() {
    let (dir, port) = (Scratch::new("kill"), free_port());
    let mut running = gateway(&dir.0, port, &["--no-node"]);
    let mut node = Command::new(PROGRAM)
        .args([
            "node",
            "--json",
            "--id",
            "5",
            "--rate",
            "2000",
            "--gateway",
            &format!("127.0.0.1:{port}"),
            "--for",
            "12s",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for round in 0..25 {
        std::thread::sleep(Duration::from_millis(300 + 37 * (round % 5)));
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        running = gateway(&dir.0, port, &["--no-node"]);
    }
    let mut text = String::new();
    node.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(node.wait().unwrap().success());
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = &lines.last().unwrap()["summary"];
    let made = summary["samples"].as_u64().unwrap();
    let acked = lines.iter().filter(|line| line["event"] == "acked").count();
    assert!(made > 10_000 && acked > 20, "{summary}");
    assert_eq!(summary["acknowledged"], made, "{summary}");
    assert_eq!(summary["dropped"], 0, "{summary}");
    let logged = logged(&dir.0, 5);
    assert!(logged.iter().copied().eq(0..made), "{} in the log, {made} made", logged.len());
}
