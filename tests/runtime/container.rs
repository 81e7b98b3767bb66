//! What a container sees, may do, and how its end is told.

use imagewright::runtime::{Outcome, RuntimeError};

use crate::support::Bench;

#[test]
fn tells_exit_codes_and_passes_output_on() {
    let bench = Bench::new();
    let (ended, said) = bench
        .run(&bench.spec("echo out; echo err >&2; exit 7"))
        .unwrap();
    assert_eq!(ended.outcome, Outcome::Exited(7));
    assert_eq!(
        (said.out().as_str(), said.err().as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn gives_command_environment_folder_ids_and_host_name() {
    let bench = Bench::new();
    let mut spec = bench.spec("pwd; id -u; id -g; hostname; echo $GREETING; stat -c %u:%g .");
    spec.env.insert("GREETING".into(), "hello you".into());
    spec.cwd = "/made/for/you".into();
    assert_eq!(
        bench.says(&spec),
        "/made/for/you\n1000\n1000\nbench\nhello you\n1000:1000\n"
    );
    spec.uid = 1_000_680_000;
    spec.argv[2] = "id -u".into();
    assert_eq!(bench.says(&spec), "1000680000\n");
}

#[test]
fn names_a_program_that_does_not_exist() {
    let bench = Bench::new();
    let mut spec = bench.spec("");
    spec.argv = vec!["pytest".into()];
    let error = bench.run(&spec).err().unwrap();
    assert!(
        matches!(&error, RuntimeError::Start { program, .. } if program == "pytest"),
        "{error:?}"
    );
}
