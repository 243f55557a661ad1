//! What differs between two artifacts, as [`super::inspect`] finds them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::inspect::Inspection;

/// Differences by name, in the name's order; what is equal is left out.
pub type Changes = BTreeMap<String, Change>;

/// What stood there before and what stands there after; `None` where there was or is nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// In the first artifact.
    pub before: Option<String>,
    /// In the second.
    pub after: Option<String>,
}

/// All differences of two artifacts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// Name, version, architecture, root hash, signer, settings.
    pub image: Changes,
    /// Sizes in bytes: root file system, kernel, initrd, unified kernel image.
    pub bytes: Changes,
    /// Versions of what the manifest names.
    pub versions: Changes,
    /// Versions of packages, from the bills of materials.
    pub packages: Changes,
    /// Licences of packages, kernel and programs, from the bills of materials.
    pub licences: Changes,
    /// Versions and digests of what went in, from the provenances.
    pub materials: Changes,
    /// Partitions: type, place and size.
    pub partitions: Changes,
    /// Values of kernel options.
    pub kernel_options: Changes,
}

impl Diff {
    /// From `before` to `after`.
    #[must_use]
    pub fn of(before: &Inspection, after: &Inspection) -> Self {
        let of =
            |values: fn(&Inspection) -> BTreeMap<String, String>| changes(&values(before), &values(after));
        Self {
            image: of(image),
            bytes: of(bytes),
            versions: of(|inspection| inspection.manifest.versions.clone()),
            packages: of(|inspection| inspection.packages.clone()),
            licences: of(|inspection| inspection.licences.clone()),
            materials: of(|inspection| {
                let provenance = inspection.provenance.as_ref();
                provenance.map(|provenance| provenance.materials.clone()).unwrap_or_default()
            }),
            partitions: of(partitions),
            kernel_options: of(|inspection| inspection.kernel_options.clone()),
        }
    }

    /// Titles with their differences, in reading order.
    #[must_use]
    pub fn sections(&self) -> [(&'static str, &Changes); 8] {
        [
            ("image", &self.image),
            ("bytes", &self.bytes),
            ("versions", &self.versions),
            ("packages", &self.packages),
            ("licences", &self.licences),
            ("materials", &self.materials),
            ("partitions", &self.partitions),
            ("kernel options", &self.kernel_options),
        ]
    }
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Changes {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let change =
        |name: &String| Change { before: before.get(name).cloned(), after: after.get(name).cloned() };
    let all = names.into_iter().map(|name| (name.clone(), change(name)));
    all.filter(|(_, change)| change.before != change.after).collect()
}

fn named<const N: usize>(values: [(&str, String); N]) -> BTreeMap<String, String> {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn image(inspection: &Inspection) -> BTreeMap<String, String> {
    let manifest = &inspection.manifest;
    let mut values = named([
        ("name", manifest.name.clone()),
        ("version", manifest.version.clone()),
        ("architecture", manifest.architecture.as_str().to_owned()),
        ("root hash", manifest.root.root_hash.clone()),
    ]);
    values.extend(inspection.signer.clone().map(|signer| ("signer".to_owned(), signer)));
    let settings = inspection.settings.as_ref();
    values.extend(settings.map(|settings| ("settings".to_owned(), settings.sha256.clone())));
    values
}

fn bytes(inspection: &Inspection) -> BTreeMap<String, String> {
    let manifest = &inspection.manifest;
    let root = manifest.root.data_blocks.saturating_mul(manifest.root.data_block_size.into());
    let mut values = named([
        ("root", root.to_string()),
        ("kernel", manifest.kernel.size.to_string()),
        ("initrd", manifest.initrd.size.to_string()),
    ]);
    let uki = inspection.uki.as_ref();
    values.extend(uki.map(|uki| ("unified kernel image".to_owned(), uki.bytes.to_string())));
    values
}

/// UUIDs of root and verity partitions are the root hash in another form.
fn partitions(inspection: &Inspection) -> BTreeMap<String, String> {
    let value = |kind: &str, start, bytes| format!("{kind}, {bytes} bytes at {start}");
    let all = inspection.partitions.iter();
    all.map(|partition| (partition.name.clone(), value(&partition.kind, partition.start, partition.bytes)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::assemble::tests::assemble_small;
    use super::super::inspect::inspect;
    use super::super::signature;
    use super::*;
    use crate::ui::Ui;
    use eci_contract::manifest::Flavour;

    fn inspection() -> Inspection {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = signature::generate(&folder.path().join("keys")).expect("key");
        assemble_small(folder.path(), Flavour::Shipped, &key);
        inspect(&folder.path().join("out"), &[key.public()], &Ui::silent()).expect("inspected")
    }

    #[test]
    fn equal_artifacts_have_no_differences() {
        let one = inspection();
        assert_eq!(Diff::of(&one, &one), Diff::default());
    }

    #[test]
    fn what_comes_goes_and_changes_is_told() {
        let before = inspection();
        let mut after = before.clone();
        after.manifest.kernel.size += 1;
        after.kernel_options.insert("CONFIG_A".to_owned(), "n".to_owned());
        after.kernel_options.insert("CONFIG_NEW".to_owned(), "y".to_owned());
        after.partitions.pop();
        after.licences.insert("crun".to_owned(), "GPL-2.0-or-later".to_owned());
        let materials = &mut after.provenance.as_mut().expect("it is there").materials;
        materials.insert("checkout".to_owned(), "gitCommit c0ffee".to_owned());
        let diff = Diff::of(&before, &after);
        assert_eq!(diff.bytes.keys().collect::<Vec<_>>(), ["kernel"]);
        let change = |before: Option<&str>, after: Option<&str>| Change {
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        assert_eq!(diff.kernel_options["CONFIG_A"], change(Some("y"), Some("n")));
        assert_eq!(diff.kernel_options["CONFIG_NEW"], change(None, Some("y")));
        assert_eq!(diff.licences["crun"], change(None, Some("GPL-2.0-or-later")));
        assert_eq!(diff.materials["checkout"], change(None, Some("gitCommit c0ffee")));
        assert_eq!(diff.partitions.len(), 1);
        assert!(diff.partitions.values().all(|change| change.before.is_some() && change.after.is_none()));
        assert!(diff.image.is_empty() && diff.packages.is_empty() && diff.versions.is_empty());
    }
}
