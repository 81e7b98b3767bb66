//! Registries that do not answer: what is told while one waits, when they are given up, whom not to ask again.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Registry, RegistryError};
use crate::http::HttpError;
use crate::progress::SharedProgress;

/// Whom to tell that a host lets itself be waited for, and of which hosts that was told.
pub(super) struct Listener {
    pub progress: SharedProgress,
    told: Mutex<BTreeSet<String>>,
}

impl Listener {
    pub fn new(progress: SharedProgress) -> Self {
        Self {
            progress,
            told: Mutex::default(),
        }
    }

    fn tell(&self, host: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(host.to_owned()) {
            self.progress.note(&format!("waiting for {host}…"));
        }
    }
}

impl Registry {
    /// Repeats what fails for reasons that may pass; `once` is told how long the head of an answer may take. A host that
    /// does not answer at all is given up sooner than one that answers with errors, and not asked again by an impatient
    /// client.
    pub(super) async fn patiently<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        host: &str,
        once: impl FnMut(Duration) -> F,
    ) -> Result<T, RegistryError> {
        self.heard_of(host)?;
        let mut done = pin!(self.repeat(host, once));
        match tokio::time::timeout(self.patience.notice, &mut done).await {
            Ok(done) => done,
            Err(_) => {
                self.listener
                    .iter()
                    .for_each(|listener| listener.tell(host));
                done.await
            }
        }
    }

    async fn repeat<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        host: &str,
        mut once: impl FnMut(Duration) -> F,
    ) -> Result<T, RegistryError> {
        let patience = self.patience;
        let mut waits = self.waits();
        let mut heard = Instant::now();
        loop {
            let left = patience.silence.saturating_sub(heard.elapsed());
            let error = match once(patience.answer.min(left)).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let silent = matches!(&error, RegistryError::Http(HttpError::Unreachable { .. }));
            let over = silent && heard.elapsed() > patience.silence.mul_f64(0.9);
            let again = match over {
                true => Err(error),
                false => waits.after(error).await,
            };
            if let Err(error) = again {
                self.note_silence(host, &error);
                return Err(after(heard.elapsed(), patience.notice, error));
            }
            if !silent {
                heard = Instant::now();
            }
        }
    }

    fn heard_of(&self, host: &str) -> Result<(), RegistryError> {
        let Some(silent) = &self.silent else {
            return Ok(());
        };
        let silent = silent.lock().unwrap_or_else(PoisonError::into_inner);
        match silent.get(host) {
            None => Ok(()),
            Some(reason) => Err(RegistryError::Http(HttpError::Unreachable {
                url: host.to_owned(),
                reason: reason.clone(),
            })),
        }
    }

    fn note_silence(&self, host: &str, error: &RegistryError) {
        if let (Some(silent), RegistryError::Http(HttpError::Unreachable { reason, .. })) =
            (&self.silent, error)
        {
            let mut silent = silent.lock().unwrap_or_else(PoisonError::into_inner);
            silent.insert(host.to_owned(), reason.clone());
        }
    }
}

/// Says how long nobody answered, if that was long enough to be of interest.
fn after(silence: Duration, long: Duration, error: RegistryError) -> RegistryError {
    match error {
        RegistryError::Http(HttpError::Unreachable { url, reason }) if silence >= long => {
            let silence = silence.as_secs();
            RegistryError::Http(HttpError::Unreachable {
                url,
                reason: format!("nobody has answered for {silence} s (at last: {reason})"),
            })
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::super::Reference;
    use super::super::retry::Patience;
    use super::*;
    use crate::ambient::Ambient;
    use crate::http::Http;
    use crate::progress::{Progress, Stage};

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Progress for Notes {
        fn begin(&self, _: Stage, _: &str, _: Option<u64>) -> u64 {
            0
        }
        fn advance(&self, _: u64, _: u64) {}
        fn end(&self, _: u64) {}
        fn warn(&self, message: &str) {
            panic!("{message}");
        }
        fn note(&self, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    #[tokio::test]
    async fn a_host_that_never_answers_is_told_once_and_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = silent.local_addr().unwrap().to_string();
        let notes = Arc::new(Notes::default());
        let ambient = Ambient::default();
        let http = Http::new(&ambient, false).unwrap();
        let registry = Registry::new(http.with_pause(Duration::from_millis(1)), &ambient);
        let mut registry = registry.with_progress(notes.clone());
        registry.patience = Patience {
            answer: Duration::from_millis(400),
            silence: Duration::from_millis(600),
            notice: Duration::from_millis(100),
            ..Patience::LONG
        };
        let reference: Reference = format!("{host}/team/app:1").parse().unwrap();
        let before = registry.transfers().requests;
        let ask = || registry.manifest(&reference);
        let (one, other) = tokio::join!(ask(), ask());
        for error in [one.unwrap_err(), other.unwrap_err()] {
            let said = error.to_string();
            assert!(said.contains("nobody has answered for 0 s"), "{said}");
            assert!(said.contains(&host), "{said}");
        }
        let asked = registry.transfers().requests - before;
        assert!(asked <= 4, "{asked}: once more each, for what time is left");
        let told = notes.0.lock().unwrap().clone();
        assert_eq!(told, [format!("waiting for {host}…")]);
    }
}
