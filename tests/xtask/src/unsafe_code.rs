//! Which files hold `unsafe`, how much, and whether each has its proof.
//!
//! Clippy sees that a block has a `SAFETY` comment. This report adds what a reviewer asks next: is the crate closed by
//! default, does each file that opens it say why, and how long is the list.

use std::path::Path;

use crate::run::Stop;
use crate::workspace::Workspace;

/// What one file holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    blocks: usize,
    impls: usize,
    functions: usize,
    /// `unsafe extern` blocks and `#[unsafe(…)]` attributes.
    others: usize,
    proofs: usize,
    /// Lines of blocks and impls without a proof above them.
    unproved: Vec<usize>,
    /// Why the file may hold unsafe code.
    reason: Option<String>,
}

impl Tally {
    fn is_empty(&self) -> bool {
        self.blocks + self.impls + self.functions + self.others == 0
    }
}

/// Prints one line a file.
///
/// # Errors
///
/// [`Stop::Failed`] when a block or an impl has no `SAFETY` proof, a file gives no reason, or a crate root does not
/// `deny(unsafe_code)`.
pub(crate) fn report(workspace: &Workspace) -> Result<(), Stop> {
    let mut faults = Vec::new();
    for root in workspace.members.iter().flat_map(|package| &package.roots) {
        let text = workspace.read(root)?;
        if !text.contains("#![deny(unsafe_code)]") && !text.contains("#![forbid(unsafe_code)]") {
            let shown = root.strip_prefix(&workspace.root).unwrap_or(root);
            faults.push(format!("{}: a crate starts with #![deny(unsafe_code)]", shown.display()));
        }
    }
    let (mut total, mut files) = (Tally::default(), 0);
    println!("  {:>6} {:>5} {:>5} {:>6} {:>6}  file: reason", "blocks", "impls", "fns", "others", "proofs");
    for file in workspace.files(&[".rs"])? {
        let tally = tally(&workspace.read(&file)?);
        if tally.is_empty() {
            continue;
        }
        let reason = tally.reason.as_deref().unwrap_or("-");
        println!(
            "  {:>6} {:>5} {:>5} {:>6} {:>6}  {}: {reason}",
            tally.blocks,
            tally.impls,
            tally.functions,
            tally.others,
            tally.proofs,
            file.display()
        );
        for line in &tally.unproved {
            faults.push(format!("{}:{line}: no `SAFETY` proof", file.display()));
        }
        if tally.reason.is_none() && !gives_reason_elsewhere(&file) {
            faults.push(format!(
                "{}: needs #![allow(unsafe_code, reason = \"…\")] at its start",
                file.display()
            ));
        }
        files += 1;
        total.blocks += tally.blocks;
        total.impls += tally.impls;
        total.functions += tally.functions;
        total.proofs += tally.proofs;
    }
    println!(
        "  {files} files, {} blocks, {} impls, {} functions, {} proofs",
        total.blocks, total.impls, total.functions, total.proofs
    );
    if faults.is_empty() { Ok(()) } else { Err(Stop::failed(faults.join("\n"))) }
}

/// Integration tests, benches and firmware are crates of their own, whose roots say what they allow.
fn gives_reason_elsewhere(file: &Path) -> bool {
    file.components().any(|part| ["benches", "examples"].iter().any(|name| part.as_os_str() == *name))
}

fn tally(text: &str) -> Tally {
    let code = without_comments_and_strings(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut tally = Tally { reason: reason(text), ..Tally::default() };
    tally.proofs = lines.iter().filter(|line| comment(line).is_some_and(|it| it.contains("SAFETY:"))).count();
    for (at, _) in code.match_indices("unsafe") {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let rest = &code[at + "unsafe".len()..];
        if code[..at].chars().next_back().is_some_and(word) || rest.chars().next().is_some_and(word) {
            continue;
        }
        let rest = rest.trim_start();
        let needs_proof = rest.starts_with('{') || rest.starts_with("impl");
        if rest.starts_with('{') {
            tally.blocks += 1;
        } else if rest.starts_with("impl") {
            tally.impls += 1;
        } else if rest.starts_with("fn") || rest.starts_with("extern \"") && rest.contains("fn") {
            tally.functions += 1;
        } else {
            tally.others += 1;
        }
        let line = code[..at].matches('\n').count();
        if needs_proof && !has_proof(&lines, line) {
            tally.unproved.push(line + 1);
        }
    }
    tally
}

/// True when a `SAFETY` comment stands on the line, or above it with nothing between but comments, attributes and the
/// beginning of the same statement.
fn has_proof(lines: &[&str], line: usize) -> bool {
    for (distance, text) in lines[..=line].iter().rev().enumerate() {
        if let Some(comment) = comment(text) {
            if comment.contains("SAFETY:") {
                return true;
            }
            if text.trim_start().starts_with("//") {
                continue;
            }
        }
        let text = text.trim();
        let ends_before = text.is_empty() || text.ends_with([';', '{', '}']) && !text.starts_with('#');
        if distance > 0 && ends_before {
            return false;
        }
    }
    false
}

fn comment(line: &str) -> Option<&str> {
    line.find("//").or_else(|| line.find("/*")).map(|at| &line[at..])
}

/// The text inside `#![allow(unsafe_code, reason = "…")]`.
fn reason(text: &str) -> Option<String> {
    let start = text.find("#![allow(unsafe_code")?;
    let inside = &text[start..start + text[start..].find(")]")?];
    let quoted = inside.split_once("reason")?.1.split_once('"')?.1;
    Some(quoted.split('"').next()?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The text with comments and literals blanked out, lines kept.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let blank = blank_len(rest, code.chars().next_back());
        if blank == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.extend(rest[..blank].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[blank..];
        }
    }
    code
}

/// Bytes at the start of `rest` that are a comment or a literal.
fn blank_len(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_len(rest);
    }
    if rest.starts_with('r') && !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
        if rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            return rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len());
        }
    }
    if rest.starts_with('"') {
        return quoted_len(rest, '"').unwrap_or(rest.len());
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        // A lifetime has no closing quote after its first character.
        let is_char = inside.starts_with('\\') || inside.chars().nth(1) == Some('\'');
        return if is_char { quoted_len(rest, '\'').unwrap_or(rest.len()) } else { 0 };
    }
    0
}

fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted_len(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r##"
#![allow(unsafe_code, reason = "registers are
    read here")]
// unsafe { in a comment }
fn text() -> &'static str { "unsafe { in a string }" }
fn raw() -> &'static str { r#"unsafe { "quoted" }"# }
fn quote() -> char { '"' }
fn proved(p: *const u8) -> u8 {
    // SAFETY: `p` is valid: the caller of `proved`
    // checked it.
    let value =
        unsafe { p.read() };
    value
}
fn unproved(p: *const u8) -> u8 {
    // SAFETY: belongs to the statement below.
    let _ = 1;
    unsafe { p.read() }
}
// SAFETY: no shared state.
unsafe impl Send for X {}
unsafe fn callee() {}
"##;

    #[test]
    fn blocks_impls_and_functions_are_counted_outside_comments_and_strings() {
        let tally = tally(FILE);
        assert_eq!((tally.blocks, tally.impls, tally.functions, tally.others), (2, 1, 1, 0));
        assert_eq!(tally.proofs, 3);
        assert_eq!(tally.reason.as_deref(), Some("registers are read here"));
    }

    #[test]
    fn a_block_whose_proof_belongs_to_another_statement_is_reported() {
        assert_eq!(tally(FILE).unproved, [18]);
    }

    #[test]
    fn a_file_without_a_reason_has_none() {
        assert_eq!(tally("#![allow(unsafe_code)]\nunsafe fn f() {}").reason, None);
    }
}
