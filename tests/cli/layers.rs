//! More large wheels than an image may have layers.

use std::fs;

use crate::bases::run;
use crate::engines::{Docker, Podman};
use crate::support::TestContext;
use crate::wheels::{noise, wheel};

const WHEELS: usize = 105;

/// A project whose image has this many wheels of just over a megabyte.
fn project() -> TestContext {
    let mut manifest =
        "base \"own\" { from \"oci:base:python\"; }\nimage \"many\" base=\"own\" {\n".to_owned();
    for number in 0..WHEELS {
        let name = format!("part{number:03}");
        manifest += &format!("    pip \"{name}\" wheel=\"wheels/{name}-1.0-py3-none-any.whl\"\n");
    }
    let context = TestContext::on_python(&(manifest + "}\n"));
    for number in 0..WHEELS {
        let name = format!("part{number:03}");
        let data = noise(1_010_000, number as u64 + 1);
        let (file, bytes) = wheel(&name, "1.0", &[], &[(&format!("{name}/data.bin"), data)]);
        context.write(&format!("wheels/{file}"), bytes);
    }
    context
}

#[test]
fn an_image_of_a_hundred_layers_runs_everywhere() {
    let context = project();
    let built = context.json(&["build"]);
    let layers = built["images"][0]["layers"].as_u64().unwrap();
    let archive = context.path("many.tar");
    let archive = archive.to_str().unwrap();
    context.ok(&[
        "export",
        "many",
        "--docker-archive",
        archive,
        "--name",
        "localhost/many:v1",
    ]);
    let base = format!("oci:{}:python", context.path("base").display());
    let base: serde_json::Value = serde_json::from_str(&run("skopeo", ["inspect", &base])).unwrap();
    let above = layers - base["Layers"].as_array().unwrap().len() as u64;
    assert!((98..=100).contains(&above), "{above} layers above the base");

    let code = format!(
        "import part000, part{:03}, pathlib; folder = pathlib.Path(part000.__file__).parent.parent; \
         print(part000.version, sum(1 for path in folder.glob('part*/data.bin') if path.stat().st_size == 1010000))",
        WHEELS - 1
    );
    let expected = format!("1.0 {WHEELS}\n");
    assert_eq!(
        context.ok(&["exec", "many", "--", "python", "-c", &code]),
        expected
    );
    let podman = Podman::new();
    podman.run(&["load", "--input", archive]);
    assert_eq!(podman.python("localhost/many:v1", None, &code), expected);
    drop(podman);
    let docker = Docker::start();
    docker.run(&["load", "--input", archive]);
    fs::remove_file(archive).unwrap();
    assert_eq!(
        docker.python("localhost/many:v1", Some("54321:0"), &code),
        expected
    );
}
