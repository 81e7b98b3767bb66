//! No text makes the parser panic, overflow or point outside the text.

use std::fs;

use proptest::prelude::*;

use crate::support::{Files, data, parse, spans_are_sound, split};

fn survives(text: &str, files: &Files) {
    if let Err(problems) = parse(text, files) {
        spans_are_sound(&problems);
        for problem in &problems.0 {
            let _ =
                miette::NarratableReportHandler::new().render_report(&mut String::new(), problem);
        }
    }
}

fn corpus() -> Vec<(String, Files)> {
    let mut all: Vec<_> = ["good", "bad"]
        .iter()
        .flat_map(|folder| fs::read_dir(data(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    all.iter()
        .map(|path| split(&fs::read_to_string(path).unwrap()))
        .collect()
}

/// Puts `insert` over `len` characters at the place that `at` chooses.
fn mutate(text: &str, at: usize, len: usize, insert: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = at % (chars.len() + 1);
    let end = (at + len).min(chars.len());
    chars[..at]
        .iter()
        .copied()
        .chain(insert.chars())
        .chain(chars[end..].iter().copied())
        .collect()
}

const PIECES: &[&str] = &[
    "{", "}", "\"", "#\"", "\"\"\"", "\\", "/*", "*/", "//", "/-", ";", "=", "ü", "日本", "\n",
    "#true", "0x", "(", ")", "{seed}", "[", "]", ",", ">=", "é\"", "\u{feff}", "\u{2028}", "-",
    "..", "/",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn arbitrary_texts(text in any::<String>()) {
        survives(&text, &Files::default());
    }

    #[test]
    fn texts_of_kdl_pieces(parts in prop::collection::vec((prop::sample::select(PIECES), "[a-z]{0,5}"), 0..40)) {
        let text: String = parts.iter().map(|(a, b)| format!("{a}{b} ")).collect();
        survives(&text, &Files::default());
    }

    #[test]
    fn arbitrary_values(value in any::<String>(), written in "\\PC{0,40}") {
        let quoted = written.replace(['\\', '"'], "");
        for node in ["pip \"{}\"", "pip \"x\" \"{}\"", "os \"{}\"", "os \"x1\" \"{}\"", "python \"{}\"", "env \"A\" \"{}\"", "from \"{}\"", "file \"{}\" to=\"/x\"", "file \"x\" to=\"{}\"", "exclude-newer \"{}\"", "index \"a\" \"{}\"", "pip \"x; {}\"", "pip-from \"r.txt\"", "user \"{}\"", "pip \"x\" wheel=\"{}\""] {
            let files = Files([("r.txt".to_owned(), value.clone())].into());
            survives(&format!("image \"ü\" {{ {} }}", node.replace("{}", &quoted)), &files);
        }
        for node in ["command \"{}\"", "timeout \"{}\"", "resources ram=\"{}\" cpu=\"{}\"", "matrix { a \"{}\" }"] {
            survives(&format!("run \"{quoted}\" image=\"x\" {{ {} }}", node.replace("{}", &quoted)), &Files::default());
        }
    }

    #[test]
    fn mutated_manifests(case in any::<prop::sample::Index>(), edits in prop::collection::vec((any::<usize>(), 0..12_usize, prop::sample::select(PIECES)), 1..4)) {
        let corpus = corpus();
        let (text, files) = &corpus[case.index(corpus.len())];
        let mut text = text.clone();
        for (at, len, insert) in edits {
            text = mutate(&text, at, len, insert);
        }
        survives(&text, files);
    }

    #[test]
    fn mutated_requirements(edits in prop::collection::vec((any::<usize>(), 0..6_usize, prop::sample::select(PIECES)), 1..6)) {
        let mut text = "numpy[a,b]>=1.0,<2 ; python_version < '3.13' --hash=sha256:00 # ü\n-r other.txt\npandas \\\n  ==2.0\n".to_owned();
        for (at, len, insert) in edits {
            text = mutate(&text, at, len, insert);
        }
        let files = Files([("r.txt".to_owned(), text), ("other.txt".to_owned(), "-c r.txt\n".to_owned())].into());
        survives("image \"x\" { pip-from \"r.txt\" }", &files);
    }
}

#[test]
fn hostile_sizes_and_depths_are_refused_quickly() {
    let started = std::time::Instant::now();
    let many = 100_000;
    for text in [
        "{".repeat(many),
        "}".repeat(many),
        "}".repeat(1 << 22),
        "a {".repeat(many),
        "a /- {".repeat(many),
        "/-".repeat(many),
        "/*".repeat(many),
        "(".repeat(many),
        "\"".repeat(many + 1),
        "a \"\\q }\" \n".repeat(20_000),
        "a #\"} \n".repeat(20_000),
        "a \" { /- {\n".repeat(20_000),
        "matrix { ".repeat(many),
        "image \"a\" { pip \"x\" }\n".repeat(20_000),
        format!("image \"a\" {{ pip \"x;{}\" }}", "(".repeat(many)),
        format!("{}\0", "a ".repeat(many)),
        "a".repeat((4 << 20) + 1),
        "é".repeat(many),
    ] {
        let problems = parse(&text, &Files::default()).expect_err(&text[..40.min(text.len())]);
        spans_are_sound(&problems);
        assert!(problems.0.len() <= 100);
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn text_before_a_mistake_does_not_shift_its_span() {
    for wrong in [
        "image \"x\" { pip \"numpy\" \"=2\" }",
        "image \"x\" { pipp \"numpy\" }",
        "image \"x\" { env \"A\" \"1\" colour=\"ü\" }",
        "image \"x\" { file \"src/../x\" to=\"/app\" }",
        "image \"x\" bse=\"all\"",
        "image \"x\" { os \"vim\" 9 }",
        "run \"r\" image=\"y\" { command \"{seed}\" }",
        "image \"x\" { os \"vim\" 0x1G }",
        "image \"x\" { os \"vim\" true }",
        "image \"x\" { os \"vim\\q\" }",
        "image \"x\" { os =3 }",
        "image \"x\" {",
        "image \"x\" }",
        "{ }",
    ] {
        let plain = parse(wrong, &Files::default()).expect_err(wrong);
        for before in [
            "// äöü 日本 🦀\n",
            "/* ü */ ",
            "project \"p\" description=\"日本語 🦀 é\"\n",
            "\u{feff}",
            "project \"p\" description=\"\"\"\n  🦀\n  \"\"\"\n",
        ] {
            let shifted = parse(&format!("{before}{wrong}"), &Files::default()).expect_err(wrong);
            let spans = |problems: &imagewright::diagnostic::Problems,
                         by: usize|
             -> Vec<(String, Vec<(usize, usize)>)> {
                let labels = |p: &imagewright::diagnostic::Problem| {
                    p.labels
                        .iter()
                        .map(|(s, _)| (s.start - by, s.len))
                        .collect()
                };
                problems
                    .0
                    .iter()
                    .map(|p| (p.to_string(), labels(p)))
                    .collect()
            };
            assert_eq!(
                spans(&plain, 0),
                spans(&shifted, before.len()),
                "{before:?} {wrong}"
            );
        }
    }
}
