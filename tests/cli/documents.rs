//! What `--json` prints, against the published schemas.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{RELEASES, TestContext, index, manifest};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn names(context: &TestContext) -> Vec<String> {
    context.ok(&["schema"]).lines().map(Into::into).collect()
}

/// Set `UPDATE_SCHEMAS=1` to write them anew.
#[test]
fn committed_schemas_are_what_the_program_prints() {
    let context = TestContext::new();
    let mut expected = Vec::new();
    for name in names(&context) {
        let path = folder().join(format!("{name}.json"));
        let printed = context.ok(&["schema", &name]);
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            fs::write(&path, &printed).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap_or_default(),
            printed,
            "UPDATE_SCHEMAS=1 writes {name}"
        );
        expected.push(path);
    }
    let found = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = found
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(
        context
            .fails(8, &["schema", "biuld"])
            .contains("did you mean `build`?")
    );
}

struct Judge {
    context: TestContext,
    seen: Vec<String>,
}

impl Judge {
    #[track_caller]
    fn check(&mut self, name: &str, document: &Value) {
        let schema = self.context.json(&["schema", name]);
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(document)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}\n{document:#}");
        let mut wrong = document.clone();
        let first = wrong.as_object().unwrap().keys().next().unwrap().clone();
        wrong.as_object_mut().unwrap().remove(&first);
        assert!(
            !validator.is_valid(&wrong),
            "{name}: the schema does not ask for `{first}`"
        );
        self.seen.push(name.into());
    }

    #[track_caller]
    fn printed(&mut self, name: &str, arguments: &[&str]) -> Value {
        let document = self.context.json(arguments);
        self.check(name, &document);
        document
    }

    #[track_caller]
    fn failed(&mut self, code: i32, arguments: &[&str]) -> Value {
        let ran = self.context.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
        let document: Value = serde_json::from_str(&ran.stderr).unwrap();
        assert_eq!(document["error"]["code"], code);
        self.check("error", &document);
        document
    }
}

const IMAGES: &str = "image \"a\" base=\"own\" {
    pip \"alpha\" \"==1.0\"
}
image \"b\" base=\"own\" {
    pip \"alpha\"
    env \"X\" \"1\"
}
run \"good\" image=\"a\" {
    matrix { n 1 2; }
    command \"sh\" \"-c\" \"echo out; echo '{{\\\"name\\\": \\\"case {n}\\\", \\\"status\\\": \\\"PASS\\\"}}' > /results/cases.jsonl\"
}
run \"bad\" image=\"b\" {
    command \"sh\" \"-c\" \"echo err >&2; exit 3\"
}
";

#[test]
fn every_document_follows_its_schema() {
    let server = index(&RELEASES);
    let context = TestContext::on_python(&manifest(&server, IMAGES));
    let mut judge = Judge {
        context,
        seen: Vec::new(),
    };
    making(&mut judge);
    running(&mut judge);
    finding(&mut judge);
    judge.printed("gc", &["gc", "--dry-run"]);
    judge.printed("rm", &["rm", "b", "--now"]);
    failing(&mut judge);
    let fresh = TestContext::new();
    let made = fresh.json(&["init"]);
    judge.check("init", &made);

    // Tests of their own load, and push to a registry (tests/registry/documents.rs).
    judge.seen.extend(["load", "push"].map(Into::into));
    judge.seen.sort();
    judge.seen.dedup();
    let mut all = names(&judge.context);
    all.sort();
    assert_eq!(judge.seen, all, "every schema is tested");
}

fn making(judge: &mut Judge) {
    judge.printed("check", &["check"]);
    judge.printed("lock", &["lock"]);
    judge.printed("lock", &["lock", "--upgrade"]);
    judge.printed("build", &["build"]);
    judge.printed("cache-key", &["lock", "--print-cache-key"]);
    judge.context.ok(&["build", "--metadata-file", "made.json"]);
    let made = serde_json::from_str(&judge.context.read("made.json")).unwrap();
    judge.check("metadata", &made);
    judge.printed("show", &["show", "b"]);
    judge.printed("base", &["show", "base", "minimal"]);
    judge.printed("why", &["why", "b"]);
    judge.printed("why", &["why", "b", "--against", "a"]);
    judge.printed("diff", &["diff", "a", "b"]);
    let out = judge.context.path("out").display().to_string();
    for flag in ["--oci", "--oci-archive", "--docker-archive"] {
        judge.printed("export", &["export", "a", flag, &format!("{out}{flag}")]);
    }
}

fn running(judge: &mut Judge) {
    let ran = judge.context.run(&["test", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    judge.check("test", &report);
    let jobs = judge.printed("jobs", &["jobs"]);
    let states: Vec<&str> = jobs["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["state"].as_str().unwrap())
        .collect();
    let count = |wanted| states.iter().filter(|state| **state == wanted).count();
    assert_eq!((count("SUCCEEDED"), count("FAILED")), (2, 1), "{jobs}");
    for job in jobs["jobs"].as_array().unwrap() {
        let ms = |name: &str| job[name].as_i64().unwrap();
        assert_eq!(ms("duration_ms"), ms("ended_ms") - ms("started_ms"));
        let id = job["id"].as_str().unwrap();
        judge.printed("results", &["results", id]);
        let logs = judge.context.ok(&["logs", id]) + &judge.context.ok(&["logs", id, "--stderr"]);
        let expected = match job["state"] == "FAILED" {
            true => "err\n",
            false => "out\n",
        };
        assert_eq!(logs, expected);
    }
}

fn finding(judge: &mut Judge) {
    let found = judge.printed("find", &["find", "--pip", "alpha==1.0"]);
    let record = found["images"][0]["record"].as_str().unwrap();
    judge.printed("record", &["show", record]);
    let local = judge.printed("record", &["show", "b", "--local"]);
    assert_eq!(local["records"][0]["reference"], Value::Null);
    judge.printed("sign", &["sign", "--new", "key"]);
}

fn failing(judge: &mut Judge) {
    judge.failed(8, &["build", "c", "--json"]);
    judge
        .context
        .edit("pip \"alpha\"\n", "pip \"alpha\" \"<1\"\n");
    judge.failed(5, &["build", "--locked", "--json"]);
    judge.failed(3, &["lock", "--json"]);
    judge.context.edit(
        "pip \"alpha\" \"<1\"\n",
        "pip \"alpha\" \"<<1\"\n    pib \"x\"\n",
    );
    let document = judge.failed(2, &["check", "--json"]);
    let problems = document["error"]["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{document}");
    let text = judge.context.read("imagewright.kdl");
    for problem in problems {
        let (start, length) = (
            problem["start"].as_u64().unwrap() as usize,
            problem["length"].as_u64().unwrap() as usize,
        );
        assert_eq!(
            text[..start].matches('\n').count() as u64 + 1,
            problem["line"].as_u64().unwrap()
        );
        assert!(text.get(start..start + length).is_some());
    }
}
