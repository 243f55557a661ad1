//! The engine's socket is in no container but those of images that an administrator names, and those have one that the gate filters.
//!
//! Why: who speaks to the engine has all containers, images and volumes of the machine. The caller compares device and inode of what
//! a mount opens, so no other name, link or bind of a socket gets past; the engine's own is for nobody, whatever the settings say.
//!
//! An image is known by what a registry said of it, the digest under which it was pulled (or pushed), and not by its name alone:
//! anybody can give that to another image. The engine keeps names and digests in `repositories.json`, by the image's id.

use std::collections::BTreeMap;

use eci_contract::socket::SocketPolicy;

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "no-engine-socket";

/// Names under which users ask for the engine's socket. They choose the wording of a refusal, never a permission.
pub const USUAL_NAMES: &[&str] = &["/var/run/docker.sock", "/run/docker.sock"];

/// Images that may have the socket, as one line of the settings has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Images {
    /// `*`: all.
    All,
    /// `repository/*:*`: of every repository in this one, which has its registry in front of it.
    Below(String),
    /// `name:*`: of this repository.
    Repository(String),
    /// `name[:tag]`: the one that has the tag there.
    Tag(String, String),
    /// `name@sha256:…`: this one.
    Digest(String, String),
}

/// What the engine keeps in `repositories.json`: image ids by reference, by repository.
pub type Repositories = BTreeMap<String, BTreeMap<String, String>>;

impl Images {
    /// Reads a line.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let repository = |name: &str| match familiar(name) {
            Some(name) => Ok(name),
            None => Err("it does not name an image as `docker pull` does"),
        };
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some(name) = text.strip_suffix("/*:*") {
            // Of a name there, for it may be a registry's alone.
            repository(&format!("{name}/x"))?;
            return Ok(Self::Below(whole(name)));
        }
        if let Some((name, digest)) = text.split_once('@') {
            let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
            let is_digest =
                hex.is_some_and(|hex| hex.bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
            let name = repository(name)?;
            return if is_digest {
                Ok(Self::Digest(name, digest.to_owned()))
            } else {
                Err("what is behind the @ is no digest")
            };
        }
        // A colon before the last slash belongs to a registry's port.
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (text, "latest"),
        };
        let name = repository(name)?;
        let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match tag {
            "*" => Ok(Self::Repository(name)),
            tag if tag.len() <= 128
                && tag.bytes().next().is_some_and(first)
                && tag.bytes().all(|byte| first(byte) || b".-".contains(&byte)) =>
            {
                Ok(Self::Tag(name, tag.to_owned()))
            }
            _ => Err("what is behind the colon is no tag"),
        }
    }

    /// Whether the image of this id is one of them.
    #[must_use]
    pub fn have(&self, id: &str, repositories: &Repositories) -> bool {
        let is = |repository: &str, reference: &str| {
            repositories.get(repository).and_then(|references| references.get(reference)).map(String::as_str)
                == Some(id)
        };
        let pulled = |repository: &str| {
            let start = format!("{repository}@");
            let references = repositories.get(repository).into_iter().flatten();
            references.filter(|(reference, _)| reference.starts_with(&start)).any(|(_, found)| found == id)
        };
        match self {
            Self::All => true,
            Self::Below(name) => {
                let start = format!("{name}/");
                repositories.keys().any(|name| whole_repository(name).starts_with(&start) && pulled(name))
            }
            Self::Repository(name) => pulled(name),
            Self::Tag(name, tag) => is(name, &format!("{name}:{tag}")) && pulled(name),
            Self::Digest(name, digest) => is(name, &format!("{name}@{digest}")),
        }
    }
}

/// As the engine tells a registry from a folder of Docker Hub's.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.contains(|c: char| c.is_ascii_uppercase())
}

/// With Docker Hub's name where no registry is named.
fn whole(name: &str) -> String {
    let first = name.split('/').next().unwrap_or(name);
    match first {
        "index.docker.io" => name.replacen("index.", "", 1),
        first if is_registry(first) => name.to_owned(),
        _ => format!("docker.io/{name}"),
    }
}

/// The same of a repository, where Docker Hub's own images are in a folder that their names leave out.
fn whole_repository(name: &str) -> String {
    if name.contains('/') { whole(name) } else { format!("docker.io/library/{name}") }
}

/// A repository's name as the engine keeps it: Docker Hub's own is left out.
fn familiar(name: &str) -> Option<String> {
    let good = |part: &str| {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        part.bytes().all(legal) && ends(part.bytes().next()) && ends(part.bytes().last())
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (Some(first), path),
        _ => (None, name),
    };
    let port = registry.and_then(|registry| registry.split_once(':'));
    let host = port.map_or(registry, |(host, _)| Some(host));
    let is_port =
        port.is_none_or(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_port || !host.is_none_or(good) || !path.split('/').all(good) {
        return None;
    }
    match registry {
        Some("docker.io" | "index.docker.io") | None => {
            Some(path.strip_prefix("library/").unwrap_or(path).to_owned())
        }
        Some(registry) => Some(format!("{registry}/{path}")),
    }
}

/// How an image came to be, as its own file tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Digests of its layers, the lowest first.
    pub layers: Vec<String>,
    /// What was done for it, in order. Some of that adds no layer.
    pub history: Vec<String>,
}

impl Lineage {
    /// Whether it was made from `base`, by something more.
    fn comes_from(&self, base: &Self) -> bool {
        !base.layers.is_empty()
            && self.layers.starts_with(&base.layers)
            && self.history.len() > base.history.len()
            && self.history.starts_with(&base.history)
            && !base.history.is_empty()
    }
}

/// Judges the mount of the filtered socket into a container. `name` is what the user called the image, for the message; `lineage` tells of an
/// image by its id.
#[must_use]
pub fn judge(
    name: &str,
    id: &str,
    policy: &SocketPolicy,
    repositories: &Repositories,
    lineage: impl Fn(&str) -> Option<Lineage>,
) -> Verdict {
    let among = Among { repositories, lineage: &lineage, derived: policy.allow_derived_images };
    if among.has(id, &policy.images) { Verdict::Allow } else { deny(name) }
}

/// By which of [`SocketPolicy::lists`] the gate filters what a container of this image asks for: the first that has it; `None` is the list for
/// all. Arguments as [`judge`]'s.
#[must_use]
pub fn list_of(
    id: &str,
    policy: &SocketPolicy,
    repositories: &Repositories,
    lineage: impl Fn(&str) -> Option<Lineage>,
) -> Option<usize> {
    let among = Among { repositories, lineage: &lineage, derived: policy.allow_derived_images };
    policy.lists.iter().position(|list| among.has(id, &list.images))
}

/// What it takes to tell whether an image is on a list.
struct Among<'a> {
    repositories: &'a Repositories,
    lineage: &'a dyn Fn(&str) -> Option<Lineage>,
    /// Images that were made here from one on the list are on it as well.
    derived: bool,
}

impl Among<'_> {
    fn has(&self, id: &str, lines: &[String]) -> bool {
        // A line that is not understood has none.
        let lines: Vec<_> = lines.iter().filter_map(|text| Images::parse(text).ok()).collect();
        let is_named = |id: &str| lines.iter().any(|images| images.have(id, self.repositories));
        is_named(id) || (self.derived && self.comes_from(id, is_named))
    }

    fn comes_from(&self, id: &str, is_named: impl Fn(&str) -> bool) -> bool {
        let images = || self.repositories.values().flatten();
        // One that a registry has is known by that.
        let from_elsewhere = images().any(|(reference, found)| found == id && reference.contains('@'));
        let Some(own) = (self.lineage)(id).filter(|_| !from_elsewhere) else { return false };
        let mut bases = images().map(|(_, base)| base).filter(|base| is_named(base));
        bases.any(|base| (self.lineage)(base).is_some_and(|base| own.comes_from(&base)))
    }
}

/// Refuses the mount of an engine socket into a container made from `image`.
#[must_use]
pub fn deny(image: &str) -> Verdict {
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: docker socket mount denied for container with image \"{image}\"; image is not in the allowed \
             list; if you wish to allow it, configure the docker socket image list in the admin settings."
        ),
        remedy: "run the Docker engine inside of the container instead",
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use eci_contract::socket::ImageCommands;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn repositories() -> Repositories {
        let entries = [
            ("tool", "tool:1", "id-tool"),
            ("tool", "tool:latest", "id-evil"),
            ("registry.example.com:5000/team/agent", "registry.example.com:5000/team/agent:2", "id-agent"),
            ("mine", "mine:latest", "id-mine"),
            ("theirs", "theirs:latest", "id-theirs"),
        ];
        let mut repositories = Repositories::new();
        for (repository, reference, id) in entries {
            repositories
                .entry(repository.to_owned())
                .or_default()
                .insert(reference.to_owned(), id.to_owned());
        }
        let pulled = [
            ("tool", "id-tool"),
            ("registry.example.com:5000/team/agent", "id-agent"),
            ("theirs", "id-theirs"),
            ("REG/evil", "id-evil"),
        ];
        for (repository, id) in pulled {
            let references = repositories.entry(repository.to_owned()).or_default();
            references.insert(format!("{repository}@{DIGEST}"), id.to_owned());
        }
        repositories
    }

    fn allowed(images: &[&str], derived: bool, id: &str) -> bool {
        let policy = SocketPolicy {
            images: images.iter().map(|text| (*text).to_owned()).collect(),
            allow_derived_images: derived,
            ..SocketPolicy::default()
        };
        judge("x", id, &policy, &repositories(), lineage) == Verdict::Allow
    }

    fn lineage(id: &str) -> Option<Lineage> {
        let (layers, history): (&[&str], &[&str]) = match id {
            "id-tool" => (&["a", "b"], &["1", "2", "env"]),
            "id-mine" | "id-theirs" => (&["a", "b", "c"], &["1", "2", "env", "3"]),
            // No layer of its own, and one of tool's own base.
            "id-configured" => (&["a", "b"], &["1", "2", "env", "cmd"]),
            "id-beside" => (&["a", "b", "c"], &["1", "2", "3"]),
            "id-evil" => (&["x", "a", "b"], &["x", "1", "2", "env"]),
            "id-agent" => (&[], &["1"]),
            _ => return None,
        };
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Some(Lineage { layers: owned(layers), history: owned(history) })
    }

    #[test]
    fn an_image_is_known_by_what_a_registry_said_of_it() {
        for line in
            ["tool:1", "tool:*", "docker.io/library/tool:1", "library/tool:*", &format!("tool@{DIGEST}"), "*"]
        {
            assert!(allowed(&[line], false, "id-tool"), "{line}");
        }
        // Given the name of one that is allowed, and never pulled by it.
        for line in ["tool", "tool:latest", "tool:*", "tool:1", &format!("tool@{DIGEST}")] {
            assert!(!allowed(&[line], false, "id-evil"), "{line}");
        }
        for line in ["tool:2", "tools:*", "tool/*:*", "other/tool:1", "registry.example.com/tool:1", ""] {
            assert!(!allowed(&[line], false, "id-tool"), "{line}");
        }
        for line in [
            "registry.example.com:5000/team/*:*",
            "registry.example.com:5000/*:*",
            "registry.example.com:5000/team/agent:2",
        ] {
            assert!(allowed(&[line], false, "id-agent"), "{line}");
        }
        for line in ["registry.example.com:5000/team/agent", "registry.example.com:5000/tea/*:*", "team/*:*"]
        {
            assert!(!allowed(&[line], false, "id-agent"), "{line}");
        }
        for (line, has) in [
            ("docker.io/*:*", true),
            ("library/*:*", true),
            ("docker.io/library/*:*", true),
            ("docker.io/team/*:*", false),
        ] {
            assert_eq!(allowed(&[line], false, "id-tool"), has, "{line}");
            assert!(!allowed(&[line], false, "id-agent") && !allowed(&[line], false, "id-mine"), "{line}");
        }
        assert!(!allowed(&[], true, "id-tool") && allowed(&["x", "tool:1"], false, "id-tool"));
    }

    #[test]
    fn a_derived_image_has_layers_and_history_of_one_that_is_allowed_before_its_own() {
        assert!(allowed(&["tool:1"], true, "id-mine"));
        assert!(!allowed(&["tool:1"], false, "id-mine"));
        assert!(!allowed(&["tool:1"], true, "id-evil"));
        // One without layers is below everything.
        assert!(!allowed(&["registry.example.com:5000/team/agent:2"], true, "id-mine"));
        assert!(!allowed(&["tool:1"], true, "id-unknown"));
        assert!(allowed(&["tool:1"], true, "id-configured"));
        // What was made from its base is not made from it.
        assert!(!allowed(&["tool:1"], true, "id-beside"));
        // One that a registry has is none that was made here.
        assert!(!allowed(&["tool:1"], true, "id-theirs"));
        // A registry's name in capitals is no folder of Docker Hub's.
        assert!(!allowed(&["docker.io/*:*"], true, "id-evil"));
    }

    #[test]
    fn the_first_list_that_has_an_image_is_the_one_for_it() {
        let list = |images: &[&str]| ImageCommands {
            images: images.iter().map(|text| (*text).to_owned()).collect(),
            ..ImageCommands::default()
        };
        let number = |lists: &[ImageCommands], derived: bool, id: &str| {
            let policy = SocketPolicy {
                images: vec!["*".to_owned()],
                allow_derived_images: derived,
                lists: lists.to_vec(),
                ..SocketPolicy::default()
            };
            list_of(id, &policy, &repositories(), lineage)
        };
        let agent = list(&["registry.example.com:5000/team/agent:2"]);
        let (tool, all) = (list(&["nobody", "tool:1"]), list(&["*"]));
        assert_eq!(number(&[agent.clone(), tool.clone()], false, "id-tool"), Some(1));
        assert_eq!(number(&[agent.clone(), tool.clone()], false, "id-agent"), Some(0));
        // By name alone nobody is on a list, a wider one included.
        assert_eq!(number(&[agent.clone(), tool.clone()], false, "id-evil"), None);
        assert_eq!(number(&[all.clone(), tool.clone()], false, "id-tool"), Some(0), "the first");
        assert_eq!(number(&[tool.clone(), all], false, "id-evil"), Some(1));
        // What is made from an image has its list, where it has the socket.
        assert_eq!(number(slice::from_ref(&tool), true, "id-mine"), Some(0));
        assert_eq!(number(&[tool], false, "id-mine"), None);
        assert_eq!(number(&[list(&["not an image"])], true, "id-tool"), None);
        assert_eq!(number(&[], true, "id-tool"), None);
    }

    #[test]
    fn lines_that_name_no_image_are_none() {
        for line in [
            "",
            "/",
            "a b",
            "Tool",
            "tool:",
            "tool:a b",
            "tool@",
            "tool@sha256:12",
            "tool@md5:12",
            "*:*",
            "tool*",
            "-x",
            "a//b",
            "a/",
            "host:port/x",
            "x/*",
            "tool:1@",
            "../x",
            "tool:.x",
        ] {
            assert!(Images::parse(line).is_err(), "{line}");
        }
        assert_eq!(
            Images::parse("localhost:5000/a"),
            Ok(Images::Tag("localhost:5000/a".to_owned(), "latest".to_owned()))
        );
        assert_eq!(Images::parse("docker.io/*:*").ok(), Some(Images::Below("docker.io".to_owned())));
    }

    #[test]
    fn the_refusal_names_the_image() {
        let Verdict::Deny { message, .. } = deny("alpine:3") else { panic!("allowed") };
        assert!(message.contains("docker socket mount denied for container with image \"alpine:3\";"));
    }
}
