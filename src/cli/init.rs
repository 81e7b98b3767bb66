//! `init`: an example manifest.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::output;
use crate::diagnostic::Kind;

/// Flags of `init`.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

const EXAMPLE: &str = r#"// `imagewright check` explains every mistake; `imagewright show base tabular` prints a built-in base.

image "model" base="tabular" {
    pip "scikit-learn" ">=1.5"
}

run "imports" image="model" {
    command "python" "-c" "import sklearn; print(sklearn.__version__)"
}
"#;

/// What `init --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct InitDocument {
    /// The manifest that was written.
    pub path: String,
}

/// Puts the example into place, all or nothing; over nothing that is there.
fn write(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let mut file = tempfile::Builder::new()
        .prefix(".imagewright.")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)?;
    file.write_all(EXAMPLE.as_bytes())?;
    file.persist_noclobber(path)?;
    Ok(())
}

/// Writes the example unless a manifest is there.
pub fn run(context: &Context, _: &Arguments) -> Result<ExitCode, Failure> {
    let path = &context.manifest_path;
    match write(path) {
        Ok(()) => {
            let path = path.display().to_string();
            if context.global.json {
                output::json(&InitDocument { path });
            } else {
                output::line(&format!("wrote {path}; now run: imagewright test"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::plain(
            Kind::Usage,
            format!("{} is there already", path.display()),
            "it was left as it is",
        )),
        Err(error) => Err(Failure::unwritten(path, &error, "")),
    }
}
