//! Images on real bases, judged by the programs that will read them: skopeo, umoci, Podman, Docker, ocipkg.

mod hostile;
mod inspect;
mod judges;
mod project;
mod registry;
mod support;
