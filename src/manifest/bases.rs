//! The bases that imagewright brings along: KDL text like everybody's.

/// Name and text, in the order in which they are shown.
const BASES: &[(&str, &str)] = &[
    ("minimal", include_str!("bases/minimal.kdl")),
    ("tabular", include_str!("bases/tabular.kdl")),
    ("nlp", include_str!("bases/nlp.kdl")),
    ("images", include_str!("bases/images.kdl")),
    ("all", include_str!("bases/all.kdl")),
];

/// The base of an image that names none.
pub const DEFAULT_BASE: &str = "all";

/// The KDL text of a built-in base.
pub fn builtin_base(name: &str) -> Option<&'static str> {
    BASES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}

/// The names of the built-in bases.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BASES.iter().map(|(name, _)| *name)
}
