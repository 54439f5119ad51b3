//! Unfinished work left in the source.

use crate::run::Stop;
use crate::workspace::Workspace;

/// Words that mark unfinished work. They are put together here so that this file does not find itself.
const WORDS: [&str; 3] = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];

/// Macros that must not be committed.
const MACROS: [&str; 3] = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("db", "g!(")];

/// Finds macros for unfinished code, and marks of unfinished work that name no issue (`#12`).
///
/// # Errors
///
/// [`Stop::Failed`] with each place.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Stop> {
    let mut faults = Vec::new();
    let files = workspace.files(&[".rs", ".toml", ".sh", ".html", ".js", ".css", ".x", ".py"])?;
    for file in &files {
        for (number, line) in (1..).zip(workspace.read(file)?.lines()) {
            if let Some(word) = fault(line) {
                faults.push(format!("{}:{number}: {word}", file.display()));
            }
        }
    }
    println!("  {} files read", files.len());
    if faults.is_empty() { Ok(()) } else { Err(Stop::failed(faults.join("\n"))) }
}

fn fault(line: &str) -> Option<&'static str> {
    if let Some(name) = MACROS.into_iter().find(|name| line.contains(name)) {
        return Some(name);
    }
    let refers = line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let is_word = |found: &str, word: &str| {
        found.match_indices(word).any(|(at, _)| {
            let around = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            around(found[..at].chars().next_back()) && around(found[at + word.len()..].chars().next())
        })
    };
    WORDS.into_iter().find(|word| !refers && is_word(line, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_needs_the_number_of_an_issue() {
        let mark = WORDS[0];
        assert!(fault(&format!("// {mark}: later")).is_some());
        assert!(fault(&format!("// {mark} (#12): later")).is_none());
        assert!(fault(&format!("let {mark}S = 1;")).is_none());
        assert!(fault("a plain line").is_none());
    }

    #[test]
    fn macros_for_unfinished_code_are_found_with_or_without_a_number() {
        for name in MACROS {
            assert!(fault(&format!("    {name}\"#3\")")).is_some());
        }
    }
}
