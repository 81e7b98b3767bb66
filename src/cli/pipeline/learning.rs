//! What the lock learns from a build.

use super::building::Order;
use crate::cli::context::{Context, LOCK};
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::image::Image;
use crate::lock::{Lock, LockedBase};
use crate::manifest::Platform;
use crate::progress::Progress;

/// Under `--locked`, an image is the one that the lock names, if it names one.
pub fn hold(order: &Order<'_>, image: &Image) -> Result<(), Failure> {
    let built = image.digest();
    let Some(first) = order.locked.digest.filter(|first| *first != built) else {
        return Ok(());
    };
    let (name, platform) = (&order.request.name.value, order.platform);
    Err(Failure::plain(
        Kind::Refused,
        format!("image `{name}` for {platform} is {built} here, and {first} in {LOCK}"),
        format!(
            "the same pins became something else, here or where the lock was written: compare the two before you trust \
             either (`imagewright build --verify-substitutes` compares with the registry). If the lock is wrong, remove the \
             line `digest \"{first}\"` from it, run `imagewright build`, and commit it"
        ),
    ))
}

/// First digests and diff IDs go into the lock; what differs from the lock is told and not swapped in.
pub fn learn(context: &Context, order: &Order<'_>, image: &Image, lock: &mut Lock) {
    let name = &order.request.name.value;
    let mut os = image.layers[image.base_layers..].iter();
    if let LockedBase::Debian { request, .. } = &order.locked.base
        && let Some(base) = os.next()
    {
        learn_base(lock, order.platform, request, base.diff_id);
    }
    let platforms = lock.images.get_mut(name);
    let Some(locked) = platforms.and_then(|all| all.get_mut(&order.platform)) else {
        return;
    };
    if !locked.debs.is_empty()
        && let Some(own) = os.next()
    {
        locked.os_diff_id.get_or_insert(own.diff_id);
    }
    let digest = image.digest();
    let first = *locked.digest.get_or_insert(digest);
    if first != digest {
        context.progress.warn(&format!(
            "{name} {}: this build is {digest}, the lock has {first} and keeps it",
            order.platform
        ));
    }
}

/// The diff ID of a Debian base, for every image that stands on it.
fn learn_base(lock: &mut Lock, platform: Platform, key: &Digest, learned: Digest) {
    let images = lock.images.values_mut();
    for image in images.filter_map(|platforms| platforms.get_mut(&platform)) {
        if let LockedBase::Debian {
            request, diff_id, ..
        } = &mut image.base
            && request == key
        {
            diff_id.get_or_insert(learned);
        }
    }
}
