//! Checks of what makes a disk a CD: descriptors are as a build makes them around the partitions, and there are no other partitions.

use std::fs::File;
use std::io::{self, Read};

use eci_contract::disk::{ESP_NAME, Slot};
use eci_contract::manifest::Manifest;

use super::super::assemble::volume_name;
use super::super::disk::Table;
use super::super::iso::{START, descriptors};
use super::super::region::Region;
use super::Report;
use super::esp::first_difference;

/// Checks the part before the first partition of a CD that holds the manifest `trusted`.
pub(super) fn check(
    subject: &str,
    file: &File,
    table: &Table,
    trusted: Option<&Manifest>,
    report: &mut Report,
) {
    let subject = format!("{subject} CD");
    let Some(manifest) = trusted else {
        report.skip(&subject, "all", "what it is called is in the manifest, and that is not trusted");
        return;
    };
    let names = table.partitions.iter().map(|partition| partition.name.as_str());
    let wanted = [ESP_NAME].into_iter().chain(Slot::A.names());
    let partitions = if names.eq(wanted) {
        Ok("the EFI system partition and slot A".to_owned())
    } else {
        Err("there are others than the EFI system partition and slot A, or not in that order".to_owned())
    };
    if report.add(&subject, "partitions", partitions) {
        report.add(&subject, "descriptors", as_built(file, table, manifest));
    }
}

fn as_built(file: &File, table: &Table, manifest: &Manifest) -> Result<String, String> {
    let read = |error: io::Error| format!("cannot read it: {error}");
    let length = file.metadata().map_err(read)?.len();
    let name = volume_name(&manifest.name, &manifest.version, manifest.architecture);
    let made = descriptors(&name, &table.partitions, length).map_err(|error| error.to_string())?;
    let end = table.partitions.first().map_or(START, |first| first.start);
    let room = end.checked_sub(START).ok_or("the first partition is where descriptors should be")?;
    let made = made.as_slice().chain(io::repeat(0)).take(room);
    match first_difference(made, Region::part(file, START, room).reader()) {
        Ok(None) => Ok(format!("of {name}, and nothing else")),
        Ok(Some(at)) => Err(format!("byte {} of the file is not as it was built", START + at)),
        Err(error) => Err(read(error)),
    }
}
