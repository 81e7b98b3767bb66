//! Results → table and JSON.
