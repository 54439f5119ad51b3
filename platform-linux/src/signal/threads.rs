//! Which threads would still take a signal.

use alloc::boxed::Box;
use alloc::string::String;
use std::{fs, io};

use super::SignalSet;

/// A thread that does not block some signal of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unblocked {
    /// Its number.
    pub tid: u32,
    /// Its name.
    pub name: String,
}

/// The threads of this process that do not block the whole of `set`, by `/proc/self/task/*/status`.
///
/// A thread that is just being created blocks everything until the C library has set it up, and is missed.
///
/// # Errors
///
/// What reading `/proc` gives where it is not mounted. A thread that ends meanwhile is left out.
pub fn threads_not_blocking(set: SignalSet) -> io::Result<Box<[Unblocked]>> {
    let mut found = alloc::vec::Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default()
        };
        let blocked = u64::from_str_radix(field("SigBlk:"), 16).unwrap_or(0);
        // A zombie has no mask to speak of and takes nothing.
        if set.bits() & !blocked != 0 && !field("State:").starts_with('Z') {
            found.push(Unblocked {
                tid: field("Pid:").parse().unwrap_or(0),
                name: String::from(field("Name:")),
            });
        }
    }
    Ok(found.into_boxed_slice())
}
