//! Wheels become layers: the same tree as other installers make, blobs that every reader of gzip and tar reads, the same
//! bytes everywhere, and nothing at all from a wheel that lies.

mod determinism;
mod golden;
mod hostile;
mod installed;
mod memory;
mod readers;
mod recipes;
mod rules;
mod support;
mod trees;
mod wheels;
mod zipper;
