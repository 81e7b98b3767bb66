//! The resolver's graph → pinned wheels.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use sha2::{Digest as _, Sha256};
use uv_distribution_types::{
    BuiltDist, DirectUrlBuiltDist, Dist, Edge, IndexUrl, Name, Node, RegistryBuiltWheel,
    Resolution as Graph, ResolvedDist,
};
use uv_normalize::{ExtraName, PackageName};
use uv_pep440::Version;
use uv_pypi_types::{HashAlgorithm, HashDigest};

use super::PythonError;
use super::request::{Input, Role};
use crate::ambient::redact;
use crate::diagnostic::{Kind, Problem, Problems};
use crate::digest::Digest;
use crate::http::{Http, HttpError, with_login};
use crate::lock::{LockedWheel, WheelOrigin};

/// A package of the solution.
pub(super) struct Chosen {
    pub name: PackageName,
    pub version: Version,
    /// Extras that are in force.
    pub extras: Vec<ExtraName>,
    /// Comes from an index (not from a URL or file).
    pub from_index: bool,
    node: NodeIndex,
}

/// The packages of the solution, sorted by name.
pub(super) fn chosen(graph: &Graph) -> Vec<Chosen> {
    let graph = graph.graph();
    let mut all = BTreeMap::new();
    for node in graph.node_indices() {
        let Node::Dist { dist, .. } = &graph[node] else {
            continue;
        };
        let ResolvedDist::Installable {
            dist: installable,
            version: Some(version),
        } = dist
        else {
            continue;
        };
        let from_index = matches!(&**installable, Dist::Built(BuiltDist::Registry(_)));
        let chosen = all.entry(dist.name().clone()).or_insert_with(|| Chosen {
            name: dist.name().clone(),
            version: version.clone(),
            extras: Vec::new(),
            from_index,
            node,
        });
        for edge in graph.edges_directed(node, Direction::Incoming) {
            if let Edge::Optional(extra) = edge.weight() {
                chosen.extras.push(extra.clone());
            }
        }
    }
    all.into_values().collect()
}

/// Package → the manifest's requirements that lead to it.
pub(super) fn wanted_by(graph: &Graph, input: &Input) -> BTreeMap<String, BTreeSet<String>> {
    let chosen = chosen(graph);
    let mut wanted = BTreeMap::<String, BTreeSet<String>>::new();
    let direct: BTreeSet<_> = input
        .lines
        .iter()
        .filter(|line| line.role == Role::Requirement)
        .map(|line| line.requirement.name.clone())
        .collect();
    for start in chosen.iter().filter(|one| direct.contains(&one.name)) {
        let mut stack = vec![start.node];
        let mut seen = BTreeSet::new();
        while let Some(node) = stack.pop() {
            if !seen.insert(node) {
                continue;
            }
            if let Node::Dist { dist, .. } = &graph.graph()[node] {
                let reasons = wanted.entry(dist.name().to_string()).or_default();
                reasons.insert(start.name.to_string());
            }
            stack.extend(graph.graph().neighbors(node));
        }
    }
    wanted
}

/// The wheels of the solution, sorted by package name, each with its file name.
pub(super) async fn wheels(
    graph: &Graph,
    input: &Input,
    http: &Http,
) -> Result<Vec<(String, LockedWheel)>, PythonError> {
    let mut wheels = Vec::new();
    for one in chosen(graph) {
        let Node::Dist { dist, .. } = &graph.graph()[one.node] else {
            continue;
        };
        let ResolvedDist::Installable { dist, .. } = dist else {
            continue;
        };
        let (file, wheel) = match &**dist {
            Dist::Built(BuiltDist::Registry(built)) => {
                registry_wheel(&one, built.best_wheel(), input, http).await?
            }
            Dist::Built(BuiltDist::DirectUrl(built)) => {
                direct_wheel(&one, built, input, http).await?
            }
            Dist::Built(BuiltDist::Path(built)) => {
                let Some((path, wheel)) = input.wheels.get(&*built.install_path) else {
                    return Err(unexpected(dist));
                };
                let file = path.rsplit('/').next().unwrap_or(path).to_owned();
                let origin = WheelOrigin::Path(path.clone());
                (file, locked(&one, wheel.sha256, Some(wheel.size), origin))
            }
            _ => return Err(unexpected(dist)),
        };
        wheels.push((file, wheel));
    }
    check_hashes(&wheels, input)?;
    Ok(wheels)
}

fn unexpected(dist: &Dist) -> PythonError {
    PythonError::Internal {
        reason: format!(
            "{} is neither a wheel of an index nor one of the manifest",
            dist.name()
        ),
    }
}

fn locked(one: &Chosen, sha256: Digest, size: Option<u64>, origin: WheelOrigin) -> LockedWheel {
    LockedWheel {
        name: one.name.to_string(),
        version: one.version.to_string(),
        sha256,
        size,
        origin,
    }
}

async fn registry_wheel(
    one: &Chosen,
    wheel: &RegistryBuiltWheel,
    input: &Input,
    http: &Http,
) -> Result<(String, LockedWheel), PythonError> {
    let file = wheel.file.filename.to_string();
    let (sha256, size) = match sha256_of(wheel.file.hashes.as_slice()) {
        Some(sha256) => (sha256, wheel.file.size),
        None => {
            let url = wheel
                .file
                .url
                .to_url()
                .map_err(|error| PythonError::Unreadable {
                    what: format!("the URL of {file}"),
                    reason: error.to_string(),
                })?;
            let (sha256, size) = hash_download(url.as_str(), input, http).await?;
            (sha256, Some(size))
        }
    };
    Ok((file, locked(one, sha256, size, origin(&wheel.index, input))))
}

fn origin(index: &IndexUrl, input: &Input) -> WheelOrigin {
    let url = redact(index.without_credentials().as_str());
    let trimmed = url.trim_end_matches('/');
    let default = input.default_index.as_deref();
    if default.is_some_and(|default| default.trim_end_matches('/') == trimmed) {
        WheelOrigin::DefaultIndex
    } else {
        WheelOrigin::Index(url)
    }
}

async fn direct_wheel(
    one: &Chosen,
    built: &DirectUrlBuiltDist,
    input: &Input,
    http: &Http,
) -> Result<(String, LockedWheel), PythonError> {
    let url = built.location.to_string();
    let fragment = built.url.fragment().unwrap_or_default();
    let stated = fragment
        .split('&')
        .find_map(|part| Digest::from_hex(part.strip_prefix("sha256=")?).ok());
    let (sha256, size) = match stated {
        Some(sha256) => (sha256, built.size),
        None => {
            let (sha256, size) = hash_download(built.location.as_str(), input, http).await?;
            (sha256, Some(size))
        }
    };
    let name = built
        .location
        .path_segments()
        .and_then(|mut parts| parts.next_back());
    let name = percent_encoding::percent_decode_str(name.unwrap_or_default()).decode_utf8_lossy();
    let origin = WheelOrigin::Url(redact(&url));
    Ok((name.into_owned(), locked(one, sha256, size, origin)))
}

fn sha256_of(hashes: &[HashDigest]) -> Option<Digest> {
    hashes
        .iter()
        .filter(|hash| hash.algorithm == HashAlgorithm::Sha256)
        .find_map(|hash| Digest::from_hex(&hash.digest.to_lowercase()).ok())
}

/// Downloads a file whose index tells no SHA-256, to learn it.
async fn hash_download(
    url: &str,
    input: &Input,
    http: &Http,
) -> Result<(Digest, u64), PythonError> {
    let login = url::Url::parse(url)
        .ok()
        .and_then(|url| input.logins.for_url(&url).cloned());
    let response = http
        .send(url, |client| with_login(client.get(url), login.as_ref()))
        .await?;
    let announced = response.content_length();
    let mut stream = response.bytes_stream();
    let (mut hasher, mut size) = (Sha256::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| HttpError::from_reqwest(url, error))?;
        hasher.update(&chunk);
        size += chunk.len() as u64;
    }
    if announced.is_some_and(|announced| announced != size) {
        return Err(PythonError::Unreachable {
            url: redact(url),
            reason: "the download ended early".into(),
        });
    }
    Ok((Digest::from_bytes(hasher.finalize().into()), size))
}

/// Hashes of a requirements file bind the file that was chosen.
fn check_hashes(wheels: &[(String, LockedWheel)], input: &Input) -> Result<(), PythonError> {
    let mut problems = Problems::default();
    for line in input
        .lines
        .iter()
        .filter(|line| !line.text.hashes.is_empty())
    {
        let name = line.requirement.name.as_ref();
        let Some((file, wheel)) = wheels.iter().find(|(_, wheel)| wheel.name == name) else {
            continue;
        };
        if !line.text.hashes.contains(&wheel.sha256.to_string()) {
            problems.0.push(
                Problem::new(
                    &line.text.source,
                    line.text.span,
                    format!("`{file}` has {}, which is none of the hashes given for `{name}`", wheel.sha256),
                    "its hashes allow other files only",
                )
                .kind(Kind::NoResolution)
                .help("hashes need a version pinned with `==` and must name the wheel for this platform"),
            );
        }
    }
    if problems.0.is_empty() {
        return Ok(());
    }
    Err(PythonError::NoSolution { problems })
}
