//! A compiler from a KDL manifest to container images and stress-test runs.
//!
//! The pipeline, in the order of the modules; each names the type that it hands on:
//!
//! 1. [`manifest`] reads KDL text into a [`manifest::Manifest`];
//! 2. [`lock`] is what a manifest resolves to: [`lock::Lock`];
//! 3. [`identity`] gives keys to requests, layers and images;
//! 4. [`resolve`] turns a `Manifest` into a `Lock`;
//! 5. [`source`] brings the lock's artifacts, verified, into the store;
//! 6. [`layer`] turns artifacts into [`layer::Layer`]s;
//! 7. [`image`] puts layers and configuration together: [`image::Image`];
//! 8. [`registry`] reads and writes what registries hold;
//! 9. [`catalog`] publishes images with their [`catalog::Record`]s and finds them again;
//! 10. [`runtime`] executes one container, [`run`] the declared runs, [`report`] shows their results;
//! 11. [`cli`] is the command: the only place that prints.
//!
//! Shared by all: [`store`], [`diagnostic`], [`progress`], [`digest`], [`ambient`], [`http`], [`oci`].

pub mod ambient;
pub mod diagnostic;
pub mod digest;
pub mod http;
pub mod oci;
pub mod progress;
pub mod store;

pub mod manifest;

pub mod lock;

pub mod identity;

pub mod resolve;

pub mod source;

pub mod layer;

pub mod image;

pub mod registry;

pub mod catalog;

pub mod runtime;

pub mod run;

pub mod report;

pub mod cli;
