//! Every example of the repository: locked, built and tested on the host's index and Debian archive.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::support::TestContext;

/// Debian bases are built by one test at a time; the next one finds them.
static BASES: Mutex<()> = Mutex::new(());

/// A copy of an example, with the store that outlives the tests.
fn example(name: &str) -> TestContext {
    let context = TestContext::kept(name);
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name);
    for entry in walkdir::WalkDir::new(&from) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(&from).unwrap().to_str().unwrap();
            context.write(path, fs::read(entry.path()).unwrap());
        }
    }
    context
}

/// The quickstart, tested; with what that printed.
pub fn quickstart() -> &'static (TestContext, String) {
    static DONE: OnceLock<(TestContext, String)> = OnceLock::new();
    DONE.get_or_init(|| {
        let _alone = BASES.lock().unwrap_or_else(PoisonError::into_inner);
        let context = example("quickstart");
        let printed = context.ok(&["test", "--rerun"]);
        (context, printed)
    })
}

/// The rows of a printed table, header left out, each split into words.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().skip(1).take_while(|line| !line.is_empty());
    lines
        .map(|line| line.split_whitespace().collect())
        .collect()
}

/// The table of summaries, which stands below an empty line.
fn summary(printed: &str) -> &str {
    printed.split_once("\n\n").unwrap().1
}

fn column(table: &str, index: usize) -> Vec<&str> {
    rows(table).into_iter().map(|row| row[index]).collect()
}

#[test]
fn quickstart_ends_with_its_tables() {
    let (context, printed) = quickstart();
    assert!(printed.starts_with("RUN "), "{printed}");
    assert_eq!(rows(printed).len(), 4 * 30);
    for batch in [
        "Subset Performance",
        "Missing Values",
        "Abnormal Inputs",
        "Feature Perturbation",
    ] {
        assert!(printed.contains(batch), "{batch}");
    }
    let table = summary(printed);
    let cells = ["linear", "forest[seed=1]", "forest[seed=2]", "boosted"];
    assert_eq!(column(table, 0), cells);
    assert_eq!(column(table, 2), ["SUCCEEDED"; 4]);
    assert_eq!(
        (column(table, 3), column(table, 4)),
        (vec!["30"; 4], vec!["30"; 4])
    );

    let again = context.run(&["test"]).success();
    assert!(
        again.stderr.contains("4 of 4 had succeeded before"),
        "{}",
        again.stderr
    );
    let ids = |table: &str| -> Vec<String> {
        rows(table)
            .iter()
            .map(|row| {
                row.iter()
                    .find(|word| word.starts_with('j'))
                    .unwrap()
                    .to_string()
            })
            .collect()
    };
    assert_eq!(
        ids(summary(&again.stdout)),
        ids(table),
        "results are reused"
    );
    assert_eq!(column(summary(&again.stdout), 2), ["SUCCEEDED"; 4]);

    let id = ids(table).remove(3);
    let log = context.ok(&["logs", &id]);
    assert!(log.contains("30 passed"), "{log}");
    assert_eq!(context.ok(&["logs", &id, "--stderr"]), "");
    let shown = context.ok(&["results", "--summary", &id]);
    assert_eq!(column(&shown, 0), ["boosted"]);
    assert_eq!(rows(&context.ok(&["results", &id])).len(), 30);
    let listed = context.ok(&[
        "jobs",
        "--status",
        "succeeded",
        "--of-project",
        "quickstart",
    ]);
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with(&id) && line.ends_with("boosted")),
        "{listed}"
    );
    assert_eq!(context.ok(&["jobs", "--of-project", "no-such-project"]), "");
    assert!(
        !context
            .ok(&["jobs", "--status", "failed,pending,running"])
            .contains(&id)
    );
}

#[test]
fn quickstart_images_share_their_base_and_most_wheels() {
    let (context, _) = quickstart();
    let document = context.json(&["build", "--locked"]);
    let images = document["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert!(images.iter().all(|image| image["built"] == false));
    let layers = |name: &str| -> Vec<String> {
        let image = images.iter().find(|image| image["name"] == name).unwrap();
        let hex = image["digest"].as_str().unwrap().split_once(':').unwrap().1;
        let blob = context.store.join("store-v1/blobs").join(hex);
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(blob).unwrap()).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        layers
            .iter()
            .map(|layer| layer["digest"].as_str().unwrap().to_owned())
            .collect()
    };
    let (plain, boosted) = (layers("diagnosis"), layers("diagnosis-boosted"));
    let new: Vec<&String> = boosted
        .iter()
        .filter(|layer| !plain.contains(layer))
        .collect();
    assert_eq!(new.len(), 1, "only the layer of the wheel that it has more");
    assert_eq!(plain[0], boosted[0]);
}

#[test]
fn own_code_runs_its_matrix_and_os_packages_are_configured() {
    let _alone = BASES.lock().unwrap_or_else(PoisonError::into_inner);
    let context = example("own-code");
    let printed = context.ok(&["test", "--rerun", "--jobs", "2"]);
    let cells = ["eu,size=10", "eu,size=1000", "us,size=10", "us,size=1000"];
    let cells: Vec<String> = cells
        .iter()
        .map(|cell| format!("scores[market={cell}]"))
        .collect();
    assert_eq!(column(summary(&printed), 0), cells);
    assert_eq!(column(summary(&printed), 2), ["SUCCEEDED"; 4]);
    assert_eq!(rows(&printed).len(), 4 * 5);
    assert_eq!(
        context.ok(&["exec", "scorer", "--", "python", "-m", "scorer"]),
        "True\n"
    );

    let context = example("os-packages");
    let printed = context.ok(&["test", "--rerun"]);
    assert_eq!(column(summary(&printed), 2), ["SUCCEEDED"]);
    assert_eq!(rows(&printed).len(), 2);
    let version = context.run(&["exec", "plots", "--", "dot", "-V"]).success();
    assert!(version.stderr.contains("graphviz version"), "{version:?}");
    let lock = context.lock_text();
    assert!(
        lock.contains("deb \"graphviz_") && lock.contains("diff-id"),
        "{lock}"
    );
    context.ok(&["lock", "--locked"]);
    let shown = context.json(&["show", "plots"]);
    let packages = shown["platforms"][0]["os"].as_array().unwrap();
    let asked: Vec<_> = packages
        .iter()
        .filter(|package| package["requested"] == true)
        .collect();
    assert!(
        asked.iter().any(|package| package["name"] == "graphviz"),
        "{asked:?}"
    );
}
