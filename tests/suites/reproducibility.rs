//! Two builds from one lock, in different folders, give the same bytes.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use eci_tests::suite::row;
use eci_tests::{command, image, suite};

fn main() -> ExitCode {
    suite::run_alone(vec![row("a_second_build_elsewhere_has_the_same_sums", second_build)])
}

fn second_build(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("elsewhere/out");
    fs::create_dir_all(folder.path().join("elsewhere"))?;
    let root = image::repository()?;
    let mut build = Command::new(image::builder()?);
    build
        .current_dir(&root)
        .args(["build", "--offline", "--format", "raw,qcow2,vhdx", "--out"])
        .arg(&out)
        .arg("--programs")
        .arg(image::programs()?);
    command::run(&mut build, &[])?.ok()?;
    let sums = |out: &Path| fs::read_to_string(out.join("SHA256SUMS"));
    let (first, second) = (sums(&image::out()?)?, sums(&out)?);
    ensure!(first == second, "the sums differ:\n{first}\n{second}");
    ensure!(second.lines().count() >= 6, "few artifacts: {second}");
    command::run(
        Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&out),
        &[],
    )?
    .ok()?;
    Ok(())
}
