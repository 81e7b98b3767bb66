//! Measures the catalog: how fast queries are answered, and how fast a registry's records are read.
//!
//! ```text
//! cargo bench --bench catalog -- [--records N]          # an index of made-up records, and queries
//! cargo bench --bench catalog -- --sync [--records N]   # a docker-registry filled with them, and `sync`
//! ```

// A command of its own: this is where its output goes.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../../tests/registry/plain.rs"]
mod plain;
mod query;
mod records;
mod sync;

use clap::Parser;

/// Measure the catalog.
#[derive(Debug, Parser)]
struct Options {
    /// How many records; default: 100,000 for queries, 10,000 for `--sync`.
    #[arg(long)]
    records: Option<u64>,
    /// Measure `sync` with a docker-registry instead.
    #[arg(long)]
    sync: bool,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    match options.sync {
        true => sync::measure(options.records.unwrap_or(10_000)),
        false => query::measure(options.records.unwrap_or(100_000)),
    }
}
