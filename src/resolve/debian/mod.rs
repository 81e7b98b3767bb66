//! Debian resolution.
