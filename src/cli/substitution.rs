//! What the commands that build say of how: whether the lock may change, whether somebody else's work is taken, and whose.

use super::lock::LockedFlag;
use super::pipeline::materialise::Need;
use crate::manifest::Platform;

/// Flags of every command that builds.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct BuildFlags {
    #[command(flatten)]
    pub locked: LockedFlag,
    #[command(flatten)]
    pub substitution: SubstitutionFlags,
}

/// Whose work is taken.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct SubstitutionFlags {
    /// Build everything here, also what the registry has
    #[arg(long)]
    pub no_substitute: bool,
    /// Believe whoever can write to the manifest's registry; default: only the lock, and keys that `trust` names
    #[arg(long, conflicts_with = "no_substitute")]
    pub trust_registry: bool,
}

/// How images are wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The flags.
    pub flags: BuildFlags,
    /// What is to be done with them.
    pub need: Need,
    /// These platforms; all that an image declares, if none is given.
    pub only: Vec<Platform>,
    /// Only for this platform something is to be done with them; the images for others are named.
    pub platform: Option<Platform>,
    /// Whether they are built in full and compared with what the registry has.
    pub verify: bool,
}

impl Wish {
    /// For all platforms.
    pub fn new(flags: BuildFlags, need: Need) -> Self {
        Self {
            flags,
            need,
            only: Vec::new(),
            platform: None,
            verify: false,
        }
    }
}
