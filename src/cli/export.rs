//! `export`: an image as OCI layout, OCI archive or Docker archive.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::build;
use super::context::Context;
use super::failure::Failure;
use super::interrupt::{Graceful, Watched};
use super::output;
use super::pipeline::materialise::Need;
use super::substitution::{BuildFlags, Wish};
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::image::{DockerArchive, Image, OciArchive, StoreSource, export_layout, write_file};

/// Flags of `export`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The image
    image: String,
    #[command(flatten)]
    target: Target,
    /// The name in the layout or archive; default: the image's, with the tag `latest` in a Docker archive
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    flags: BuildFlags,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Write into this OCI image layout; what is in it already stays
    #[arg(long, value_name = "DIR")]
    oci: Option<PathBuf>,
    /// Write this OCI archive (a tar of a layout)
    #[arg(long, value_name = "FILE")]
    oci_archive: Option<PathBuf>,
    /// Write this archive for `docker load`
    #[arg(long, value_name = "FILE")]
    docker_archive: Option<PathBuf>,
}

/// What `export --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ExportDocument {
    /// Where it was written.
    pub path: String,
    /// What the name stands for: a manifest, an index (several platforms), or a Docker image ID.
    pub digest: Digest,
}

/// Exports.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let manifest = context.manifest()?;
    let store = context.store()?;
    let http = context.http()?;
    let wanted = [arguments.image.clone()];
    let wish = Wish::new(arguments.flags, Need::Bytes);
    let built = build::images(context, &store, &http, &manifest, &wanted, &wish)?;
    let images: Vec<Image> = built.into_iter().map(|named| named.built.image).collect();
    let stored = StoreSource::new(&store);
    let source = Watched {
        source: &stored,
        cancel: &context.cancel,
    };
    let _graceful = Graceful::begin();
    let name = arguments.name.as_deref().unwrap_or(&arguments.image);
    let progress = &*context.progress;
    let target = &arguments.target;
    let (path, digest) = if let Some(dir) = &target.oci {
        (dir, export_layout(dir, name, &images, &source, progress)?)
    } else if let Some(file) = &target.oci_archive {
        let archive = OciArchive {
            name,
            images: &images,
        };
        (
            file,
            write_file(file, |out| archive.write(out, &source, progress))?,
        )
    } else if let Some(file) = &target.docker_archive {
        let [image] = images.as_slice() else {
            return Err(Failure::plain(
                Kind::Usage,
                "a Docker archive holds one platform",
                "declare one platform, or use --oci or --oci-archive",
            ));
        };
        let archive = DockerArchive { name, image };
        (
            file,
            write_file(file, |out| archive.write(out, &source, progress))?,
        )
    } else {
        return Err(Failure::plain(
            Kind::Usage,
            "nothing says where to write",
            "give --oci DIR",
        ));
    };
    let document = ExportDocument {
        path: path.display().to_string(),
        digest,
    };
    if context.global.json {
        output::json(&document);
    } else {
        output::line(&format!("wrote {} ({})", document.path, document.digest));
    }
    Ok(ExitCode::SUCCESS)
}
