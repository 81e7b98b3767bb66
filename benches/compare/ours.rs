//! Our side: projects and a store below the run's folder, and the `imagewright` command.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{Call, Measured, Outcome};

/// A project with a store.
#[derive(Debug)]
pub struct Project {
    program: PathBuf,
    folder: PathBuf,
    store: PathBuf,
    index: String,
}

impl Project {
    /// An empty project named `name` below `run`; projects with one `store` share what is in it.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn new(program: &Path, run: &Path, name: &str, store: &str, index: &str) -> Outcome<Self> {
        let folder = run.join("projects").join(name);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self {
            program: program.to_owned(),
            folder,
            store: run.join("stores").join(store),
            index: index.to_owned(),
        })
    }

    /// Declares one image with these requirements (`name==version`) on the base in the layout `base`.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub fn declare(&self, image: &str, base: &Path, requirements: &[&str]) -> Outcome<()> {
        self.declare_all("", &[image], base, requirements)
    }

    /// The same for several images that have a registry.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub fn declare_in(
        &self,
        registry: &str,
        images: &[&str],
        base: &Path,
        requirements: &[&str],
    ) -> Outcome<()> {
        let node = format!("registry {}\n", quoted(registry));
        self.declare_all(&node, images, base, requirements)
    }

    fn declare_all(
        &self,
        head: &str,
        images: &[&str],
        base: &Path,
        requirements: &[&str],
    ) -> Outcome<()> {
        let base = quoted(&format!("oci:{}", base.display()));
        let mut text = format!("{head}base \"bench\" {{\n    from {base}\n}}\n");
        for image in images {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "\nimage \"{image}\" base=\"bench\" {{");
            for requirement in requirements {
                let (name, version) = requirement.split_once("==").unwrap_or((requirement, ""));
                let (name, version) = (quoted(name), quoted(&format!("=={version}")));
                let _ = writeln!(text, "    pip {name} {version}");
            }
            text.push_str("}\n");
        }
        let path = self.folder.join("imagewright.kdl");
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Takes the lock of another project over, as one that is in version control.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn take_lock(&self, other: &Self) -> Outcome<()> {
        fs::copy(other.lock_path(), self.lock_path())
            .map(drop)
            .map_err(|error| format!("{}: {error}", self.folder.display()))
    }

    /// Runs the command with the project's options.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, args: &[&str]) -> Outcome<Measured> {
        Call::new(&self.program)
            .args([
                Path::new("-C"),
                &self.folder,
                Path::new("--store"),
                &self.store,
            ])
            .args(args)
            .env("UV_DEFAULT_INDEX", &self.index)
            .env("IMAGEWRIGHT_STORE", &self.store)
            .run()
    }

    /// Locks the project anew.
    ///
    /// # Errors
    /// When the command fails or writes no lock.
    pub fn lock(&self) -> Outcome<Measured> {
        let path = self.lock_path();
        let _ = fs::remove_file(&path);
        let measured = self.run(&["lock"])?;
        if !path.is_file() {
            return Err("`imagewright lock` ended well and wrote no imagewright.lock".into());
        }
        let kept = fs::copy(&path, self.folder.join("as-locked"));
        kept.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(measured)
    }

    /// Forgets every layer that was made from wheels, and every unpacked tree: an image without its layers is built
    /// anew. What the store knows of the base stays: it is known on the other side, too.
    ///
    /// # Errors
    /// When the store cannot be changed.
    pub fn forget(&self) -> Outcome<()> {
        let base = self.store.join("store-v1");
        let text = |error: std::io::Error| format!("{}: {error}", base.display());
        let inside = |folder: &str| {
            fs::read_dir(base.join(folder))
                .into_iter()
                .flatten()
                .flatten()
        };
        if inside("recipes").next().is_none() {
            return Err(format!(
                "{}: the build left no recipes, so there is nothing to build again",
                base.display()
            ));
        }
        for folder in ["recipes", "trees"] {
            for entry in inside(folder) {
                let path = entry.path();
                let removed = if path.is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                removed.map_err(text)?;
            }
        }
        self.restore_lock()
    }

    /// Puts the lock back as `lock` wrote it, without what builds recorded in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn restore_lock(&self) -> Outcome<()> {
        fs::copy(self.folder.join("as-locked"), self.lock_path())
            .map(drop)
            .map_err(|error| format!("{}: {error}", self.folder.display()))
    }

    /// Writes `image` as an OCI layout, into a folder that is not there yet.
    ///
    /// # Errors
    /// When the command fails or writes no layout.
    pub fn export(&self, image: &str, layout: &Path) -> Outcome<Measured> {
        let shown = layout.display().to_string();
        let measured = self.run(&["export", image, "--oci", &shown])?;
        if layout.join("index.json").is_file() {
            Ok(measured)
        } else {
            Err("`imagewright export` ended well and wrote no layout".into())
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join("imagewright.lock")
    }
}

/// A KDL string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
