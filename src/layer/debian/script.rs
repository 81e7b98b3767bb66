//! What runs in the sandbox: dpkg, driven as mmdebstrap and apt drive it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::order::Order;

/// The folder in the container that holds debs and script; part of no layer.
pub const FOLDER: &str = ".imagewright";

/// A file of [`FOLDER`] that is older than everything the container changes.
pub const MARKER: &str = "begin";

/// The name of the script in [`FOLDER`].
pub const SCRIPT: &str = "install.sh";

/// The environment of dpkg and the maintainer scripts: no locale, zone, seed or question of the machine's.
pub fn environment(epoch: i64) -> BTreeMap<String, String> {
    [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("HOME", "/root"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("PYTHONHASHSEED", "0"),
        ("PERL_HASH_SEED", "0"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .chain([("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string())])
    .collect()
}

/// The script that installs `files` (names of debs in [`FOLDER`]) in this order.
///
/// Times newer than the epoch are clamped after unpacking and before configuring, because caches made then (bytecode,
/// font caches) record them. Services are forbidden to start.
pub fn script(order: &Order, files: &[String]) -> String {
    let mut text = format!(
        "set -eu
umask 022
cd /
clamp() {{
    find / -xdev \\( -path /{FOLDER} -o -path /proc -o -path /sys -o -path /dev \\) -prune -o \\
        -cnewer /{FOLDER}/{MARKER} -newermt \"@$SOURCE_DATE_EPOCH\" \\
        -exec touch --no-dereference --date=\"@$SOURCE_DATE_EPOCH\" {{}} +
}}
dpkg() {{
    command dpkg --log=/dev/null --force-unsafe-io --force-confold --auto-deconfigure \"$@\"
}}
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    mkdir -p /usr/sbin
    printf '#!/bin/sh\\nexit 101\\n' > $policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi
"
    );
    let debs = |indexes: &[usize]| -> String {
        indexes.iter().fold(String::new(), |mut list, &index| {
            let _ = write!(list, " \\\n    /{FOLDER}/{}", files[index]);
            list
        })
    };
    if !order.essential.is_empty() {
        let _ = write!(
            text,
            "dpkg --force-depends --unpack{}\nclamp\ndpkg --force-depends --configure --pending\n",
            debs(&order.essential)
        );
    }
    for round in &order.rounds {
        let _ = write!(
            text,
            "dpkg --unpack{}\nclamp\ndpkg --configure --pending\n",
            debs(round)
        );
    }
    text
}
