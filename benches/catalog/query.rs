//! Queries over an index of made-up records.

use std::time::{Duration, Instant};

use imagewright::catalog::{Entry, Index, Query, Status};
use imagewright::store::Store;

use crate::records::record;

const SOURCE: &str = "registry.example.com/team/ml/cache";
const REPETITIONS: usize = 21;
const BATCH: u64 = 2000;

/// Fills an index and asks it.
pub fn measure(records: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let mut writer = Index::open(&store).expect("an index").writer(SOURCE);
    let (mut reading, mut writing, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    for first in (0..records).step_by(BATCH as usize) {
        let documents: Vec<Vec<u8>> = (first..records.min(first + BATCH))
            .map(|number| serde_json::to_vec(&record(number)).expect("a document"))
            .collect();
        bytes += documents.iter().map(Vec::len).sum::<usize>();
        let begun = Instant::now();
        let entries = documents.iter().map(|document| Entry::read(document));
        let mut entries = entries.collect::<Result<Vec<_>, _>>().expect("records");
        reading += begun.elapsed();
        let begun = Instant::now();
        writer
            .put(&mut entries)
            .expect("an index that takes records");
        writing += begun.elapsed();
    }
    drop(writer);
    let per_record = |time: Duration| time.as_secs_f64() * 1e6 / records as f64;
    let size = std::fs::metadata(store.catalog_path()).map_or(0, |meta| meta.len());
    println!(
        "{records} records of {} bytes: checked in {:.0} µs, inserted in {:.0} µs each; the index has {} MB",
        bytes as u64 / records,
        per_record(reading),
        per_record(writing),
        size / 1_000_000,
    );
    let index = Index::open(&store).expect("an index");
    println!(
        "{:<44} {:>8} {:>10} {:>10}",
        "QUERY (first page of 100)", "FOUND", "MEDIAN", "WORST"
    );
    for (name, query) in queries() {
        ask(&index, &name, &query);
    }
    near(&index);
    deep(&index);
}

/// Images to explain when none satisfies a request.
fn near(index: &Index) {
    let wishes = ["numpy", "numpy>=9", "rare-77", "common-1>1", "missing"];
    let wishes: Vec<_> = wishes
        .iter()
        .map(|text| text.parse().expect("a filter"))
        .collect();
    let begun = Instant::now();
    let found = index.nearest(SOURCE, &Query::default(), &wishes, 200);
    println!(
        "the {} nearest images with their records: {:.2} ms",
        found.expect("records").len(),
        begun.elapsed().as_secs_f64() * 1000.0
    );
}

fn queries() -> Vec<(String, Query)> {
    let pip = |texts: &[&str]| Query {
        pip: texts
            .iter()
            .map(|text| text.parse().expect("a filter"))
            .collect(),
        ..Query::default()
    };
    let outdated = |query: Query| Query {
        status: [Status::Ready, Status::Outdated].into(),
        ..query
    };
    let mut all = vec![
        ("--pip numpy".to_owned(), pip(&["numpy"])),
        ("--pip numpy==1.2.3".into(), pip(&["numpy==1.2.3"])),
        ("--pip numpy>=1.3,<2".into(), pip(&["numpy>=1.3,<2"])),
        ("--pip even --pip odd".into(), pip(&["even", "odd"])),
        ("--pip rare-77".into(), pip(&["rare-77"])),
        ("--pip missing".into(), pip(&["missing"])),
        (
            "--pip common-1 … common-8".into(),
            pip(&[
                "common-1",
                "common-2",
                "common-3",
                "common-4",
                "common-5",
                "common-6>1",
                "common-7",
                "common-8",
            ]),
        ),
    ];
    let with = |change: &dyn Fn(&mut Query)| {
        let mut query = pip(&["numpy"]);
        change(&mut query);
        query
    };
    all.push((
        "--pip numpy --os lib-of-the-system-5=5.3".into(),
        with(&|query| query.os = vec!["lib-of-the-system-5=5.3".parse().expect("a filter")]),
    ));
    all.push((
        "--pip numpy --python 3.12 --base nlp".into(),
        with(&|query| {
            query.python = Some("3.12".parse().expect("a filter"));
            query.base = Some("nlp".into());
        }),
    ));
    for name in ["model-99*", "*-v1", "*nothing*"] {
        all.push((
            format!("--pip numpy --name {name}"),
            with(&|query| query.name = Some(name.parse().expect("a filter"))),
        ));
    }
    let both = all
        .iter()
        .map(|(name, query)| (format!("{name} +OUTDATED"), outdated(query.clone())));
    let both: Vec<_> = both.collect();
    all.into_iter().chain(both).collect()
}

fn ask(index: &Index, name: &str, query: &Query) {
    let mut found = 0;
    let mut times: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let begun = Instant::now();
            let page = index
                .page(SOURCE, query, None, 100, None)
                .expect("an answer");
            found = page.images.len();
            begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "{name:<44} {found:>8} {:>7.2} ms {:>7.2} ms",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

/// The last pages of a long answer cost what the first one costs.
fn deep(index: &Index) {
    let query = Query {
        status: [Status::Ready, Status::Outdated].into(),
        ..Query::default()
    };
    let (mut after, mut pages, mut found) = (None, 0_u32, 0);
    let (begun, mut worst) = (Instant::now(), Duration::ZERO);
    loop {
        let began = Instant::now();
        let page = index
            .page(SOURCE, &query, after.as_ref(), 100, None)
            .expect("an answer");
        worst = worst.max(began.elapsed());
        (pages, found) = (pages + 1, found + page.images.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    println!(
        "all {found} images in {pages} pages: {:.2} ms a page, {:.2} ms the worst",
        begun.elapsed().as_secs_f64() * 1000.0 / f64::from(pages),
        worst.as_secs_f64() * 1000.0
    );
}
