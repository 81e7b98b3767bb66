//! Python resolution and downloads: against the real default index and `uv pip compile`, and against servers on
//! loopback that misbehave.

mod fetching;
mod refusals;
mod resolving;
mod secrets;
mod support;
