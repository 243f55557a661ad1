//! Layouts to and from a registry, by skopeo: it knows credentials (`docker login`), proxies and certificates, and holds every blob against
//! its digest.

use std::path::Path;

use eci_contract::manifest::Architecture;

use super::platform;
use crate::tool::{self, Tool};
use crate::ui::Ui;

/// The program.
const PROGRAM: &str = "skopeo";

/// Whether a registry has to have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// It does.
    Verified,
    /// It may speak HTTP, or have a certificate of its own making.
    Unverified,
}

impl Tls {
    fn option(self, side: &str) -> String {
        format!("--{side}-tls-verify={}", self == Self::Verified)
    }
}

/// Puts everything in the layout under a reference, with the digests that it has.
///
/// # Errors
/// What skopeo says.
pub fn push(layout: &Path, reference: &str, tls: Tls, ui: &Ui) -> Result<(), tool::Error> {
    let tool = skopeo().args(["copy", "--quiet", "--all", "--preserve-digests"]);
    tool.arg(tls.option("dest")).arg(format!("oci:{}", layout.display())).arg(address(reference)).run(ui)
}

/// Brings what a reference has for an architecture into the folder `layout`, which has to be empty.
///
/// # Errors
/// What skopeo says.
pub fn pull(
    reference: &str,
    architecture: Architecture,
    layout: &Path,
    tls: Tls,
    ui: &Ui,
) -> Result<(), tool::Error> {
    let wanted = ["--override-os", "linux", "--override-arch", platform(architecture)];
    let tool = skopeo().args(wanted).args(["copy", "--quiet", "--preserve-digests"]);
    tool.arg(tls.option("src")).arg(address(reference)).arg(format!("oci:{}", layout.display())).run(ui)
}

/// Which signatures an image has to have is ours to say, not the host's policy for containers'.
fn skopeo() -> Tool {
    Tool::new(PROGRAM).arg("--insecure-policy")
}

fn address(reference: &str) -> String {
    format!("docker://{}", reference.trim_start_matches("docker://"))
}
