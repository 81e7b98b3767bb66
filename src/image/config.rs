//! The OCI image configuration and manifest. Both are canonical JSON (RFC 8785) and a function of the image key and
//! the layers: no clock, no name, no machine.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image as oci;
use serde::Serialize;

use super::{Image, ImageError, base_layer};
use crate::digest::Digest;
use crate::identity::{self, ConfigDocument, ContentDocument, ImageDocument};
use crate::layer::{Layer, VENV};
use crate::manifest::{Config, Platform, User};
use crate::resolve::base::BaseImage;

/// `created` of every image and history entry: an instant that no machine decides.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The PATH below the Python environment where a base declares none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The working folder of images that declare none.
pub const DEFAULT_WORKDIR: &str = "/work";

/// Docker's graph driver takes no more layers.
const MOST_LAYERS: usize = 125;

/// What an image is put together from.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// The platform.
    pub platform: Platform,
    /// The `from` image below, if the root is one.
    pub base: Option<&'a BaseImage>,
    /// The layers above the base, lowest first.
    pub layers: Vec<Layer>,
    /// What the manifest declares.
    pub config: &'a Config,
}

/// Puts an image together.
///
/// # Errors
/// When the base's configuration is not valid or there are more layers than engines take.
pub fn assemble(parts: Parts<'_>) -> Result<Image, ImageError> {
    let from = parts.base.map(|base| base.digest);
    let keys = parts.layers.iter().map(|layer| layer.key).collect();
    let document = ContentDocument::new(parts.platform, from, keys);
    let content = identity::key(&document);
    let declared = ConfigDocument::new(parts.config);
    let key = identity::key(&ImageDocument::new(&document, declared));
    let base = parts.base.map(parse_base).transpose()?.unwrap_or_default();
    let below = parts.base.map_or(&[][..], |base| &base.layers);
    let base_layers = below.len();
    let layers: Vec<Layer> = below.iter().map(base_layer).chain(parts.layers).collect();
    if layers.len() > MOST_LAYERS {
        return Err(ImageError::ManyLayers {
            count: layers.len(),
            limit: MOST_LAYERS,
        });
    }
    let config = encode(&configuration(
        parts.platform,
        &base,
        &layers,
        base_layers,
        parts.config,
    ))?;
    let annotations = annotations(parts.base, key, content, parts.config);
    let manifest = encode(&manifest(&config, &layers, annotations)?)?;
    Ok(Image {
        platform: parts.platform,
        key,
        config,
        manifest,
        layers,
        base_layers,
    })
}

fn parse_base(base: &BaseImage) -> Result<oci::ImageConfiguration, ImageError> {
    oci::ImageConfiguration::from_reader(base.config.as_bytes()).map_err(|error| {
        ImageError::BaseConfig {
            digest: base.digest,
            reason: error.to_string(),
        }
    })
}

/// Canonical JSON: the library's maps have no order of their own.
fn encode(document: &impl Serialize) -> Result<String, ImageError> {
    serde_json_canonicalizer::to_string(document)
        .map_err(|error| ImageError::Encoding(error.to_string()))
}

fn configuration(
    platform: Platform,
    base: &oci::ImageConfiguration,
    layers: &[Layer],
    base_layers: usize,
    declared: &Config,
) -> oci::ImageConfiguration {
    let mut config = oci::ImageConfiguration::default();
    config.set_created(Some(CREATED.into()));
    config.set_os(oci::Os::Linux);
    config.set_architecture(match platform {
        Platform::LinuxAmd64 => oci::Arch::Amd64,
        Platform::LinuxArm64 => oci::Arch::ARM64,
    });
    config.set_variant(base.variant().clone());
    let mut rootfs = oci::RootFs::default();
    rootfs.set_diff_ids(
        layers
            .iter()
            .map(|layer| layer.diff_id.to_string())
            .collect(),
    );
    config.set_rootfs(rootfs);
    config.set_history(Some(history(base, layers, base_layers)));
    config.set_config(Some(runtime(
        base.config().clone().unwrap_or_default(),
        declared,
    )));
    config
}

/// The base's history, if it fits its layers, and one entry for each layer above it.
fn history(
    base: &oci::ImageConfiguration,
    layers: &[Layer],
    base_layers: usize,
) -> Vec<oci::History> {
    let entry = |layer: &Layer| {
        let mut entry = oci::History::default();
        entry.set_created(Some(CREATED.into()));
        entry.set_created_by(Some(layer.comment.clone()));
        entry.set_comment(Some("imagewright".into()));
        entry
    };
    let known = base.history().clone().unwrap_or_default();
    let filled = known
        .iter()
        .filter(|entry| entry.empty_layer() != Some(true))
        .count();
    let mut history = if filled == base_layers {
        known
    } else {
        layers[..base_layers].iter().map(entry).collect()
    };
    history.extend(layers[base_layers..].iter().map(entry));
    history
}

/// Process defaults. Of the base stay environment, labels, ports, volumes and stop signal; not its user, working
/// folder, entry point and command.
fn runtime(base: oci::Config, declared: &Config) -> oci::Config {
    let default_user = User::default();
    let user = declared.user.as_ref().unwrap_or(&default_user);
    let mut config = base;
    config.set_user(Some(format!("{}:{}", user.uid, user.gid)));
    config.set_env(Some(environment(
        config.env().as_deref().unwrap_or_default(),
        user,
        declared,
    )));
    config.set_working_dir(Some(
        declared.workdir.clone().unwrap_or(DEFAULT_WORKDIR.into()),
    ));
    config.set_entrypoint(declared.entrypoint.clone());
    config.set_cmd(declared.cmd.clone());
    let mut labels = config.labels().clone().unwrap_or_default();
    labels.extend(declared.labels.clone());
    config.set_labels((!labels.is_empty()).then_some(labels));
    config.set_exposed_ports(sorted(config.exposed_ports()));
    config.set_volumes(sorted(config.volumes()));
    config
}

fn sorted(names: &Option<Vec<String>>) -> Option<Vec<String>> {
    let mut names = names.clone()?;
    names.sort();
    (!names.is_empty()).then_some(names)
}

/// The base's variables in their order, then ours, then declared ones by name; the later value of a name wins.
fn environment(base: &[String], user: &User, declared: &Config) -> Vec<String> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: String| match env.iter_mut().find(|(known, _)| known == name)
    {
        Some((_, old)) => *old = value,
        None => env.push((name.into(), value)),
    };
    let mut path = DEFAULT_PATH.to_owned();
    let mut has_locale = false;
    for line in base {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if name == "PATH" && !value.is_empty() {
            path = value.into();
        }
        has_locale |= matches!(name, "LANG" | "LC_ALL");
        set(name, value.into());
    }
    let bin = format!("{VENV}/bin");
    let rest: Vec<&str> = path.split(':').filter(|folder| *folder != bin).collect();
    set("PATH", format!("{bin}:{}", rest.join(":")));
    set("VIRTUAL_ENV", VENV.into());
    set("HOME", user.home.clone());
    if !has_locale {
        set("LANG", "C.UTF-8".into());
    }
    for (name, value) in &declared.env {
        set(name, value.clone());
    }
    env.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The base's name is missing on purpose: two names of one base must not make two digests of one image key.
fn annotations(
    base: Option<&BaseImage>,
    key: Digest,
    content: Digest,
    declared: &Config,
) -> BTreeMap<String, String> {
    let mut all = declared.annotations.clone();
    if let Some(base) = base {
        all.entry(oci::ANNOTATION_BASE_IMAGE_DIGEST.into())
            .or_insert(base.digest.to_string());
    }
    all.insert("dev.imagewright.key".into(), key.to_string());
    all.insert("dev.imagewright.content".into(), content.to_string());
    all
}

fn manifest(
    config: &str,
    layers: &[Layer],
    annotations: BTreeMap<String, String>,
) -> Result<oci::ImageManifest, ImageError> {
    let descriptors: Result<Vec<_>, _> = layers
        .iter()
        .map(|layer| descriptor(layer.media_type.as_str().into(), &layer.digest, layer.size))
        .collect();
    let config_type = oci::MediaType::ImageConfig;
    let annotations: HashMap<String, String> = annotations.into_iter().collect();
    oci::ImageManifestBuilder::default()
        .schema_version(oci::SCHEMA_VERSION)
        .media_type(oci::MediaType::ImageManifest)
        .config(descriptor(
            config_type,
            &Digest::of(config),
            config.len() as u64,
        )?)
        .layers(descriptors?)
        .annotations(annotations)
        .build()
        .map_err(|error| ImageError::Encoding(error.to_string()))
}

/// A descriptor in the library's type.
pub(super) fn descriptor(
    media_type: oci::MediaType,
    digest: &Digest,
    size: u64,
) -> Result<oci::Descriptor, ImageError> {
    let digest: oci::Digest = digest
        .to_string()
        .parse()
        .map_err(|error: oci_spec::OciSpecError| ImageError::Encoding(error.to_string()))?;
    Ok(oci::Descriptor::new(media_type, size, digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{LAYER_MEDIA_TYPE, LayerContent};

    fn layer(name: &str) -> Layer {
        Layer {
            key: Digest::of(name),
            media_type: LAYER_MEDIA_TYPE.into(),
            digest: Digest::of(format!("blob of {name}")),
            size: 10,
            diff_id: Digest::of(format!("tar of {name}")),
            unpacked: 100,
            comment: name.into(),
            content: LayerContent::Blob,
        }
    }

    fn build(config: &Config) -> Image {
        let layers = vec![layer("python environment"), layer("numpy 1.26.4")];
        assemble(Parts {
            platform: Platform::LinuxAmd64,
            base: None,
            layers,
            config,
        })
        .unwrap()
    }

    #[test]
    fn documents_are_canonical_and_complete() {
        let mut config = Config::default();
        for name in ["z", "a", "m", "k", "b"] {
            config.labels.insert(name.into(), name.into());
            config
                .annotations
                .insert(format!("com.example.{name}"), name.into());
        }
        config.env.insert("PATH_INFO".into(), "x=y".into());
        let image = build(&config);
        for _ in 0..20 {
            assert_eq!(build(&config), image, "maps must not shape bytes");
        }
        let parsed: serde_json::Value = serde_json::from_str(&image.config).unwrap();
        assert_eq!(parsed["created"], CREATED);
        assert_eq!(parsed["history"][1]["created_by"], "numpy 1.26.4");
        assert_eq!(parsed["config"]["User"], "1000:1000");
        assert_eq!(parsed["config"]["WorkingDir"], DEFAULT_WORKDIR);
        assert!(
            parsed["config"].get("Cmd").is_none() && parsed["config"].get("Entrypoint").is_none()
        );
        let env: Vec<&str> = parsed["config"]["Env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap())
            .collect();
        assert_eq!(env[0], format!("PATH=/opt/venv/bin:{DEFAULT_PATH}"));
        assert!(env.contains(&"HOME=/home/app") && env.contains(&"PATH_INFO=x=y"));
        let manifest: serde_json::Value = serde_json::from_str(&image.manifest).unwrap();
        assert_eq!(
            manifest["config"]["digest"],
            image.config_digest().to_string()
        );
        assert_eq!(
            manifest["annotations"]["dev.imagewright.key"],
            image.key.to_string()
        );
    }

    #[test]
    fn a_declared_path_and_command_win_and_change_the_key() {
        let plain = build(&Config::default());
        let mut config = Config::default();
        config.env.insert("PATH".into(), "/only".into());
        config.cmd = Some(vec!["python".into()]);
        let image = build(&config);
        assert_ne!(image.key, plain.key);
        assert!(
            image.config.contains(r#""Cmd":["python"]"#) && image.config.contains("PATH=/only")
        );
    }

    #[test]
    fn the_environment_folder_stands_once_in_path() {
        let base = [
            "PATH=/opt/venv/bin:/usr/bin".to_owned(),
            "LANG=de_DE".into(),
            "A=1".into(),
        ];
        let env = environment(&base, &User::default(), &Config::default());
        assert_eq!(
            env[..3],
            ["PATH=/opt/venv/bin:/usr/bin", "LANG=de_DE", "A=1"]
        );
    }

    #[test]
    fn too_many_layers_are_refused() {
        let layers = (0..126).map(|n| layer(&n.to_string())).collect();
        let config = Config::default();
        let error = assemble(Parts {
            platform: Platform::LinuxAmd64,
            base: None,
            layers,
            config: &config,
        });
        assert!(matches!(
            error,
            Err(ImageError::ManyLayers { count: 126, .. })
        ));
    }
}
