//! A registry's records into the index: only those that it has not seen.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::index::Writer;
use super::lookup::embedded;
use super::{Catalog, CatalogError, Entry, Index, KeyTag, LOCAL, Record};
use crate::diagnostic::{Explain as _, Kind};
use crate::digest::Digest;
use crate::progress::{Progress, Stage};
use crate::registry::RegistryError;

/// Records that are asked for at a time.
const AT_A_TIME: usize = 16;
/// Records that are written together, unless they take longer than [`PATIENCE`] to come.
const BATCH: usize = 2000;
/// How long a record waits for others to be written with.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of manifests after which their records are written at once.
const BATCH_BYTES: usize = 32 << 20;
/// Records that may wait to be written.
const WAITING: usize = 16;
/// As many unanswered requests in a row end the work.
const UNANSWERED: usize = 8;

/// What came of it.
#[derive(Debug, Default)]
pub struct Synced {
    /// How many records are new.
    pub new: usize,
    /// How many are not there any more.
    pub removed: usize,
    /// Tags of documents that are no records, and why. They are not asked for again, but for those that are not what
    /// their tags name: somebody else may have answered in the registry's place.
    pub refused: Vec<(String, String)>,
    /// Why records could not be read that are left for the next time.
    pub unanswered: Option<RegistryError>,
}

/// A manifest as it came.
struct Fetched {
    record: Digest,
    manifest: Result<Vec<u8>, RegistryError>,
}

/// Why a document is no record.
struct Refusal {
    reason: String,
    /// Whether it will be the same the next time.
    lasting: bool,
}

impl Refusal {
    fn passing(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            lasting: false,
        }
    }
}

impl Catalog {
    /// What the index calls this catalog.
    pub fn source(&self) -> String {
        self.place.cache().to_string()
    }

    /// Brings the index up to date with the registry's records. What is no record is told and skipped.
    ///
    /// # Errors
    /// When the registry cannot be asked at all, refuses the credentials, or the index cannot be written. What was read
    /// until then is kept.
    pub async fn sync(
        &self,
        index: &Index,
        progress: &dyn Progress,
    ) -> Result<Synced, CatalogError> {
        let source = self.source();
        let tags = self.registry.tags(&self.place.cache()).await?;
        let listed: BTreeSet<Digest> = tags
            .iter()
            .filter_map(|tag| match KeyTag::parse(tag) {
                Some(KeyTag::Record(record)) => Some(record),
                _ => None,
            })
            .collect();
        drop(tags);
        let seen = index.seen(&source)?;
        let gone: Vec<Digest> = seen.difference(&listed).copied().collect();
        let new: Vec<Digest> = listed.difference(&seen).copied().collect();
        if gone.is_empty() && new.is_empty() {
            return Ok(Synced::default());
        }
        let writer = index.again()?.writer(&source);
        let (sender, receiver) = mpsc::channel(WAITING);
        let writing = tokio::task::spawn_blocking(move || receive(writer, &gone, receiver));
        let fetched = self.fetch(&new, sender, progress).await;
        let written = writing.await.map_err(|_| CatalogError::Interrupted)?;
        let (mut synced, unanswered) = (written?, fetched?);
        synced.unanswered = unanswered;
        Ok(synced)
    }

    /// Sends the manifests of records on their way; returns why it ended before all were read.
    async fn fetch(
        &self,
        new: &[Digest],
        sender: mpsc::Sender<Fetched>,
        progress: &dyn Progress,
    ) -> Result<Option<RegistryError>, CatalogError> {
        let bar = progress.begin(Stage::Records, self.place.host(), Some(new.len() as u64));
        let requests = new.iter().map(|record| async move {
            let reference = self.tagged(&KeyTag::Record(*record).tag());
            (*record, self.registry.manifest(&reference).await)
        });
        let mut answers = futures_util::stream::iter(requests).buffer_unordered(AT_A_TIME);
        let mut unanswered = None;
        let mut in_a_row = 0;
        while let Some((record, answer)) = answers.next().await {
            progress.advance(bar, 1);
            let manifest = match answer {
                Err(RegistryError::NotFound { .. }) => continue,
                Err(error) if error.kind() == Kind::Unavailable => {
                    unanswered = Some(error);
                    in_a_row += 1;
                    match in_a_row < UNANSWERED {
                        true => continue,
                        false => break,
                    }
                }
                Err(error) if error.kind() != Kind::Refused => {
                    progress.end(bar);
                    return Err(error.into());
                }
                manifest => manifest,
            };
            in_a_row = 0;
            if sender.send(Fetched { record, manifest }).await.is_err() {
                break;
            }
        }
        progress.end(bar);
        Ok(unanswered)
    }
}

/// Reads, checks and writes what comes, until nothing comes any more.
fn receive(
    mut writer: Writer,
    gone: &[Digest],
    mut receiver: mpsc::Receiver<Fetched>,
) -> Result<Synced, CatalogError> {
    let mut synced = Synced {
        removed: gone.len(),
        ..Synced::default()
    };
    if !gone.is_empty() {
        writer.remove(gone)?;
    }
    let (mut entries, mut refused) = (Vec::new(), Vec::new());
    let mut begun = Instant::now();
    let mut bytes = 0;
    while let Some(Fetched { record, manifest }) = receiver.blocking_recv() {
        bytes += manifest.as_ref().map_or(0, Vec::len);
        match read(&record, manifest) {
            Ok(entry) => entries.push(entry),
            Err(refusal) => {
                let reason = shown(&refusal.reason);
                let tag = KeyTag::Record(record).tag();
                synced.refused.push((tag, reason.clone()));
                if refusal.lasting {
                    refused.push((record, reason));
                }
            }
        }
        if entries.len() >= BATCH || bytes >= BATCH_BYTES || begun.elapsed() > PATIENCE {
            synced.new += writer.put(&mut std::mem::take(&mut entries))?;
            (begun, bytes) = (Instant::now(), 0);
        }
    }
    if !entries.is_empty() {
        synced.new += writer.put(&mut entries)?;
    }
    if !refused.is_empty() {
        writer.refuse(&refused)?;
    }
    Ok(synced)
}

fn read(record: &Digest, manifest: Result<Vec<u8>, RegistryError>) -> Result<Entry, Refusal> {
    let manifest = manifest.map_err(|error| Refusal::passing(error.to_string()))?;
    let document = embedded(&manifest, Record::MEDIA_TYPE).map_err(Refusal::passing)?;
    if Digest::of(&document) != *record {
        let reason = "its document is not the one that its tag names";
        return Err(Refusal::passing(reason));
    }
    Entry::read(&document).map_err(|reason| Refusal {
        reason,
        lasting: true,
    })
}

/// A reason that may repeat what a stranger wrote.
fn shown(reason: &str) -> String {
    let cut: String = reason.chars().take(200).collect();
    cut.escape_debug()
        .to_string()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
}

/// Makes the documents of this store's own images the index's local ones.
///
/// # Errors
/// When the index cannot be written.
pub fn put_local(index: &Index, documents: &[String]) -> Result<(), CatalogError> {
    let present: BTreeSet<Digest> = documents.iter().map(Digest::of).collect();
    let seen = index.seen(LOCAL)?;
    let gone: Vec<Digest> = seen.difference(&present).copied().collect();
    let new = documents
        .iter()
        .filter(|text| !seen.contains(&Digest::of(text)));
    let mut entries: Vec<Entry> = new
        .filter_map(|text| Entry::read(text.as_bytes()).ok())
        .collect();
    if gone.is_empty() && entries.is_empty() {
        return Ok(());
    }
    let mut writer = index.again()?.writer(LOCAL);
    writer.remove(&gone)?;
    writer.put(&mut entries)?;
    Ok(())
}
