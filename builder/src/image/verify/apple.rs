//! Checks of the folder for Apple's framework, beside an image or by itself: its disk, then kernel and initrd by the manifest that the
//! disk has, and the script, which nobody has signed and somebody will run.

use std::fs;
use std::path::Path;

use eci_contract::manifest::Artifact;

use super::super::apple::{DISK, INITRD, KERNEL, SCRIPT, SCRIPT_TEXT};
use super::super::manifest;
use super::{Error, Expected, Report, disk, files, formats};
use crate::ui::Ui;

/// Checks the folder's files, which are below `base` by their names with `prefix` in front, and in the report, too. Gives the manifests of
/// the disk whose signature holds.
pub(super) fn check(
    base: &Path,
    prefix: &str,
    expected: &Expected,
    report: &mut Report,
    ui: &Ui,
) -> Result<Vec<Vec<u8>>, Error> {
    let named = |name: &str| format!("{prefix}{name}");
    let path = base.join(named(DISK));
    let opened = formats::open(&path, ui)?;
    let manifests = disk::disk(&named(DISK), &opened, &path, expected, report);
    let image = manifests.first().and_then(|bytes| manifest::parse(bytes).ok());
    match image {
        Some(image) => {
            for (name, artifact) in [(KERNEL, image.kernel), (INITRD, image.initrd)] {
                files::artifact(base, &Artifact { file: named(name), ..artifact }, report);
            }
        }
        None => report.skip(
            &named(KERNEL),
            "digest",
            "what kernel and initrd have to be is in the disk's manifest, and that is not trusted",
        ),
    }
    let script = match fs::read(base.join(named(SCRIPT))) {
        Ok(bytes) if bytes == SCRIPT_TEXT.as_bytes() => Ok("the one of this eci-builder".to_owned()),
        Ok(_) => Err("it is not the script that this eci-builder writes; do not run it unread".to_owned()),
        Err(error) => Err(format!("cannot read it: {error}")),
    };
    report.add(&named(SCRIPT), "script", script);
    Ok(manifests)
}
