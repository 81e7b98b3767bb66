//! `state.sqlite`: images built here, layers that exist as blobs, what base images hold, lock paths that root them, jobs and results.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::digest::Digest;

/// A connection to the state database.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    pub(super) connection: Connection,
}

/// An image that this store has built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Declared name.
    pub name: String,
    /// For example `linux/amd64`.
    pub platform: String,
    /// The request key.
    pub request: Digest,
    /// The set key.
    pub inputs: Digest,
    /// The image key.
    pub key: Digest,
    /// Digest of the image manifest.
    pub digest: Digest,
    /// JSON document of how it is put together (see `image::Image`).
    pub document: String,
}

/// States of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum JobState {
    /// Accepted, not started.
    Pending,
    /// Its container runs.
    Running,
    /// Exit code 0.
    Succeeded,
    /// Another exit code, or killed for a reason that is told.
    Failed,
    /// Cancelled or interrupted.
    Cancelled,
}

impl JobState {
    /// As `--json` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "RUNNING" => Self::Running,
            "SUCCEEDED" => Self::Succeeded,
            "FAILED" => Self::Failed,
            "CANCELLED" => Self::Cancelled,
            _ => Self::Pending,
        }
    }
}

/// One job: a run's cell, dispatched once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Unique.
    pub id: String,
    /// The run's name with its cell, for example `titanic[seed=1]`.
    pub name: String,
    /// Its project.
    pub project: String,
    /// The run key.
    pub key: Digest,
    /// Where it stands.
    pub state: JobState,
    /// Why it ended so, for example `exit code 1`, `out of memory`, `timed out`.
    pub reason: Option<String>,
    /// Milliseconds since 1970, as the caller's clock says.
    pub started_ms: Option<i64>,
    /// Milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// The results document (JSON), once collected.
    pub results: Option<String>,
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS images (
        name TEXT NOT NULL, platform TEXT NOT NULL, request TEXT NOT NULL, inputs TEXT NOT NULL, key TEXT NOT NULL,
        digest TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (key, platform, name)) STRICT;
    CREATE INDEX IF NOT EXISTS images_by_inputs ON images (inputs);
    CREATE TABLE IF NOT EXISTS layers (key TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS bases (digest TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS documents (key TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS records (
        key TEXT NOT NULL, platform TEXT NOT NULL, name TEXT NOT NULL, built_ms INTEGER NOT NULL,
        document TEXT NOT NULL, PRIMARY KEY (key, platform, name)) STRICT;
    CREATE TABLE IF NOT EXISTS roots (path TEXT PRIMARY KEY) STRICT;
    CREATE TABLE IF NOT EXISTS jobs (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL,
        state TEXT NOT NULL, reason TEXT, started_ms INTEGER, ended_ms INTEGER, results TEXT,
        owner_pid INTEGER) STRICT;
";

impl State {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let fail = |source| StoreError::State {
            path: path.into(),
            source,
        };
        let connection = Connection::open(path).map_err(fail)?;
        connection
            .busy_timeout(Duration::from_secs(30))
            .and_then(|()| connection.pragma_update(None, "journal_mode", "WAL"))
            .and_then(|()| connection.pragma_update(None, "synchronous", "NORMAL"))
            .and_then(|()| connection.execute_batch(SCHEMA))
            .map_err(fail)?;
        Ok(Self {
            path: path.into(),
            connection,
        })
    }

    /// As [`State::open`], for reading, also where there is no room for the files that SQLite keeps beside a database
    /// that is in use. Where it cannot make them nobody has them, and so nobody changes the database.
    pub(super) fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let error = match Self::open(path) {
            Err(error) if error.is_full() => error,
            opened => return opened,
        };
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let Ok(mut address) =
            url::Url::from_file_path(std::path::absolute(path).unwrap_or_default())
        else {
            return Err(error);
        };
        // What stands in the log only would not be seen.
        if std::fs::metadata(log).is_ok_and(|log| log.len() > 0) {
            return Err(error);
        }
        address.set_query(Some("immutable=1"));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let opened = Connection::open_with_flags(address.as_str(), flags);
        let connection = opened.map_err(|source| StoreError::State {
            path: path.into(),
            source,
        })?;
        Ok(Self {
            path: path.into(),
            connection,
        })
    }

    /// Wraps an error of SQLite with the database's path.
    pub(super) fn fail(&self) -> impl Fn(rusqlite::Error) -> StoreError + '_ {
        |source| StoreError::State {
            path: self.path.clone(),
            source,
        }
    }

    /// Records an image; the same key, platform and name again replaces the record.
    pub fn put_image(&self, row: &ImageRow) -> Result<(), StoreError> {
        self.connection
            .execute(
                "INSERT OR REPLACE INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    row.name,
                    row.platform,
                    row.request.to_string(),
                    row.inputs.to_string(),
                    row.key.to_string(),
                    row.digest.to_string(),
                    row.document
                ],
            )
            .map_err(self.fail())?;
        Ok(())
    }

    /// The image with this key on this platform, under whichever name.
    pub fn image(&self, key: &Digest, platform: &str) -> Result<Option<ImageRow>, StoreError> {
        let mut found = self.images(
            "key = ?1 AND platform = ?2",
            params![key.to_string(), platform],
        )?;
        Ok(found.pop())
    }

    /// The images of this set key on this platform, under all names.
    pub fn images_by_inputs(
        &self,
        inputs: &Digest,
        platform: &str,
    ) -> Result<Vec<ImageRow>, StoreError> {
        let filter = "inputs = ?1 AND platform = ?2";
        self.images(filter, params![inputs.to_string(), platform])
    }

    /// All images, by name.
    pub fn all_images(&self) -> Result<Vec<ImageRow>, StoreError> {
        self.images("1", params![])
    }

    fn images(
        &self,
        filter: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<ImageRow>, StoreError> {
        let sql = format!(
            "SELECT name, platform, request, inputs, key, digest, document FROM images WHERE {filter} ORDER BY name, platform, key"
        );
        let mut statement = self.connection.prepare(&sql).map_err(self.fail())?;
        let rows = statement
            .query_map(values, |row| {
                Ok(ImageRow {
                    name: row.get(0)?,
                    platform: row.get(1)?,
                    request: digest(row, 2)?,
                    inputs: digest(row, 3)?,
                    key: digest(row, 4)?,
                    digest: digest(row, 5)?,
                    document: row.get(6)?,
                })
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Keeps the record (a JSON document of `catalog::Record`) of an image that was put here with [`State::put_image`];
    /// the same key, platform and name again replaces it.
    pub fn put_record(
        &self,
        (key, platform, name): (&Digest, &str, &str),
        built_ms: i64,
        document: &str,
    ) -> Result<(), StoreError> {
        let values = params![key.to_string(), platform, name, built_ms, document];
        self.connection
            .execute(
                "INSERT OR REPLACE INTO records VALUES (?1, ?2, ?3, ?4, ?5)",
                values,
            )
            .map_err(self.fail())?;
        Ok(())
    }

    /// The image key of the newest record of this name and platform.
    pub fn newest_record(&self, name: &str, platform: &str) -> Result<Option<Digest>, StoreError> {
        let sql = "SELECT key FROM records WHERE name = ?1 AND platform = ?2 ORDER BY built_ms DESC LIMIT 1";
        self.connection
            .query_row(sql, [name, platform], |row| digest(row, 0))
            .optional()
            .map_err(self.fail())
    }

    /// The records of all images that are here.
    pub fn records(&self) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT records.document FROM records JOIN images USING (key, platform, name)";
        let mut statement = self.connection.prepare(sql).map_err(self.fail())?;
        let rows = statement
            .query_map([], |row| row.get(0))
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// What was recorded for the layer `key`, which exists as a blob (a JSON document of `layer::Layer`).
    pub fn layer(&self, key: &Digest) -> Result<Option<String>, StoreError> {
        self.select("SELECT document FROM layers WHERE key = ?1", key)
    }

    /// Records a layer that exists as a blob; the first record of a key stays.
    pub fn put_layer(&self, key: &Digest, document: &str) -> Result<(), StoreError> {
        self.insert(
            "INSERT OR IGNORE INTO layers VALUES (?1, ?2)",
            key,
            document,
        )
    }

    /// What was found in the base image with this manifest digest (a JSON document of `resolve::base`).
    pub fn base(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        self.select("SELECT document FROM bases WHERE digest = ?1", digest)
    }

    /// Records what was found in a base image; a later record replaces an earlier one.
    pub fn put_base(&self, digest: &Digest, document: &str) -> Result<(), StoreError> {
        self.insert(
            "INSERT OR REPLACE INTO bases VALUES (?1, ?2)",
            digest,
            document,
        )
    }

    fn select(&self, sql: &str, key: &Digest) -> Result<Option<String>, StoreError> {
        self.connection
            .query_row(sql, [key.to_string()], |row| row.get(0))
            .optional()
            .map_err(self.fail())
    }

    fn insert(&self, sql: &str, key: &Digest, document: &str) -> Result<(), StoreError> {
        self.connection
            .execute(sql, params![key.to_string(), document])
            .map_err(self.fail())?;
        Ok(())
    }

    /// A document that was kept under this key: the one behind a request key or image key, or something derived that
    /// would be costly to derive again.
    pub fn document(&self, key: &Digest) -> Result<Option<String>, StoreError> {
        self.select("SELECT document FROM documents WHERE key = ?1", key)
    }

    /// Keeps a document under its key; the first of a key stays.
    pub fn put_document(&self, key: &Digest, document: &str) -> Result<(), StoreError> {
        self.insert(
            "INSERT OR IGNORE INTO documents VALUES (?1, ?2)",
            key,
            document,
        )
    }

    /// Registers a lock file as a root for gc.
    pub fn put_root(&self, lock: &Path) -> Result<(), StoreError> {
        self.connection
            .execute(
                "INSERT OR IGNORE INTO roots VALUES (?1)",
                [lock.to_string_lossy()],
            )
            .map_err(self.fail())?;
        Ok(())
    }

    /// Inserts or replaces a job that this process owns.
    pub fn put_job(&self, job: &JobRow) -> Result<(), StoreError> {
        self.connection
            .execute(
                "INSERT OR REPLACE INTO jobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    job.id,
                    job.name,
                    job.project,
                    job.key.to_string(),
                    job.state.as_str(),
                    job.reason,
                    job.started_ms,
                    job.ended_ms,
                    job.results,
                    std::process::id()
                ],
            )
            .map_err(self.fail())?;
        Ok(())
    }

    /// The job with this id.
    pub fn job(&self, id: &str) -> Result<Option<JobRow>, StoreError> {
        Ok(self.select_jobs("id = ?1", [id])?.pop())
    }

    /// The newest succeeded job with this run key.
    pub fn succeeded_job(&self, key: &Digest) -> Result<Option<JobRow>, StoreError> {
        let filter = "key = ?1 AND state = 'SUCCEEDED' AND results IS NOT NULL";
        Ok(self.select_jobs(filter, [key.to_string()])?.pop())
    }

    /// All jobs, oldest first.
    pub fn jobs(&self) -> Result<Vec<JobRow>, StoreError> {
        self.select_jobs("1", [])
    }

    /// Jobs that claim to be pending or running, with the process that owns them.
    pub fn unfinished_jobs(&self) -> Result<Vec<(JobRow, u32)>, StoreError> {
        let jobs = self.select_jobs("state IN ('PENDING', 'RUNNING')", [])?;
        jobs.into_iter()
            .map(|job| {
                let owner = self
                    .connection
                    .query_row(
                        "SELECT owner_pid FROM jobs WHERE id = ?1",
                        [&job.id],
                        |row| row.get(0),
                    )
                    .map_err(self.fail())?;
                Ok((job, owner))
            })
            .collect()
    }

    fn select_jobs(
        &self,
        filter: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<JobRow>, StoreError> {
        let sql = format!(
            "SELECT id, name, project, key, state, reason, started_ms, ended_ms, results FROM jobs
             WHERE {filter} ORDER BY started_ms, rowid"
        );
        let mut statement = self.connection.prepare(&sql).map_err(self.fail())?;
        let rows = statement
            .query_map(values, |row| {
                Ok(JobRow {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    project: row.get(2)?,
                    key: digest(row, 3)?,
                    state: JobState::parse(&row.get::<_, String>(4)?),
                    reason: row.get(5)?,
                    started_ms: row.get(6)?,
                    ended_ms: row.get(7)?,
                    results: row.get(8)?,
                })
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }
}

fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}
