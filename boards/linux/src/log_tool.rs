//! `groundplane log`: what is in log files.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use gateway::log::Walk;
use gateway::log::format::SegmentError;

use crate::export::{Exporter, Filter, Format, previous_end, segments};

/// Prints the samples of the files.
pub(crate) fn cat(files: &[PathBuf], json: bool) -> io::Result<()> {
    let format = if json { Format::JsonLines } else { Format::Csv };
    let mut exporter = Exporter::new(segments(files)?, format, Filter::default())?;
    let mut out = io::stdout().lock();
    loop {
        let mut piece = Vec::new();
        let more = exporter.next_piece(&mut piece)?;
        match out.write_all(&piece) {
            // The reader has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
        if !more {
            return Ok(());
        }
    }
}

/// Checks the files; exit status 1 when something is damaged, 2 when something cannot be read.
pub(crate) fn verify(files: &[PathBuf], json: bool) -> ExitCode {
    match try_verify(files, json) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("groundplane: {error}");
            ExitCode::from(2)
        }
    }
}

fn try_verify(files: &[PathBuf], json: bool) -> io::Result<bool> {
    let files = segments(files)?;
    let mut sound = !files.is_empty();
    if files.is_empty() {
        eprintln!("groundplane: no log files there");
    }
    for (index, path) in files.iter().enumerate() {
        let bytes = std::fs::read(path)?;
        let limit = files.get(index + 1).and_then(|next| previous_end(next));
        let walk = match Walk::new(&bytes, limit) {
            Ok(walk) => walk,
            Err(error) => {
                sound = false;
                let text = match error {
                    SegmentError::Version => "of a later version",
                    SegmentError::Damaged => "its first block is damaged",
                    _ => "not a log file",
                };
                println!("{}: {text}", path.display());
                continue;
            }
        };
        sound &= walk.rot.is_empty();
        if json {
            let rot: Vec<_> = walk
                .rot
                .iter()
                .map(
                    |rot| serde_json::json!({"first": rot.first, "last": rot.last, "salvaged": rot.salvaged}),
                )
                .collect();
            println!(
                "{}",
                serde_json::json!({
                    "file": path, "frames": walk.frame_count(), "records": walk.records().count(), "mark": walk.mark,
                    "end": walk.end, "cut": walk.cut, "closed": walk.closed, "rot": rot,
                })
            );
            continue;
        }
        let ending = if walk.closed { ", closed in order" } else { "" };
        println!(
            "{}: {} frames, {} records{ending}",
            path.display(),
            walk.frame_count(),
            walk.records().count()
        );
        for rot in &walk.rot {
            println!(
                "  damaged: frames {} to {}, {} records of them can be read",
                rot.first, rot.last, rot.salvaged
            );
        }
        if walk.cut > 0 {
            println!("  {} frames behind the end were never acknowledged", walk.cut);
        }
    }
    Ok(sound)
}
