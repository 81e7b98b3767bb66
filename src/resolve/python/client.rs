//! The resolver's HTTP client: ours below, with logins that reach only their index.
//!
//! The resolver's own authentication (netrc, keyring, token stores, cloud providers' variables) is left out: what the
//! machine contributes comes in [`Ambient`] alone. Of the environment, the resolver's crates still read
//! `UV_LOCK_TIMEOUT`, `UV_LIBC`, `UV_STACK_SIZE`, `UV_INTERNAL__*` and `UV_TEST_*`, none of which chooses an index.

use std::sync::Arc;

use http::Extensions;
use reqwest::{Request, RequestBuilder, Response};
use reqwest_middleware::{Middleware, Next, Result as MiddlewareResult};
use uv_cache::Cache;
use uv_client::{
    AuthIntegration, BaseClientBuilder, Connectivity, ExtraMiddleware, RegistryClient,
    RegistryClientBuilder,
};
use uv_distribution_types::IndexLocations;

use super::PythonError;
use super::target::Target;
use crate::ambient::IndexLogins;
use crate::http::Http;

/// The client for `locations`.
pub(super) fn registry_client(
    http: &Http,
    logins: &IndexLogins,
    locations: &IndexLocations,
    target: &Target,
    cache: &Cache,
) -> Result<RegistryClient, PythonError> {
    let connectivity = if http.is_offline() {
        Connectivity::Offline
    } else {
        Connectivity::Online
    };
    let log_in = LogIn {
        client: http.client().clone(),
        logins: logins.clone(),
    };
    let base = BaseClientBuilder::default()
        .connectivity(connectivity)
        .custom_client(http.client().clone())
        .auth_integration(AuthIntegration::NoAuthMiddleware)
        .extra_middleware(ExtraMiddleware(vec![Arc::new(log_in)]));
    RegistryClientBuilder::new(base, cache.clone())
        .index_locations(locations.clone())
        .markers(&target.markers)
        .platform(&target.platform)
        .build()
        .map_err(|error| PythonError::Internal {
            reason: error.to_string(),
        })
}

/// Adds the login that belongs to a request's URL.
struct LogIn {
    client: reqwest::Client,
    logins: IndexLogins,
}

#[async_trait::async_trait]
impl Middleware for LogIn {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> MiddlewareResult<Response> {
        let request = match self.logins.for_url(request.url()) {
            Some(login) => RequestBuilder::from_parts(self.client.clone(), request)
                .basic_auth(&login.username, Some(&login.password))
                .build()?,
            None => request,
        };
        next.run(request, extensions).await
    }
}
