//! Base images: what is in them.
