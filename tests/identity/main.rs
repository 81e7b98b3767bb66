//! The chain of identity: vectors, which field changes which key, and explanations.

mod canonical;
mod documents;
mod explanations;
mod fields;
mod kdl;
mod keys;
mod leaves;
mod properties;
mod sets;
mod vectors;
