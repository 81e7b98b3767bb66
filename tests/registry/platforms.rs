//! Images for several platforms: one name, an index.

use serde_json::{Value, json};

use crate::bases::{self, Item, Layout};
use crate::engines::Podman;
use crate::lab::{self, Lab, PASSWORD, PREFIX, Server, USER};
use crate::pushing::{LOGIN, blob, digest, documents, push, writes};

pub const IMAGE: &str = r#"image "one" base="small" {
    platform "linux/amd64" "linux/arm64"
    pip "alpha"
    version "1"
    tag "v{version}"
}"#;

/// A base for both platforms beside the project, as far as a resolver looks at it.
pub fn two_platforms(lab: &Lab) {
    let layout = Layout::new(&lab.path("both"));
    let platforms = [
        ("amd64", 62, "/lib64/ld-linux-x86-64.so.2"),
        ("arm64", 183, "/lib/ld-linux-aarch64.so.1"),
    ];
    for (architecture, machine, loader) in platforms {
        let libc = bases::elf(
            machine,
            "",
            "GNU C Library (X) stable release version 2.36.",
        );
        let python = bases::elf(machine, loader, "3.11.2");
        let tar = bases::tar(&[
            Item::File("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
            Item::File("usr/lib/libc.so.6", &libc),
            Item::File("usr/bin/python3.11", &python),
        ]);
        layout.add(architecture, &[tar], architecture, &["PATH=/usr/bin"]);
    }
    let mut index = layout.index();
    for (entry, (architecture, ..)) in index["manifests"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .zip(platforms)
    {
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry["annotations"]["org.opencontainers.image.ref.name"] = "both".into();
    }
    layout.write_index(&index);
}

/// Platform → digest of the image manifest, as an index says it.
fn entries(index: &Value) -> Vec<(String, String)> {
    assert_eq!(
        index["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    let entries = index["manifests"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (
                text(&entry["platform"]["architecture"]),
                text(&entry["digest"]),
            )
        })
        .collect()
}

#[test]
fn a_name_for_two_platforms_stands_for_an_index_that_others_can_pull() {
    let server = Server::docker_registry(LOGIN);
    let packages = lab::index();
    let lab = lab::project(server.address(), &packages, "");
    two_platforms(&lab);
    let declare = |image: &str| {
        let text = lab::manifest(server.address(), image);
        lab.write(
            "imagewright.kdl",
            text.replace("oci:../base:busybox", "oci:../both:both"),
        );
    };
    declare(IMAGE);
    let told = push(&lab, &["--dry-run"]);
    let pushed = push(&lab, &[]);
    let pushed = &pushed["images"][0];
    assert_eq!(told["images"][0]["documents"], pushed["documents"]);
    assert_eq!(told["images"][0]["digest"], pushed["digest"]);
    assert_eq!(pushed["platforms"], json!(["linux/amd64", "linux/arm64"]));
    server.assert_whole();

    let top = digest(pushed);
    let tags = server.tags(PREFIX);
    for name in ["one", "one-v1"] {
        assert!(tags.contains(&(name.to_owned(), top)), "{name}: {tags:?}");
    }
    let index = entries(&blob(&server, &top.to_string()));
    let [(amd, amd_digest), (arm, arm_digest)] = index.as_slice() else {
        panic!("{index:?}");
    };
    assert_eq!((amd.as_str(), arm.as_str()), ("amd64", "arm64"));
    let cache = format!("{PREFIX}/cache");
    let records = documents(&server, &cache, "record-");
    let mut told: Vec<(String, String)> = records
        .values()
        .map(|record| {
            assert_eq!(record["index"], json!(top));
            let platform = record["platform"].as_str().unwrap();
            let digest = record["digest"].as_str().unwrap();
            (platform.to_owned(), digest.to_owned())
        })
        .collect();
    told.sort();
    let platform = |name: &str, digest: &String| (format!("linux/{name}"), digest.clone());
    assert_eq!(
        told,
        [platform("amd64", amd_digest), platform("arm64", arm_digest)]
    );

    let image = format!("{}/{PREFIX}:one", server.address());
    let login = format!("{USER}:{PASSWORD}");
    let podman = Podman::new();
    for architecture in ["amd64", "arm64"] {
        let told = bases::run(
            "skopeo",
            [
                "--override-os",
                "linux",
                "--override-arch",
                architecture,
                "inspect",
                "--config",
                "--tls-verify=false",
                "--creds",
                &login,
                &format!("docker://{image}"),
            ],
        );
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["architecture"], architecture);
        podman.run(&[
            "pull",
            "--quiet",
            "--tls-verify=false",
            "--creds",
            &login,
            "--platform",
            &format!("linux/{architecture}"),
            &image,
        ]);
        let told = podman.run(&["image", "inspect", "--format", "{{.Architecture}}", &image]);
        assert_eq!(told.trim(), architecture);
    }

    // One platform alone: the other one stays as the name has it.
    declare(&IMAGE.replace("pip", "env \"A\" \"1\"; pip"));
    let pushed = push(&lab, &["--platform", "linux/arm64"]);
    let pushed = &pushed["images"][0];
    assert_eq!(pushed["kept"], json!(["linux/amd64"]));
    assert_eq!(pushed["supersedes"], json!(top));
    let index = entries(&blob(&server, &digest(pushed).to_string()));
    assert_eq!(index[0], (amd.clone(), amd_digest.clone()));
    assert_eq!(index[1].0, "arm64");
    assert_ne!(index[1].1, *arm_digest);
    // And all of it again.
    let pushed = push(&lab, &[]);
    let index = entries(&blob(&server, &digest(&pushed["images"][0]).to_string()));
    assert_ne!(index[0].1, *amd_digest);
    let (_, requests) = server.during(|| push(&lab, &[]));
    assert!(writes(&requests).is_empty(), "{requests:#?}");
    server.assert_whole();
}
