//! Image and run records.
