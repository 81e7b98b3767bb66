//! What a registry's images are known by: records, layers by key, signatures; publishing and finding them.
//!
//! A [`Place`] says which repositories and tags a destination has. [`Record`] and [`LayerRecord`] are the documents that
//! lie there, each embedded in the configuration descriptor of an artifact manifest, so that one request reads it.
//! Records are appended, never changed: a tag with a key in its name never moves, and a record's own tag holds the
//! digest of its document, so that writers need no lock and readers know what they have. Nothing here builds.

mod adopt;
mod artifact;
mod checked;
mod error;
mod index;
mod lookup;
mod place;
pub mod publish;
mod query;
mod record;
pub mod satisfy;
mod signing;
mod sources;
mod sync;
mod token;
mod trust;

pub use adopt::Wanted;
pub use error::CatalogError;
pub use index::{
    Ecosystem, Entry, Found, Index, Keep, LOCAL, Match, Page, Position, Records, Summary, Writer,
};
pub use lookup::{Catalog, Claims};
pub use place::{KeyTag, Place, PlaceError};
pub use query::{NameFilter, OsFilter, PipFilter, PythonFilter, Query, Status};
pub use record::{
    Accounts, BaseRecord, Keys, LayerRecord, OsRequest, PackageRecord, Record, RecordLayer,
    RequestRecord,
};
pub use signing::{SecretKey, SecretKeyError};
pub use sync::{Synced, put_local};
pub use token::PageToken;
pub use trust::{Belief, LayerStatement, Signature, Statement, Trust};
