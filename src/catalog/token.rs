//! Page tokens: where an answer goes on, as text that means nothing to others.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use super::{CatalogError, Position, Query};
use crate::digest::Digest;

/// What every token begins with, so that none looks like a flag.
const PREFIX: &str = "p";
/// Longest token that is read, in bytes.
const MAX_LENGTH: usize = 2000;
/// Bytes of the checksum that begins a token.
const CHECKSUM: usize = 4;
/// Bytes of a query's digest in a token.
const QUERY: usize = 8;

/// A position in the answer to one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    query: [u8; QUERY],
    position: Position,
}

#[derive(Serialize, Deserialize)]
struct Text(i64, u32, String, String, i64, String);

impl PageToken {
    /// The token of a position in the answer of `source` to `query`.
    pub fn new(query: &Query, source: &str, position: Position) -> Self {
        Self {
            query: short(query, source),
            position,
        }
    }

    /// The position, if this is a token of the same query.
    ///
    /// # Errors
    /// When it is of another one.
    pub fn position(self, query: &Query, source: &str) -> Result<Position, CatalogError> {
        match self.query == short(query, source) {
            true => Ok(self.position),
            false => Err(CatalogError::Token(
                "is of other filters or another registry",
            )),
        }
    }
}

fn short(query: &Query, source: &str) -> [u8; QUERY] {
    let mut short = [0; QUERY];
    short.copy_from_slice(&query.digest(source).bytes()[..QUERY]);
    short
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = &self.position;
        let rank = hex::encode(&at.rank);
        let text = Text(
            at.generation,
            at.last,
            at.name.clone(),
            at.platform.clone(),
            at.pushed_ms,
            rank,
        );
        let text = serde_json::to_vec(&text).map_err(|_| fmt::Error)?;
        let body = [self.query.as_slice(), &text].concat();
        let sum = Digest::of(&body);
        f.write_str(PREFIX)?;
        f.write_str(&BASE64.encode([&sum.bytes()[..CHECKSUM], &body].concat()))
    }
}

impl FromStr for PageToken {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let mangled = CatalogError::Token("is not one that a page came with");
        let parse = || {
            let bytes = BASE64
                .decode(
                    text.get(..MAX_LENGTH.min(text.len()))?
                        .strip_prefix(PREFIX)?,
                )
                .ok()?;
            let (sum, body) = bytes.split_at_checked(CHECKSUM)?;
            let (query, text) = body.split_at_checked(QUERY)?;
            let sound = Digest::of(body).bytes().starts_with(sum);
            let text: Text = sound.then(|| serde_json::from_slice(text).ok()).flatten()?;
            let Text(generation, last, name, platform, pushed_ms, rank) = text;
            Some(Self {
                query: query.try_into().ok()?,
                position: Position {
                    generation,
                    last,
                    name,
                    platform,
                    pushed_ms,
                    rank: hex::decode(rank).ok()?,
                },
            })
        };
        parse().ok_or(mangled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_words_and_mean_their_positions() {
        let query = Query::default();
        for at in 0..300_u32 {
            let position = Position {
                generation: -7,
                last: at,
                name: "fraud".into(),
                platform: "linux/amd64".into(),
                pushed_ms: 5,
                rank: vec![at as u8; 64],
            };
            let token = PageToken::new(&query, "local", position.clone()).to_string();
            assert!(
                token.starts_with(|c: char| c.is_ascii_alphanumeric()),
                "{token}"
            );
            let parsed = token.parse::<PageToken>().unwrap();
            assert_eq!(parsed.position(&query, "local").unwrap(), position);
        }
    }
}
