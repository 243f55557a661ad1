//! The image that a container was made from, as the engine keeps it on the data disk.

use std::fs;
use std::path::Path;

use eci_contract::paths::ENGINE_DATA;
use eci_policy::rules::engine_socket::{Lineage, Repositories};
use serde::Deserialize;

/// The engine's image store, below its folder; the engine has one storage driver (`daemon.json`).
const STORE: &str = "image/overlay2";

/// A container's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What the user called it.
    pub name: String,
    /// Its id, `sha256:…`.
    pub id: String,
}

/// What is read of `config.v2.json`.
#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Image", default)]
    id: String,
    #[serde(rename = "Config")]
    config: Named,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "Image", default)]
    name: String,
}

/// What is read of `repositories.json`.
#[derive(Deserialize)]
struct Store {
    #[serde(rename = "Repositories")]
    repositories: Repositories,
}

/// What is read of an image's own file.
#[derive(Deserialize)]
struct ImageFile {
    rootfs: RootFs,
    #[serde(default)]
    history: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

impl Image {
    /// That of a container; `None` for one that the engine does not know, such as a build's.
    #[must_use]
    pub fn of(container: &str) -> Option<Self> {
        Self::below(Path::new(ENGINE_DATA), container)
    }

    fn below(engine: &Path, container: &str) -> Option<Self> {
        let plain = !container.is_empty() && container.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let text = fs::read(engine.join("containers").join(container).join("config.v2.json"))
            .ok()
            .filter(|_| plain)?;
        let Config { id, config } = serde_json::from_slice(&text).ok()?;
        Some(Self { name: config.name, id })
    }
}

/// Names and digests of all images; none when the engine's file is not understood.
#[must_use]
pub fn repositories() -> Repositories {
    let read = |engine: &Path| {
        let text = fs::read(engine.join(STORE).join("repositories.json")).ok()?;
        Some(serde_json::from_slice::<Store>(&text).ok()?.repositories)
    };
    read(Path::new(ENGINE_DATA)).unwrap_or_default()
}

/// How an image came to be.
#[must_use]
pub fn lineage(id: &str) -> Option<Lineage> {
    lineage_below(Path::new(ENGINE_DATA), id)
}

fn lineage_below(engine: &Path, id: &str) -> Option<Lineage> {
    let hex = id.strip_prefix("sha256:").filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let text = fs::read(engine.join(STORE).join("imagedb/content/sha256").join(hex)).ok()?;
    let ImageFile { rootfs, history } = serde_json::from_slice(&text).ok()?;
    Some(Lineage { layers: rootfs.diff_ids, history: history.iter().map(ToString::to_string).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_image_is_read_as_the_engine_wrote_it() {
        let engine = tempfile::tempdir().unwrap();
        let folder = engine.path().join("containers/abc");
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("config.v2.json"),
            r#"{"ID":"abc","Image":"sha256:12","Config":{"Image":"busybox:1"}}"#,
        )
        .unwrap();
        let image = Image::below(engine.path(), "abc").unwrap();
        assert_eq!((image.name.as_str(), image.id.as_str()), ("busybox:1", "sha256:12"));
        for other in ["none", "", "../containers/abc", "."] {
            assert_eq!(Image::below(engine.path(), other), None, "{other}");
        }
        let store = engine.path().join(STORE).join("imagedb/content/sha256");
        fs::create_dir_all(&store).unwrap();
        fs::write(store.join("12"), r#"{"rootfs":{"type":"layers","diff_ids":["sha256:a","sha256:b"]},"history":[{"created_by": "x"}]}"#)
            .unwrap();
        let lineage = lineage_below(engine.path(), "sha256:12").unwrap();
        assert_eq!(lineage.layers, ["sha256:a", "sha256:b"]);
        assert_eq!(lineage.history, [r#"{"created_by":"x"}"#]);
        for other in ["sha256:13", "12", "sha256:../12", ""] {
            assert_eq!(lineage_below(engine.path(), other), None, "{other}");
        }
    }
}
