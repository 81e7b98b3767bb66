//! Many processes, one store and one registry.

use std::collections::BTreeMap;
use std::time::Duration;

use imagewright::digest::Digest;

use crate::lab::{self, Lab, Options, PREFIX, Request, Server};

const IMAGES: [&str; 4] = [
    "image \"one\" base=\"small\" { pip \"alpha\"; }",
    "image \"two\" base=\"small\" { pip \"gamma\"; }",
    "image \"three\" base=\"small\" { pip \"alpha\"; pip \"gamma\"; }",
    "image \"four\" base=\"small\" { pip \"beta\"; }",
];

#[test]
fn eight_processes_push_overlapping_images_at_once() {
    let server = Server::docker_registry(Options {
        login: true,
        delete: false,
    });
    let index = lab::index();
    let store = Lab::new();
    let labs: Vec<Lab> = (0..4)
        .map(|number| {
            // Each project has two of the images, in another order.
            let images = [IMAGES[number], IMAGES[(number + 1) % 4]].join("\n");
            let lab = lab::project(server.address(), &index, &images);
            lab.env(
                "IMAGEWRIGHT_STORE",
                &store.path("store").display().to_string(),
            )
        })
        .collect();
    let (digests, requests) = server.during(|| {
        // Two in each project: they write the same lock as well.
        let running: Vec<_> = (0..8)
            .map(|number| labs[number % 4].start(&["push", "--json"]))
            .collect();
        for running in running {
            running.wait(Duration::from_secs(120)).expect(0, &[]);
        }
        let built: Vec<String> = labs.iter().flat_map(Lab::build).collect();
        built
    });
    server.assert_whole();
    let mut sent: BTreeMap<Digest, usize> = BTreeMap::new();
    for digest in requests.iter().filter_map(Request::uploaded) {
        *sent.entry(digest).or_default() += 1;
    }
    let layers = server.layers();
    let twice: Vec<_> = sent
        .iter()
        .filter(|(digest, count)| **count > 1 && layers.contains(digest))
        .collect();
    assert!(twice.is_empty(), "sent more than once: {twice:?}");

    let names: Vec<String> = server.tags(PREFIX).into_iter().map(|tag| tag.0).collect();
    for name in ["one", "two", "three", "four"] {
        assert!(names.iter().any(|tag| tag == name), "{names:?}");
    }
    let ran = labs[0].run(&["find", "--json"]).expect(0, &[]);
    for digest in digests {
        assert!(ran.out.contains(&digest), "{digest} is not in {}", ran.out);
    }
}
