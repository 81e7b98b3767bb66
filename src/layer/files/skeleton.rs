//! The empty virtual environment (PEP 405) that wheels are installed into.

use super::tree::Tree;
use super::{FilesError, layer, paths};
use crate::identity::{LayerDocument, PythonDocument};
use crate::layer::{Layer, VENV};
use crate::lock::LockedPython;
use crate::store::Store;

/// What of the interpreter shapes the skeleton.
pub fn python_document(python: &LockedPython) -> PythonDocument {
    PythonDocument {
        minor: python.minor.to_string(),
        prefix: VENV.into(),
    }
}

/// The skeleton's layer: `pyvenv.cfg`, links to the interpreter, an empty `site-packages`.
///
/// # Errors
/// When the interpreter's path is not absolute, or the store fails.
pub fn skeleton(store: &Store, python: &LockedPython) -> Result<Layer, FilesError> {
    let document = LayerDocument::skeleton(python_document(python), &python.path);
    let comment = format!("python environment {VENV} ({})", python.minor);
    layer(store, &document, comment, || tree(python))
}

fn tree(python: &LockedPython) -> Result<Tree, FilesError> {
    let wrong = || FilesError::Name {
        what: "path of an interpreter",
        value: python.path.clone(),
    };
    let printable = !python.path.chars().any(char::is_control);
    let home = python
        .path
        .rsplit_once('/')
        .map(|(home, _)| home)
        .filter(|home| home.starts_with('/'));
    let home = home.filter(|_| printable).ok_or_else(wrong)?;
    let root = paths::check(VENV).map_err(|_| wrong())?;
    let minor = &python.minor;
    let mut tree = Tree::default();
    // The patch release is left out: the layer serves every one of the minor version.
    let config = format!(
        "home = {home}\nimplementation = CPython\nversion_info = {minor}\ninclude-system-site-packages = false\n"
    );
    tree.file(&format!("{root}/pyvenv.cfg"), config, 0o644);
    tree.link(&format!("{root}/bin/python"), &python.path);
    tree.link(&format!("{root}/bin/python3"), "python");
    tree.link(&format!("{root}/bin/python{minor}"), "python");
    tree.link(&format!("{root}/lib64"), "lib");
    tree.folder(&format!("{root}/lib/python{minor}/site-packages"), 0o755);
    Ok(tree)
}
