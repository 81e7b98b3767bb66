//! A docker-registry filled with made-up records over HTTP, and how long it takes to read them.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures_util::StreamExt as _;
use imagewright::ambient::Ambient;
use imagewright::catalog::{Catalog, Index, KeyTag, Place, Query, Record};
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::manifest::{Destination, Layout};
use imagewright::oci::Descriptor;
use imagewright::progress::Silent;
use imagewright::registry::{Reference, Registry};
use imagewright::store::Store;
use serde_json::json;

use crate::records::record;

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// docker-registry, ended by its process id.
struct Server {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  \
             filesystem: {{rootdirectory: '{}/data'}}\n  cache: {{blobdescriptor: inmemory}}\nhttp: {{addr: '{address}'}}\n",
            folder.path().display()
        );
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).expect("a configuration");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian's package of this name)");
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < end, "docker-registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            child,
            address,
            _folder: folder,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fills a registry and reads it.
pub fn measure(records: u64) {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads");
    let ambient = Ambient::default();
    let registry = Registry::new(Http::new(&ambient, false).expect("HTTP"), &ambient);
    let place = Place::new(&Destination {
        registry: format!("{}/team/ml", server.address),
        layout: Layout::Split,
        plain_http: false,
    });
    let catalog = Catalog::new(registry.clone(), place.expect("a place"));
    let begun = Instant::now();
    runtime.block_on(fill(&registry, &catalog.place().cache(), 0..records));
    println!(
        "{records} records put in {:.1} s",
        begun.elapsed().as_secs_f64()
    );

    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let index = Index::open(&store).expect("an index");
    let sync = |what: &str| {
        let begun = Instant::now();
        let synced = runtime
            .block_on(catalog.sync(&index, &Silent))
            .expect("a sync");
        assert!(
            synced.refused.is_empty() && synced.unanswered.is_none(),
            "{synced:?}"
        );
        let time = begun.elapsed().as_secs_f64();
        println!("{what}: {} new records in {time:.2} s", synced.new);
    };
    sync("the first time");
    sync("again");
    runtime.block_on(fill(
        &registry,
        &catalog.place().cache(),
        records..records + 10,
    ));
    sync("after ten more");
    let query = Query {
        pip: vec!["numpy".parse().expect("a filter")],
        ..Query::default()
    };
    let page = index.page(&catalog.source(), &query, None, 100, None);
    println!(
        "{} images on the first page",
        page.expect("an answer").images.len()
    );
}

async fn fill(registry: &Registry, cache: &Reference, numbers: std::ops::Range<u64>) {
    let empty = Descriptor::of(EMPTY, b"{}");
    let content = b"{}".to_vec();
    registry
        .put_blob(cache, &empty, &content, &[], &|_| {})
        .await
        .expect("a blob");
    let puts = numbers.map(|number| put(registry, cache, number, &empty));
    futures_util::stream::iter(puts)
        .buffer_unordered(16)
        .collect::<Vec<()>>()
        .await;
}

async fn put(registry: &Registry, cache: &Reference, number: u64, empty: &Descriptor) {
    let document = serde_json::to_vec(&record(number)).expect("a document");
    let config = Descriptor::of(Record::MEDIA_TYPE, &document);
    let mut described = json!(config);
    described["data"] = base64::engine::general_purpose::STANDARD
        .encode(&document)
        .into();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": Record::ARTIFACT_TYPE,
        "config": described, "layers": [empty],
    });
    registry
        .put_blob(cache, &config, &document, &[], &|_| {})
        .await
        .expect("a blob");
    let tagged = Reference {
        tag: Some(KeyTag::Record(Digest::of(&document)).tag()),
        ..cache.clone()
    };
    let manifest = manifest.to_string();
    registry
        .put_manifest(&tagged, MANIFEST, manifest.as_bytes())
        .await
        .expect("a manifest");
}
