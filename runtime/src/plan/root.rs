//! The root filesystem that the engine mounted, taken apart.
//!
//! dockerd gives an overlay at `root.path`, BuildKit a bind of one, or of a single layer. We build the same again
//! from the layers, id-mapped; the engine's own mount stays as it is and is not used.

use eci_policy::rules::mount_source::Place;

use super::mountinfo::Mount;
use super::place::below;

/// Folder of layers below the engine's.
pub const LAYERS: &str = "overlay2";

/// Why the root filesystem cannot be rebuilt.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is neither an overlay nor a layer.
    #[error("the root filesystem is at {place}, not on the engine's layers")]
    Foreign {
        /// Where it is.
        place: String,
    },
    /// An overlay with a layer that is not the engine's.
    #[error("overlay layer `{layer}` is not below the engine's layers")]
    Layer {
        /// The layer as the mount table has it.
        layer: String,
    },
    /// An overlay without lower layers, or with an upper layer and no work folder.
    #[error("overlay options `{options}` are not understood")]
    Options {
        /// The options as the mount table has them.
        options: String,
    },
}

/// Where a tree comes from. Paths are relative to the folder of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// An overlay.
    Overlay {
        /// Lower layers, topmost first.
        lowers: Vec<String>,
        /// The writable layer.
        upper: Option<String>,
    },
    /// A single layer, as it is.
    Layer(String),
}

/// Takes the tree at `place` apart, which is on `mount`. `engine` is the engine's folder.
///
/// # Errors
/// See [`Error`].
pub fn read(place: &Place, mount: Option<&Mount>, engine: &str) -> Result<Tree, Error> {
    match mount {
        Some(mount) if mount.filesystem == "overlay" => read_overlay(&mount.options, engine),
        _ => match place {
            Place::EngineData(path) => {
                let layer = below(path, LAYERS).filter(|layer| !layer.is_empty());
                layer.map(Tree::Layer).ok_or_else(|| Error::Foreign { place: path.clone() })
            }
            other => Err(Error::Foreign { place: format!("{other:?}") }),
        },
    }
}

fn read_overlay(options: &str, engine: &str) -> Result<Tree, Error> {
    let mut lowers = Vec::new();
    let mut upper = None;
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                for layer in layers.split(':') {
                    lowers.push(relative(layer, engine)?);
                }
            }
            Some(("lowerdir+", layer)) => lowers.push(relative(layer, engine)?),
            Some(("upperdir", layer)) => upper = Some(relative(layer, engine)?),
            _ => {}
        }
    }
    if lowers.is_empty() {
        return Err(Error::Options { options: options.to_owned() });
    }
    Ok(Tree::Overlay { lowers, upper })
}

/// A layer's path below the folder of layers. dockerd mounts with relative paths when there are many layers.
fn relative(layer: &str, engine: &str) -> Result<String, Error> {
    let folder = format!("{}/{LAYERS}", engine.trim_end_matches('/'));
    let path = if layer.starts_with('/') { below(layer, &folder) } else { Some(layer.to_owned()) };
    path.filter(|path| !path.contains('\\') && path.split('/').all(|part| !matches!(part, "" | "." | "..")))
        .ok_or_else(|| Error::Layer { layer: layer.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINE: &str = "/var/lib/docker";

    #[test]
    fn dockerds_overlay_is_taken_apart() {
        let options = "rw,lowerdir=/var/lib/docker/overlay2/l/A:/var/lib/docker/overlay2/l/B,\
                       upperdir=/var/lib/docker/overlay2/x/diff,workdir=/var/lib/docker/overlay2/x/work,index=off";
        assert_eq!(
            read_overlay(options, ENGINE).unwrap(),
            Tree::Overlay {
                lowers: vec!["l/A".to_owned(), "l/B".to_owned()],
                upper: Some("x/diff".to_owned())
            }
        );
        let relative = "rw,lowerdir=l/A,upperdir=x/diff,workdir=x/work";
        assert!(matches!(read_overlay(relative, ENGINE), Ok(Tree::Overlay { upper: Some(_), .. })));
    }

    #[test]
    fn layers_from_elsewhere_are_refused() {
        for layer in [
            "/etc",
            "/var/lib/docker/overlay2",
            "/var/lib/docker/overlay2/.",
            "/var/lib/docker/volumes/v/_data",
            "../volumes",
            ".",
            r"l/A\:B",
        ] {
            let options = format!("rw,lowerdir={layer}");
            assert!(read_overlay(&options, ENGINE).is_err(), "{layer}");
        }
        assert!(matches!(read_overlay("rw", ENGINE), Err(Error::Options { .. })));
    }

    #[test]
    fn a_layer_is_a_tree_and_a_folder_of_the_vm_is_not() {
        let layer = Place::EngineData("overlay2/x/diff".to_owned());
        assert_eq!(read(&layer, None, ENGINE), Ok(Tree::Layer("x/diff".to_owned())));
        assert!(read(&Place::EngineData("volumes/v/_data".to_owned()), None, ENGINE).is_err());
        let error = read(&Place::Vm("/".to_owned()), None, ENGINE).unwrap_err();
        assert!(error.to_string().ends_with("not on the engine's layers"));
    }
}
