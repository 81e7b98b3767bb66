//! `schema`: the JSON Schemas of everything that `--json` prints, made from the types.

use std::process::ExitCode;

use schemars::{Schema, schema_for};

use super::context::unknown;
use super::failure::Failure;
use super::output;

/// Flags of `schema`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The command whose output is described, `base` (of `show base`), `record` (of `show` with a
    /// record) or `error`; default: list the names
    name: Option<String>,
}

/// Name → schema, in the order of the help.
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("init", schema_for!(super::init::InitDocument)),
        ("check", schema_for!(super::check::CheckDocument)),
        ("lock", schema_for!(super::lock::LockDocument)),
        ("build", schema_for!(super::build::BuildDocument)),
        ("cache-key", schema_for!(super::lock::CacheKeyDocument)),
        ("metadata", schema_for!(super::metadata::MetadataDocument)),
        ("push", schema_for!(super::push::PushDocument)),
        ("sign", schema_for!(super::sign::SignDocument)),
        ("test", schema_for!(crate::report::Report)),
        ("export", schema_for!(super::export::ExportDocument)),
        ("load", schema_for!(super::load::LoadDocument)),
        ("find", schema_for!(super::find::FindDocument)),
        ("record", schema_for!(super::record::RecordsDocument)),
        ("base", schema_for!(super::show::BaseDocument)),
        ("show", schema_for!(super::show::ShowDocument)),
        ("why", schema_for!(super::why::WhyDocument)),
        ("diff", schema_for!(crate::lock::ImageDiff)),
        ("jobs", schema_for!(super::jobs::JobsDocument)),
        ("results", schema_for!(crate::report::Report)),
        ("rm", schema_for!(super::rm::RmDocument)),
        ("gc", schema_for!(super::gc::GcDocument)),
        ("error", schema_for!(super::failure::ErrorDocument)),
    ]
}

/// Prints one.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let schemas = all();
    let Some(name) = &arguments.name else {
        for (name, _) in &schemas {
            output::line(name);
        }
        return Ok(ExitCode::SUCCESS);
    };
    match schemas.iter().find(|(known, _)| known == name) {
        Some((_, schema)) => {
            output::json(schema);
            Ok(ExitCode::SUCCESS)
        }
        None => Err(unknown(
            "schema",
            name,
            schemas.iter().map(|(name, _)| *name),
        )),
    }
}
