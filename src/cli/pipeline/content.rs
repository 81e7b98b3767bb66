//! What the project's folder adds to an image: its files and wheels, hashed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::{Explain, Problem, Problems};
use crate::digest::Digest;
use crate::identity::ProjectContent;
use crate::layer::files::{self, Scanned};
use crate::manifest::{FileSpec, ImageRequest, Spanned};
use crate::resolve::python::ProjectWheel;

/// What the project's folder adds.
#[derive(Debug)]
pub struct Content {
    /// As identity sees it.
    pub project: ProjectContent,
    /// Path as the manifest has it → wheel file.
    pub wheels: BTreeMap<String, ProjectWheel>,
    /// The files.
    pub files: Scanned,
}

/// Hashes what `image` names.
pub fn read(context: &Context, image: &ImageRequest) -> Result<Content, Failure> {
    let files = scan(&context.folder, &image.files, &[])?;
    let mut wheels = BTreeMap::new();
    let mut problems = Problems::default();
    for requirement in &image.pip {
        let Some(path) = &requirement.wheel else {
            continue;
        };
        match wheel(&context.folder.join(path)) {
            Ok(wheel) => {
                wheels.insert(path.clone(), wheel);
            }
            Err(error) => problems.0.push(
                Problem::new(
                    &requirement.source,
                    requirement.span,
                    format!("the wheel {path} cannot be read: {error}"),
                    "asked for here",
                )
                .help("the path is relative to the manifest; build the wheel first"),
            ),
        }
    }
    let project = ProjectContent {
        files: files.entries.clone(),
        wheels: wheels
            .iter()
            .map(|(path, wheel)| (path.clone(), wheel.sha256))
            .collect(),
    };
    problems
        .or(Content {
            project,
            wheels,
            files,
        })
        .map_err(Failure::from)
}

/// Hashes the files of `file` nodes; what is wrong is told at the node. See [`files::scan`] for `open`.
pub fn scan(folder: &Path, specs: &[Spanned<FileSpec>], open: &[&str]) -> Result<Scanned, Failure> {
    files::scan(folder, specs.iter().map(|spec| &spec.value), open).map_err(|error| {
        let Some(spec) = specs.get(error.index) else {
            return error.into();
        };
        let mut problem = Problem::new(&spec.source, spec.span, error.to_string(), "declared here")
            .kind(error.kind());
        problem.help = error.hint();
        Problems(vec![problem]).into()
    })
}

fn wheel(path: &Path) -> std::io::Result<ProjectWheel> {
    let (sha256, size) = Digest::of_reader(std::fs::File::open(path)?)?;
    Ok(ProjectWheel {
        path: std::path::absolute(path)?,
        sha256,
        size,
    })
}
