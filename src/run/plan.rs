//! Run + image → cells: the matrix expanded, axes replaced. Pure.

use std::collections::BTreeMap;

use super::{RunDocument, RunError};
use crate::digest::Digest;
use crate::manifest::{Platform, RunSpec};

/// Cells of one run.
const MOST_CELLS: usize = 10_000;

/// One cell of a run's matrix; a run without a matrix has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The run's name and the cell's values in declared order: `titanic[seed=1,slice=eu]`.
    pub name: String,
    /// Its project.
    pub project: String,
    /// What is executed, on what, with what.
    pub document: RunDocument,
    /// The run key.
    pub key: Digest,
}

/// Expands a run, the last declared axis varying fastest. `files` is the diff ID of the run's own layer.
///
/// # Errors
/// More than 10,000 cells.
pub fn plan(
    run: &RunSpec,
    image: Digest,
    platform: Platform,
    files: Option<Digest>,
) -> Result<Vec<Cell>, RunError> {
    let cells = run.matrix.iter().fold(1_usize, |product, (_, values)| {
        product.saturating_mul(values.len())
    });
    if cells > MOST_CELLS {
        return Err(RunError::TooManyCells {
            run: run.name.value.clone(),
            cells,
            most: MOST_CELLS,
        });
    }
    let mut chosen: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
    for (axis, values) in &run.matrix {
        chosen = chosen
            .iter()
            .flat_map(|cell| {
                values.iter().map(|value| {
                    let mut cell = cell.clone();
                    cell.push((axis.as_str(), value.as_str()));
                    cell
                })
            })
            .collect();
    }
    Ok(chosen
        .iter()
        .map(|cell| one(run, image, platform, files, cell))
        .collect())
}

fn one(
    run: &RunSpec,
    image: Digest,
    platform: Platform,
    files: Option<Digest>,
    cell: &[(&str, &str)],
) -> Cell {
    let values: BTreeMap<&str, &str> = cell.iter().copied().collect();
    let document = RunDocument {
        v: RunDocument::VERSION,
        image,
        files,
        command: run.command.iter().map(|word| fill(word, &values)).collect(),
        env: run
            .env
            .iter()
            .map(|(name, value)| (name.clone(), fill(value, &values)))
            .collect(),
        workdir: run.workdir.clone(),
        resources: run.resources,
        timeout_ms: run.timeout_ms,
        platform,
        network: run.network,
        cell: values
            .iter()
            .map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let list: Vec<_> = cell
        .iter()
        .map(|(axis, value)| format!("{axis}={value}"))
        .collect();
    let suffix = if list.is_empty() {
        String::new()
    } else {
        format!("[{}]", list.join(","))
    };
    Cell {
        name: run.name.value.clone() + &suffix,
        project: run.project.clone(),
        key: document.key(),
        document,
    }
}

/// Replaces `{axis}` by its value, `{{` by `{` and `}}` by `}`; other braces stay. (The manifest's reader refuses
/// undeclared axes.)
fn fill(text: &str, values: &BTreeMap<&str, &str>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        filled += before;
        let known = from
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
            .and_then(|(axis, after)| Some((*values.get(axis)?, after)));
        rest = if from.starts_with("{{") || from.starts_with("}}") {
            filled += &from[..1];
            &from[2..]
        } else if let Some((value, after)) = known {
            filled += value;
            after
        } else {
            filled += &from[..1];
            &from[1..]
        };
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{SourceText, Span};
    use crate::manifest::{Network, Resources, Spanned};

    fn run() -> RunSpec {
        let name = |value: &str| Spanned {
            value: value.to_owned(),
            source: SourceText::new("test", ""),
            span: Span::default(),
        };
        RunSpec {
            name: name("titanic"),
            image: name("model"),
            project: "fraud".into(),
            files: Vec::new(),
            matrix: vec![
                ("seed".into(), vec!["1".into(), "2".into()]),
                ("slice".into(), vec!["eu".into(), "us".into()]),
            ],
            command: vec!["test".into(), "--{slice}={seed}".into()],
            env: BTreeMap::from([("WHERE".into(), "{{{slice}}} {other} }".into())]),
            workdir: None,
            resources: Resources::default(),
            timeout_ms: 1000,
            network: Network::None,
        }
    }

    fn planned(run: &RunSpec) -> Vec<Cell> {
        plan(run, Digest::of("image"), Platform::LinuxAmd64, None).unwrap()
    }

    #[test]
    fn expands_in_declared_order_and_fills_in() {
        let cells = planned(&run());
        let names: Vec<_> = cells.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "titanic[seed=1,slice=eu]",
                "titanic[seed=1,slice=us]",
                "titanic[seed=2,slice=eu]",
                "titanic[seed=2,slice=us]"
            ]
        );
        assert_eq!(cells[2].document.command, ["test", "--eu=2"]);
        assert_eq!(cells[1].document.env["WHERE"], "{us} {other} }");
        let mut plain = run();
        plain.matrix.clear();
        assert_eq!(planned(&plain)[0].name, "titanic");
    }

    #[test]
    fn refuses_a_matrix_that_explodes() {
        let mut big = run();
        let values: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        big.matrix = (0..8).map(|n| (format!("a{n}"), values.clone())).collect();
        let error = plan(&big, Digest::of(""), Platform::LinuxAmd64, None).unwrap_err();
        assert!(error.to_string().contains("titanic"));
    }

    #[test]
    fn every_field_changes_the_key_and_names_do_not() {
        let base = planned(&run()).remove(0);
        let document = base.document.clone();
        let changed = |change: &dyn Fn(&mut RunDocument)| {
            let mut other = document.clone();
            change(&mut other);
            other.key()
        };
        let keys = [
            changed(&|d| d.image = Digest::of("other")),
            changed(&|d| d.files = Some(Digest::of("files"))),
            changed(&|d| d.command.push("more".into())),
            changed(&|d| _ = d.env.insert("A".into(), "b".into())),
            changed(&|d| d.workdir = Some("/w".into())),
            changed(&|d| d.resources.ram_limit_bytes += 1),
            changed(&|d| d.timeout_ms += 1),
            changed(&|d| d.platform = Platform::LinuxArm64),
            changed(&|d| d.network = Network::Host),
            changed(&|d| _ = d.cell.insert("seed".into(), "9".into())),
            base.key,
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        let mut renamed = run();
        renamed.name.value = "other".into();
        renamed.project = "other".into();
        assert_eq!(planned(&renamed)[0].key, base.key);
    }
}
