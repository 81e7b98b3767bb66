//! Answers in pages, while others push, and the tokens between them.

use std::collections::BTreeSet;

use imagewright::catalog::Record;

use crate::lab::{Options, Server};
use crate::project::{Lab, Ran};
use crate::records::*;

fn server() -> Server {
    Server::docker_registry(Options::default())
}

/// Every page of an answer; `between` is called after each.
fn pages(
    lab: &Lab,
    server: &Server,
    filters: &[&str],
    mut between: impl FnMut(usize),
) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut token = None;
    for page in 0.. {
        let mut arguments = [&["--page-size", "3"], filters].concat();
        arguments.extend(
            token
                .iter()
                .flat_map(|token: &String| ["--page-token", token]),
        );
        let document = printed(&find(lab, server, &arguments));
        let images = document["images"].as_array().unwrap();
        assert!(images.len() == 3 || document["next_page_token"].is_null());
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        all.extend(
            images
                .iter()
                .map(|image| (text(&image["name"]), text(&image["digest"]))),
        );
        token = document["next_page_token"].as_str().map(Into::into);
        if token.is_none() {
            break;
        }
        between(page);
    }
    all
}

#[test]
fn pages_hold_everything_once_while_others_push() {
    let (server, lab) = (server(), Lab::new());
    let first: Vec<Record> = (0..20)
        .map(|at| record(&format!("image-{:02}", at * 2), at, &["numpy==1.0"]))
        .collect();
    put(&server, &first);
    let all: Vec<(String, String)> = first
        .iter()
        .map(|record| (record.name.clone(), record.digest.to_string()))
        .collect();
    assert_eq!(pages(&lab, &server, &["--pip", "numpy"], |_| {}), all);
    // New names before and behind the position, and new images of names that were shown and that were not.
    let found = pages(&lab, &server, &["--pip", "numpy"], |page| {
        let second = 100 + page as i64;
        let names = [
            "aaa".to_owned(),
            format!("image-{:02}", page * 4 + 1),
            "zzz".into(),
        ];
        let again = [
            "image-00".to_owned(),
            "image-38".into(),
            format!("image-{:02}", 36 - page * 4),
        ];
        let news = names.iter().chain(&again);
        let news: Vec<Record> = news
            .map(|name| record(name, second, &["numpy==2.0"]))
            .collect();
        put(&server, &news);
    });
    assert_eq!(found, all, "the answer is that of its first page");
    let after = printed(&find(&lab, &server, &["--all"]));
    let names: BTreeSet<&str> = after["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["name"].as_str().unwrap())
        .collect();
    assert!(names.contains("aaa") && names.contains("zzz") && names.len() > 22);
    assert_eq!(after["next_page_token"], serde_json::Value::Null);
}

#[test]
fn a_token_belongs_to_its_question() {
    let (server, lab) = (server(), Lab::new());
    let records: Vec<Record> = (0..5)
        .map(|at| record(&format!("image-{at}"), at, &["numpy==1.0"]))
        .collect();
    put(&server, &records);
    let page = printed(&find(
        &lab,
        &server,
        &["--pip", "numpy", "--page-size", "2"],
    ));
    let token = page["next_page_token"].as_str().unwrap().to_owned();
    let with = |filters: &[&str], token: &str| {
        find(&lab, &server, &[filters, &["--page-token", token]].concat())
    };
    assert_eq!(
        names(&with(&["--pip", "NumPy", "--page-size", "1"], &token)),
        ["image-2"]
    );
    assert_eq!(
        names(&with(&["--pip", "numpy", "--all"], &token)),
        ["image-2", "image-3", "image-4"]
    );
    let wrong = |ran: Ran| ran.expect(2, &["page token"]);
    wrong(with(&["--pip", "numpy>1"], &token));
    wrong(with(&[], &token));
    wrong(with(&["--pip", "numpy", "--status", "OUTDATED"], &token));
    wrong(lab.run(&["find", "--local", "--pip", "numpy", "--page-token", &token]));
    for at in [0, 5, token.len() / 2, token.len() - 1] {
        let mut mangled = token.clone().into_bytes();
        mangled[at] = if mangled[at] == b'A' { b'B' } else { b'A' };
        wrong(with(
            &["--pip", "numpy"],
            &String::from_utf8(mangled).unwrap(),
        ));
    }
    wrong(with(&["--pip", "numpy"], &token[..token.len() - 3]));
    wrong(with(&["--pip", "numpy"], "é"));
    wrong(with(&["--pip", "numpy"], &"A".repeat(5000)));
    // Another machine, or an index that was made anew: the order still holds.
    let elsewhere = Lab::new();
    let ran = find(
        &elsewhere,
        &server,
        &["--pip", "numpy", "--page-token", &token],
    );
    assert_eq!(names(&ran), ["image-2", "image-3", "image-4"]);
}
