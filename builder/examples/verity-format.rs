//! `verity-format DATA TREE`: what `veritysetup format` does, for the benchmark that compares the two.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::Context;
use eci_builder::image::digest::Sha256;
use eci_builder::image::region::Region;
use eci_builder::image::verity::{self, Identity};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(data), Some(tree), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: verity-format DATA TREE");
    };
    let file = File::open(&data).with_context(|| format!("cannot open `{}`", data.display()))?;
    // A fixed salt, as `veritysetup` takes a random one: neither reads the data to choose it.
    let identity = Identity::of_data(Sha256::of(&[b"benchmark"]));
    let hashed = verity::hash(Region::whole(&file)?, &identity.salt)?;
    fs::write(&tree, verity::partition_bytes(&identity, &hashed))
        .with_context(|| format!("cannot write `{}`", tree.display()))
}
