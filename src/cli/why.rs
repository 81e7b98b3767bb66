//! `why`: which requirement, artifact or setting changed an image's keys.

use std::process::ExitCode;

use serde::Serialize;

use super::context::{Context, unknown};
use super::diff::lines;
use super::failure::Failure;
use super::load::platform as platform_flag;
use super::output;
use super::pipeline::content;
use super::pipeline::job::Recorded;
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::identity::{
    self, Difference, LayerComparison, RequestDocument, explain, explain_config, explain_layers,
};
use crate::lock::{ImageDiff, Lock, diff_images};
use crate::manifest::{ImageRequest, Manifest, Platform};
use crate::store::State;

/// Flags of `why`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The image
    image: String,
    /// Compare with this image of the manifest, or with the one that was built here with this digest or image key
    /// (`sha256:…`); default: with what the lock was made for
    #[arg(long, value_name = "IMAGE|DIGEST")]
    against: Option<String>,
    /// For this platform
    #[arg(long)]
    platform: Option<String>,
}

/// What `why --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct WhyDocument {
    /// The image.
    pub image: String,
    /// What it is compared with.
    pub against: String,
    /// Request key on the other side.
    pub request_before: Digest,
    /// Request key now.
    pub request_after: Digest,
    /// What made the request keys differ; absent if the other request is not known on this machine.
    pub request: Option<Vec<Difference>>,
    /// Packages that differ, where both sides are locked.
    pub packages: Option<ImageDiff>,
    /// Layers that differ, where both sides were built here.
    pub layers: Option<LayerComparison>,
    /// Configuration that differs, where both sides were built here.
    pub config: Option<Vec<Difference>>,
}

/// Explains.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let manifest = context.manifest()?;
    let image = find(&manifest, &arguments.image)?;
    let platform = platform_flag(arguments.platform.as_deref())?;
    let platform = platform
        .or_else(|| image.platforms.first().copied())
        .unwrap_or(Platform::LinuxAmd64);
    let state = context.store()?.state()?;
    let lock = context.lock()?;
    let now = document(context, image, platform)?;
    let question = Question {
        state: &state,
        lock: lock.as_ref(),
        platform,
    };
    let answer = match &arguments.against {
        None => question.against_lock(image, &now)?,
        Some(text) => match text.parse::<Digest>() {
            Ok(digest) => question.against_built(image, &now, digest)?,
            Err(_) => {
                let other = find(&manifest, text)?;
                let before = document(context, other, platform)?;
                question.against_image(image, &now, other, before)?
            }
        },
    };
    if context.global.json {
        output::json(&answer);
    } else {
        output::raw(text(&answer).as_bytes());
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a ImageRequest, Failure> {
    let known = || manifest.images.iter().map(|image| image.name.as_str());
    manifest
        .image(name)
        .ok_or_else(|| unknown("image", name, known()))
}

fn document(
    context: &Context,
    image: &ImageRequest,
    platform: Platform,
) -> Result<RequestDocument, Failure> {
    let content = content::read(context, image)?;
    Ok(RequestDocument::new(image, platform, &content.project)?)
}

struct Question<'a> {
    state: &'a State,
    lock: Option<&'a Lock>,
    platform: Platform,
}

impl Question<'_> {
    fn against_lock(
        &self,
        image: &ImageRequest,
        now: &RequestDocument,
    ) -> Result<WhyDocument, Failure> {
        let locked = self
            .lock
            .and_then(|lock| lock.images.get(image.name.as_str())?.get(&self.platform));
        let Some(locked) = locked else {
            let message = format!(
                "image `{}` is not in the lock for {}",
                image.name.value, self.platform
            );
            return Err(Failure::plain(
                Kind::NotFound,
                message,
                "run `imagewright lock`, or give --against",
            ));
        };
        let before = self.request(&locked.request)?;
        Ok(self.answer(
            image,
            "the lock".into(),
            locked.request,
            before.as_ref(),
            now,
        ))
    }

    fn against_built(
        &self,
        image: &ImageRequest,
        now: &RequestDocument,
        wanted: Digest,
    ) -> Result<WhyDocument, Failure> {
        let rows = self.state.all_images()?;
        let row = rows
            .iter()
            .find(|row| row.digest == wanted || row.key == wanted);
        let Some(row) = row else {
            let message = format!("no image with digest or key {wanted} was built in this store");
            return Err(Failure::plain(
                Kind::NotFound,
                message,
                "`imagewright build` prints digests",
            ));
        };
        let before = self.request(&row.request)?;
        let mut answer = self.answer(
            image,
            format!("{} {wanted}", row.name),
            row.request,
            before.as_ref(),
            now,
        );
        self.compare_built(&mut answer, self.recorded(&row.key)?, self.newest(image)?);
        Ok(answer)
    }

    fn against_image(
        &self,
        image: &ImageRequest,
        now: &RequestDocument,
        other: &ImageRequest,
        before: RequestDocument,
    ) -> Result<WhyDocument, Failure> {
        let key = identity::key(&before);
        let mut answer = self.answer(
            image,
            format!("image `{}`", other.name.value),
            key,
            Some(&before),
            now,
        );
        let locked = |image: &ImageRequest| {
            self.lock.and_then(|lock| {
                Some((
                    lock,
                    lock.images.get(image.name.as_str())?.get(&self.platform)?,
                ))
            })
        };
        if let (Some((lock, before)), Some((_, after))) = (locked(other), locked(image)) {
            answer.packages = Some(diff_images(lock, before, lock, after));
        }
        self.compare_built(&mut answer, self.newest(other)?, self.newest(image)?);
        Ok(answer)
    }

    fn answer(
        &self,
        image: &ImageRequest,
        against: String,
        before_key: Digest,
        before: Option<&RequestDocument>,
        now: &RequestDocument,
    ) -> WhyDocument {
        let request_after = identity::key(now);
        let request = match before {
            _ if before_key == request_after => Some(Vec::new()),
            Some(before) => Some(explain(before, now)),
            None => None,
        };
        WhyDocument {
            image: image.name.value.clone(),
            against,
            request_before: before_key,
            request_after,
            request,
            packages: None,
            layers: None,
            config: None,
        }
    }

    fn compare_built(
        &self,
        answer: &mut WhyDocument,
        before: Option<Recorded>,
        after: Option<Recorded>,
    ) {
        if let (Some(before), Some(after)) = (before, after) {
            answer.layers = Some(explain_layers(&before.layers, &after.layers));
            answer.config = Some(explain_config(&before.config, &after.config));
        }
    }

    fn request(&self, key: &Digest) -> Result<Option<RequestDocument>, Failure> {
        let text = self.state.document(key)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn recorded(&self, image_key: &Digest) -> Result<Option<Recorded>, Failure> {
        let text = self.state.document(image_key)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// What the image was last built from here.
    fn newest(&self, image: &ImageRequest) -> Result<Option<Recorded>, Failure> {
        let rows = self.state.all_images()?;
        let platform = self.platform.to_string();
        let locked = self
            .lock
            .and_then(|lock| lock.images.get(image.name.as_str())?.get(&self.platform));
        let row = rows.iter().rev().find(|row| {
            row.name == image.name.value
                && row.platform == platform
                && locked.is_none_or(|locked| locked.request == row.request)
        });
        match row {
            Some(row) => self.recorded(&row.key),
            None => Ok(None),
        }
    }
}

fn text(answer: &WhyDocument) -> String {
    let mut out = vec![format!("{} against {}", answer.image, answer.against)];
    match &answer.request {
        Some(differences) if differences.is_empty() => out.push(format!("  request key: the same, {}", answer.request_after)),
        Some(differences) => {
            out.push(format!("  request key: was {}, is {}", answer.request_before, answer.request_after));
            out.extend(differences.iter().map(|difference| format!("    {difference}")));
        }
        None => out.push(format!(
            "  request key: was {}, is {}; this store never saw the other request, so what differs is not known",
            answer.request_before, answer.request_after
        )),
    }
    if let Some(packages) = &answer.packages {
        out.push(format!("  packages: {} differ", packages.packages.len()));
        out.extend(lines(packages).iter().map(|line| format!("    {line}")));
    }
    if let Some(layers) = &answer.layers {
        out.push(format!(
            "  layers: {} the same, {} changed, {} added, {} removed",
            layers.unchanged, layers.changed, layers.added, layers.removed
        ));
        out.extend(
            layers
                .differences
                .iter()
                .map(|difference| format!("    {difference}")),
        );
    }
    if let Some(config) = answer.config.as_ref().filter(|config| !config.is_empty()) {
        out.push("  configuration".into());
        out.extend(config.iter().map(|difference| format!("    {difference}")));
    }
    out.join("\n") + "\n"
}
