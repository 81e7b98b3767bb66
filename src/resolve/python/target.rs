//! The platform that is resolved for, as the resolver's markers and wheel tags.

use uv_pep508::{MarkerEnvironment, MarkerEnvironmentBuilder};
use uv_platform_tags::{Arch, Os, Platform as TagPlatform, Tags, TagsOptions};

use super::PythonError;
use crate::lock::LockedPython;
use crate::manifest::Platform;

/// CPython of one version on one Linux platform with one glibc.
pub(super) struct Target {
    pub markers: MarkerEnvironment,
    pub platform: TagPlatform,
    pub tags: Tags,
    /// For messages, for example `CPython 3.11 on linux/amd64 with glibc 2.36`.
    pub described: String,
}

impl Target {
    pub fn new(platform: Platform, python: &LockedPython) -> Result<Self, PythonError> {
        let internal = |reason: String| PythonError::Internal { reason };
        let short = python.minor.to_string();
        let markers = markers(platform, &short, &python.full)
            .map_err(|reason| internal(format!("Python version `{}`: {reason}", python.full)))?;
        let arch = match platform {
            Platform::LinuxAmd64 => Arch::X86_64,
            Platform::LinuxArm64 => Arch::Aarch64,
        };
        let (major, minor) = python.glibc;
        let tag_platform = TagPlatform::new(Os::Manylinux { major, minor }, arch);
        let version = (python.minor.major, python.minor.minor);
        let options = TagsOptions {
            manylinux_compatible: true,
            is_cross: true,
            ..TagsOptions::default()
        };
        let tags = Tags::from_env(tag_platform.clone(), version, "cpython", version, options)
            .map_err(|error| internal(error.to_string()))?;
        Ok(Self {
            markers,
            platform: tag_platform,
            tags,
            described: format!("CPython {short} on {platform} with glibc {major}.{minor}"),
        })
    }
}

/// What markers see of CPython `full`, whose minor version is `short`.
pub(super) fn markers(
    platform: Platform,
    short: &str,
    full: &str,
) -> Result<MarkerEnvironment, String> {
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: full,
        os_name: "posix",
        platform_machine: platform.machine(),
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: full,
        python_version: short,
        sys_platform: "linux",
    })
    .map_err(|error| error.to_string())
}
