//! A token server, and tokens that are good for some requests only.

use std::collections::BTreeMap;

use crate::lab::{PASSWORD, USER};
use crate::wares;
use crate::wire::{Head, answer, refusal};

/// What was given out at an address (host and port).
pub struct Tokens {
    address: String,
    /// What each is still good for.
    left: BTreeMap<String, u32>,
}

impl Tokens {
    pub fn of(address: &str) -> Self {
        Self {
            address: address.into(),
            left: BTreeMap::new(),
        }
    }

    /// The answer to a request for a token, or to one that has no good one; and whether it had one that has come to its
    /// end.
    pub fn judge(&mut self, request: &Head, uses: u32) -> (Option<String>, bool) {
        if request.target().starts_with("/token?") {
            return (Some(self.give(request, uses)), false);
        }
        let token = request.header("authorization");
        let token = token.and_then(|token| token.strip_prefix("Bearer "));
        let left = token.and_then(|token| self.left.get_mut(token));
        match left {
            Some(left @ 1..) => {
                *left -= 1;
                (None, false)
            }
            ended => {
                let ended = ended.is_some();
                (Some(self.challenge(request)), ended)
            }
        }
    }

    fn give(&mut self, request: &Head, uses: u32) -> String {
        let login = request.header("authorization") == Some(&wares::basic(USER, PASSWORD));
        if !login {
            return refusal(401, "UNAUTHORIZED", "");
        }
        let token = format!("token-{}", self.left.len());
        let body = format!("{{\"token\":\"{token}\",\"expires_in\":60}}");
        self.left.insert(token, uses);
        answer(200, &body, "")
    }

    fn challenge(&self, request: &Head) -> String {
        let path = request.target().trim_start_matches("/v2/");
        let ends = ["/manifests/", "/blobs/", "/tags/", "/referrers/"];
        let end = ends.iter().filter_map(|end| path.find(end)).min();
        let repository = &path[..end.unwrap_or(0)];
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"lab\",scope=\"repository:{repository}:pull,push\"\r\n",
            self.address
        );
        refusal(401, "UNAUTHORIZED", &challenge)
    }
}
