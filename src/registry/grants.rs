//! What a client may do, and what proves it: scopes, logins, tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{self, HeaderMap, HeaderValue};

use super::{Credential, Reference};
use crate::ambient::Login;

/// Most grants that are kept for one repository.
const GRANTS: usize = 16;

/// What is to be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
    Delete,
}

/// What a token allows: `type:name` → actions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    pub fn of(repository: &str, access: Access) -> Self {
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
            Access::Delete => "pull,delete",
        };
        let mut scopes = Self::default();
        scopes.add(&format!("repository:{repository}:{actions}"));
        scopes
    }

    /// Adds a scope as challenges write it.
    pub fn add(&mut self, scope: &str) {
        let (name, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        let entry = self.0.entry(name.to_owned()).or_default();
        entry.extend(
            actions
                .split(',')
                .filter(|action| !action.is_empty())
                .map(Into::into),
        );
    }

    fn cover(&self, other: &Self) -> bool {
        let mut all = other.0.iter();
        all.all(|(name, actions)| self.0.get(name).is_some_and(|own| own.is_superset(actions)))
    }

    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(name, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{name}:{}", actions.join(","))
        })
    }
}

/// What goes into the `Authorization` header.
#[derive(Clone)]
pub(super) enum Proof {
    Basic(Login),
    Bearer(String),
}

impl Proof {
    pub fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic(login) => basic(login),
            Self::Bearer(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn secrets(&self) -> Vec<String> {
        match self {
            Self::Basic(login) => secrets(login),
            Self::Bearer(token) => vec![token.clone()],
        }
    }
}

fn basic(login: &Login) -> String {
    let pair = format!("{}:{}", login.username, login.password);
    format!("Basic {}", BASE64.encode(pair))
}

fn secrets(login: &Login) -> Vec<String> {
    let encoded = basic(login);
    let encoded = encoded.trim_start_matches("Basic ");
    let mut secrets = vec![login.password.clone(), encoded.to_owned()];
    if login.password.is_empty() {
        secrets.push(login.username.clone());
    }
    secrets
}

impl Credential {
    /// What no message may repeat of it.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::Login(login) => secrets(login),
            Self::IdentityToken(token) => vec![token.clone()],
        }
    }
}

/// A proof and what it is good for.
#[derive(Clone)]
pub(super) struct Grant {
    pub number: u64,
    scopes: Scopes,
    proof: Proof,
    /// What the proof was got for; the registry may know it from its token server.
    credential: Option<Credential>,
    /// Whether a request with it was let through, of any clone.
    worked: Arc<AtomicBool>,
}

impl Grant {
    pub fn authorise(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.proof.header() {
            headers.insert(header::AUTHORIZATION, value);
        }
    }

    pub fn has_worked(&self) -> bool {
        self.worked.load(Ordering::Relaxed)
    }

    pub fn works(&self) {
        self.worked.store(true, Ordering::Relaxed);
    }
}

/// The grants of a client and its clones.
#[derive(Default)]
pub(super) struct Grants {
    known: Mutex<BTreeMap<String, Vec<Grant>>>,
    /// Held while a repository's token is fetched: many requests that are refused at once fetch one.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    numbers: AtomicU64,
}

impl Grants {
    /// The newest grant that covers `scopes` in this repository.
    pub fn find(&self, reference: &Reference, scopes: &Scopes) -> Option<Grant> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let grants = known.get(&key(reference))?;
        let mut newest = grants.iter().rev();
        newest.find(|grant| grant.scopes.cover(scopes)).cloned()
    }

    /// Every secret that a server may have seen in requests for this repository.
    pub fn secrets(&self, reference: &Reference) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let grants = known.get(&key(reference)).into_iter().flatten();
        let credentials = grants.clone().filter_map(|grant| grant.credential.as_ref());
        let all = grants.flat_map(|grant| grant.proof.secrets());
        all.chain(credentials.flat_map(Credential::secrets))
            .collect()
    }

    pub fn keep(
        &self,
        reference: &Reference,
        scopes: Scopes,
        proof: Proof,
        credential: Option<Credential>,
    ) -> Grant {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let grant = Grant {
            number,
            scopes,
            proof,
            credential,
            worked: Arc::default(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let grants = known.entry(key(reference)).or_default();
        grants.retain(|old| !grant.scopes.cover(&old.scopes));
        if grants.len() >= GRANTS {
            grants.remove(0);
        }
        grants.push(grant.clone());
        grant
    }

    pub fn turn(&self, reference: &Reference) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(key(reference)).or_default().clone()
    }
}

fn key(reference: &Reference) -> String {
    format!("{}/{}", reference.host, reference.repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_serves_what_it_covers() {
        let grants = Grants::default();
        let reference: Reference = "a.b/c".parse().unwrap();
        let (pull, push) = (Scopes::of("c", Access::Pull), Scopes::of("c", Access::Push));
        let mut mount = push.clone();
        mount.add("repository:other:pull");
        assert!(grants.find(&reference, &pull).is_none());
        grants.keep(&reference, pull.clone(), Proof::Bearer("one".into()), None);
        assert!(grants.find(&reference, &push).is_none());
        let two = grants.keep(&reference, push.clone(), Proof::Bearer("two".into()), None);
        assert_eq!(grants.find(&reference, &pull).unwrap().number, two.number);
        assert!(grants.find(&reference, &mount).is_none());
        assert!(grants.find(&"a.b/d".parse().unwrap(), &pull).is_none());
        assert_eq!(
            grants.secrets(&reference),
            ["two"],
            "what is covered is not kept"
        );
        assert_eq!(
            mount.texts().collect::<Vec<_>>(),
            ["repository:c:pull,push", "repository:other:pull"]
        );
        for n in 0..100 {
            let mut scopes = Scopes::of("c", Access::Pull);
            scopes.add(&format!("x:{n}:y"));
            grants.keep(&reference, scopes, Proof::Bearer(n.to_string()), None);
        }
        assert!(grants.secrets(&reference).len() <= GRANTS);
    }

    #[test]
    fn scopes_of_any_wording_are_kept() {
        let mut scopes = Scopes::default();
        for scope in [
            "repository:h:5000/a:pull",
            "repository:h:5000/a:push,pull",
            "registry",
            ":",
            "",
        ] {
            scopes.add(scope);
        }
        assert!(
            scopes
                .texts()
                .any(|text| text == "repository:h:5000/a:pull,push")
        );
    }
}
