//! The only functions of the program that write to standard output.
#![expect(clippy::print_stderr, reason = "the command is where printing belongs")]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;

/// Prints a line of text; a reader that has gone away is no error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints text as it is.
pub fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Prints a document as indented JSON.
pub fn json(document: &impl Serialize) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => line(&text),
        Err(error) => eprintln!("error: cannot write JSON: {error}"),
    }
}

/// Prints an error on standard error.
pub fn failure(failure: &Failure, as_json: bool) {
    if as_json {
        let document = serde_json::to_string_pretty(&failure.to_json());
        eprintln!("{}", document.unwrap_or_default());
    } else {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", failure.render(colour));
    }
}

/// Prints the completion script of `shell`.
pub fn completions<C: clap::CommandFactory>(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut C::command(), "imagewright", &mut script);
    raw(&script);
    ExitCode::SUCCESS
}

/// `bytes` for people: `1.2 GB`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 9.95 => format!("{value:.1} {}", units[unit]),
        _ => format!("{value:.0} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_for_people() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (559_000_000, "559 MB"),
            (1_270_000_000, "1.3 GB"),
            (999_600, "1.0 MB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }
}
