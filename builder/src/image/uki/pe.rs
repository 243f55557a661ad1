//! PE files, as far as a unified kernel image needs them: sections are added behind the last one, and read.
//!
//! Format: <https://learn.microsoft.com/windows/win32/debug/pe-format>. Reading is the `object` crate's. It cannot add a
//! section to a file; `objcopy` can, but the bytes it writes are its version's.

use object::LittleEndian as LE;
use object::pe::IMAGE_DIRECTORY_ENTRY_SECURITY;
use object::pe::{IMAGE_SCN_CNT_CODE, IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_READ, ImageNtHeaders64};
use object::pe::{ImageDosHeader, ImageSectionHeader};
use object::read::pe::ImageNtHeaders;

use super::super::digest::Sha256;

/// Offsets in the file header, which follows the 4 bytes of the signature.
const NUMBER_OF_SECTIONS: usize = 4 + 2;
/// Where the optional header begins behind the signature.
const OPTIONAL_HEADER: usize = 4 + 20;
const SIZE_OF_INITIALIZED_DATA: usize = OPTIONAL_HEADER + 8;
const SIZE_OF_IMAGE: usize = OPTIONAL_HEADER + 56;
const CHECK_SUM: usize = OPTIONAL_HEADER + 64;
/// Bytes of a section header, and of its name.
const SECTION_HEADER_BYTES: usize = 40;
const NAME_BYTES: usize = 8;
/// Offset of the size in memory in a section header.
const VIRTUAL_SIZE: usize = 8;
/// The directory's entry of signatures: where they are in the file, and how long.
const SECURITY_DIRECTORY: usize = OPTIONAL_HEADER + 112 + 4 * DIRECTORY_BYTES;
const DIRECTORY_BYTES: usize = 8;
/// `WIN_CERTIFICATE`: its length, then revision 2.0 and "PKCS #7".
const WIN_CERTIFICATE: [u8; 4] = [0x00, 0x02, 0x02, 0x00];
const WIN_CERTIFICATE_BYTES: usize = 8;
/// Signatures begin and end at multiples of this.
const SIGNATURE_ALIGNMENT: usize = 8;

/// Why a PE file cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not one for a 64-bit processor, or its headers lead out of it.
    #[error("it is not a PE file")]
    NotPe,
    /// Its headers have no room for more sections.
    #[error("its headers have no room for {count} more sections")]
    NoHeaderRoom {
        /// How many were to be added.
        count: usize,
    },
    /// A section is too small for its new content.
    #[error("its section `{name}` of {room} bytes has no room for {bytes}")]
    NoSectionRoom {
        /// Name of the section.
        name: String,
        /// Size in the file.
        room: usize,
        /// Size of the new content.
        bytes: usize,
    },
    /// It is signed, and what is added would be behind the signature.
    #[error("it is signed already")]
    Signed,
    /// The signature is not at the end, or is not the only one.
    #[error("it does not end with one signature")]
    SignaturePlace,
    /// Its sections overlap, or there is something between them that no digest would cover.
    #[error("its sections do not lie one behind the other")]
    Gaps,
    /// It would be larger than 4 GiB.
    #[error("it would be larger than the format allows")]
    TooLarge,
}

/// A section and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section<'a> {
    /// Its name.
    pub name: String,
    /// Its bytes, without what fills the file up to the next one.
    pub content: &'a [u8],
    /// Where they begin in the file.
    start: usize,
    /// Bytes that the file has for it.
    room: usize,
    /// Where its header begins.
    header: usize,
    /// Where it ends in memory.
    end_in_memory: u64,
}

/// What changing a file needs of its headers.
struct Headers {
    /// Offset of the signature "PE".
    signature: usize,
    /// Bytes of all headers, with what fills them up.
    size: usize,
    /// Offset behind the last section header.
    end_of_table: usize,
    /// Where the sections' bytes may begin.
    end_of_headers: usize,
    section_alignment: u32,
    file_alignment: u32,
    /// Where signatures are, and how long; zeros where there are none.
    signatures: (usize, usize),
}

/// The sections of a PE file in the order of their headers.
///
/// # Errors
/// [`Error::NotPe`].
pub(super) fn sections(file: &[u8]) -> Result<Vec<Section<'_>>, Error> {
    parse(file).map(|(_, sections)| sections)
}

/// The file with another content for a section, which keeps its place.
///
/// # Errors
/// [`Error::NotPe`] and [`Error::NoSectionRoom`].
pub(super) fn replace(file: &[u8], name: &str, content: &[u8]) -> Result<Vec<u8>, Error> {
    let (_, sections) = parse(file)?;
    let section = sections.iter().find(|section| section.name == name).ok_or(Error::NotPe)?;
    let mut changed = file.to_owned();
    let room = changed.get_mut(section.start..section.start + section.room).ok_or(Error::NotPe)?;
    if content.len() > room.len() {
        return Err(Error::NoSectionRoom { name: name.to_owned(), room: room.len(), bytes: content.len() });
    }
    room.fill(0);
    room[..content.len()].copy_from_slice(content);
    put(&mut changed, section.header + VIRTUAL_SIZE, size(content.len())?)?;
    Ok(changed)
}

/// The file with more sections, in memory and in the file behind those that it has.
///
/// # Errors
/// [`Error::NotPe`], [`Error::NoHeaderRoom`] and [`Error::TooLarge`].
pub(super) fn append(file: &[u8], added: &[(&str, &[u8])]) -> Result<Vec<u8>, Error> {
    let (headers, sections) = parse(file)?;
    if headers.signatures != (0, 0) {
        return Err(Error::Signed);
    }
    let table_end = headers.end_of_table + added.len() * SECTION_HEADER_BYTES;
    if table_end > headers.end_of_headers {
        return Err(Error::NoHeaderRoom { count: added.len() });
    }
    let align = |position: u64, to: u32| position.next_multiple_of(u64::from(to));
    let mut address = sections.iter().map(|section| section.end_in_memory).max().unwrap_or(0);
    let mut data = 0;
    let mut changed = file.to_owned();
    for (index, (name, content)) in added.iter().enumerate() {
        address = align(address, headers.section_alignment);
        let start = align(long(changed.len())?, headers.file_alignment);
        changed.resize(short(start)?, 0);
        changed.extend_from_slice(content);
        let end = align(long(changed.len())?, headers.file_alignment);
        changed.resize(short(end)?, 0);
        let fields = [long(content.len())?, address, end - start, start];
        write_header(&mut changed, headers.end_of_table + index * SECTION_HEADER_BYTES, name, fields)?;
        address += long(content.len())?;
        data += end - start;
    }
    let at = |offset: usize| headers.signature + offset;
    let count = size(sections.len() + added.len())?;
    let count = u16::try_from(count).map_err(|_| Error::TooLarge)?;
    put_bytes(&mut changed, at(NUMBER_OF_SECTIONS), &count.to_le_bytes())?;
    let before = changed.get(at(SIZE_OF_INITIALIZED_DATA)..).and_then(|rest| rest.first_chunk());
    let before = u32::from_le_bytes(*before.ok_or(Error::NotPe)?);
    put(&mut changed, at(SIZE_OF_INITIALIZED_DATA), word(u64::from(before) + data)?)?;
    put(&mut changed, at(SIZE_OF_IMAGE), word(align(address, headers.section_alignment))?)?;
    // Firmware looks at no checksum, and 0 is "none".
    put(&mut changed, at(CHECK_SUM), 0)?;
    Ok(changed)
}

/// The digest of a file that is signed, and that a signature has: all of it but the checksum, the place of the signature, and the
/// signature. Ours and systemd's have all their bytes in headers and sections, one behind the other, so that the digest is of
/// the file from its start to its end; another is refused.
///
/// # Errors
/// [`Error::NotPe`], [`Error::Gaps`] and [`Error::SignaturePlace`].
pub(in crate::image) fn authenticode_digest(file: &[u8]) -> Result<Sha256, Error> {
    let (headers, mut sections) = parse(file)?;
    let end = match headers.signatures {
        (0, 0) => file.len(),
        (start, length) if start.checked_add(length) == Some(file.len()) => start,
        _ => return Err(Error::SignaturePlace),
    };
    sections.sort_by_key(|section| section.start);
    let mut covered = headers.size;
    for section in sections.iter().filter(|section| section.room > 0) {
        if section.start != covered {
            return Err(Error::Gaps);
        }
        covered += section.room;
    }
    if covered != end || end % SIGNATURE_ALIGNMENT != 0 {
        return Err(Error::Gaps);
    }
    let at = |offset: usize| headers.signature + offset;
    let part = |from: usize, to: usize| file.get(from..to).ok_or(Error::NotPe);
    Ok(Sha256::of(&[
        part(0, at(CHECK_SUM))?,
        part(at(CHECK_SUM) + 4, at(SECURITY_DIRECTORY))?,
        part(at(SECURITY_DIRECTORY) + DIRECTORY_BYTES, end)?,
    ]))
}

/// The file with a signature, which is PKCS #7 in DER, at its end.
///
/// # Errors
/// [`Error::NotPe`], [`Error::Signed`] and [`Error::TooLarge`].
pub(in crate::image) fn attach_signature(file: &[u8], signature: &[u8]) -> Result<Vec<u8>, Error> {
    let (headers, _) = parse(file)?;
    if headers.signatures != (0, 0) {
        return Err(Error::Signed);
    }
    let length = WIN_CERTIFICATE_BYTES + signature.len();
    let padded = length.next_multiple_of(SIGNATURE_ALIGNMENT);
    let mut signed = file.to_owned();
    signed.extend(size(length)?.to_le_bytes());
    signed.extend(WIN_CERTIFICATE);
    signed.extend_from_slice(signature);
    signed.resize(file.len() + padded, 0);
    let entry = [size(file.len())?.to_le_bytes(), size(padded)?.to_le_bytes()].concat();
    put_bytes(&mut signed, headers.signature + SECURITY_DIRECTORY, &entry)?;
    Ok(signed)
}

/// The signature at the end of a file; `None` where it is not signed.
///
/// # Errors
/// [`Error::NotPe`], and [`Error::SignaturePlace`] for another kind of signature or more than one.
pub(in crate::image) fn signature(file: &[u8]) -> Result<Option<&[u8]>, Error> {
    let (headers, _) = parse(file)?;
    let (start, length) = headers.signatures;
    if (start, length) == (0, 0) {
        return Ok(None);
    }
    let all = file.get(start..).filter(|all| all.len() == length).ok_or(Error::SignaturePlace)?;
    let (head, rest) = all.split_first_chunk::<4>().ok_or(Error::SignaturePlace)?;
    let rest = rest.strip_prefix(&WIN_CERTIFICATE).ok_or(Error::SignaturePlace)?;
    let said = short(u64::from(u32::from_le_bytes(*head)))?;
    let (signature, padding) = said
        .checked_sub(WIN_CERTIFICATE_BYTES)
        .and_then(|end| rest.split_at_checked(end))
        .ok_or(Error::SignaturePlace)?;
    if padding.len() >= SIGNATURE_ALIGNMENT || padding.iter().any(|byte| *byte != 0) {
        return Err(Error::SignaturePlace);
    }
    Ok(Some(signature))
}

fn parse(file: &[u8]) -> Result<(Headers, Vec<Section<'_>>), Error> {
    let malformed = |_| Error::NotPe;
    let dos = ImageDosHeader::parse(file).map_err(malformed)?;
    let mut offset = u64::from(dos.nt_headers_offset());
    let signature = short(offset)?;
    let (headers, directories) = ImageNtHeaders64::parse(file, &mut offset).map_err(malformed)?;
    let table = headers.sections(file, offset).map_err(malformed)?;
    let optional = &headers.optional_header;
    let (section_alignment, file_alignment) =
        (optional.section_alignment.get(LE), optional.file_alignment.get(LE));
    if !section_alignment.is_power_of_two() || !file_alignment.is_power_of_two() {
        return Err(Error::NotPe);
    }
    let start_of_table = short(offset)?;
    let mut sections = Vec::new();
    for (index, header) in table.iter().enumerate() {
        sections.push(section(file, header, start_of_table + index * SECTION_HEADER_BYTES)?);
    }
    let end_of_table = start_of_table + sections.len() * SECTION_HEADER_BYTES;
    let first = sections.iter().map(|section| section.start).min().unwrap_or(file.len());
    let size = short(u64::from(optional.size_of_headers.get(LE)))?;
    // The crate gives no entry that is zero.
    let signatures = match directories.get(IMAGE_DIRECTORY_ENTRY_SECURITY) {
        None => (0, 0),
        Some(entry) => {
            (short(u64::from(entry.virtual_address.get(LE)))?, short(u64::from(entry.size.get(LE)))?)
        }
    };
    Ok((
        Headers {
            signature,
            size,
            end_of_table,
            end_of_headers: size.min(first),
            section_alignment,
            file_alignment,
            signatures,
        },
        sections,
    ))
}

fn section<'a>(file: &'a [u8], header: &ImageSectionHeader, at: usize) -> Result<Section<'a>, Error> {
    let name = header.name.split(|byte| *byte == 0).next().unwrap_or_default();
    let number = |field: object::U32Bytes<LE>| short(u64::from(field.get(LE)));
    let (start, room) = (number(header.pointer_to_raw_data)?, number(header.size_of_raw_data)?);
    let end = start.checked_add(room).filter(|end| *end <= file.len()).ok_or(Error::NotPe)?;
    let length = number(header.virtual_size)?.min(room);
    Ok(Section {
        name: String::from_utf8_lossy(name).into_owned(),
        content: &file[start..end][..length],
        start,
        room,
        header: at,
        end_in_memory: u64::from(header.virtual_address.get(LE)) + u64::from(header.virtual_size.get(LE)),
    })
}

/// `fields`: size and address in memory, size and offset in the file.
fn write_header(file: &mut [u8], at: usize, name: &str, fields: [u64; 4]) -> Result<(), Error> {
    // As `ukify` has it: a kernel that is handed over to without being loaded is run where it lies.
    let kind = if name == ".linux" { IMAGE_SCN_CNT_CODE } else { IMAGE_SCN_CNT_INITIALIZED_DATA };
    let mut header = [0; SECTION_HEADER_BYTES];
    put_bytes(&mut header[..NAME_BYTES], 0, name.as_bytes())?;
    for (index, field) in fields.into_iter().enumerate() {
        put(&mut header, NAME_BYTES + 4 * index, word(field)?)?;
    }
    put(&mut header, SECTION_HEADER_BYTES - 4, kind | IMAGE_SCN_MEM_READ)?;
    put_bytes(file, at, &header)
}

fn put(file: &mut [u8], at: usize, value: u32) -> Result<(), Error> {
    put_bytes(file, at, &value.to_le_bytes())
}

fn put_bytes(file: &mut [u8], at: usize, bytes: &[u8]) -> Result<(), Error> {
    let place = at.checked_add(bytes.len()).and_then(|end| file.get_mut(at..end));
    place.ok_or(Error::NotPe)?.copy_from_slice(bytes);
    Ok(())
}

fn size(length: usize) -> Result<u32, Error> {
    u32::try_from(length).map_err(|_| Error::TooLarge)
}

fn word(value: u64) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::TooLarge)
}

fn long(length: usize) -> Result<u64, Error> {
    u64::try_from(length).map_err(|_| Error::TooLarge)
}

fn short(value: u64) -> Result<usize, Error> {
    usize::try_from(value).map_err(|_| Error::TooLarge)
}

#[cfg(test)]
pub(in crate::image) mod tests {
    use super::*;

    /// A PE file of headers and one section, with room for `headers` section headers.
    pub(in crate::image) fn stub(name: &str, content: &[u8], headers: usize) -> Vec<u8> {
        let mut file = vec![0; 0x40];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x40;
        file.extend_from_slice(b"PE\0\0");
        // x86-64, one section, an optional header of 240 bytes.
        file.extend([0x64, 0x86, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 240, 0, 0x2e, 2]);
        let optional = file.len();
        file.resize(optional + 240, 0);
        let end = file.len() + headers * SECTION_HEADER_BYTES;
        let start = end.next_multiple_of(512);
        file[optional..optional + 2].copy_from_slice(&[0x0b, 2]);
        for (at, value) in [(32, 4096), (36, 512), (56, 8192), (60, start), (108, 16)] {
            put(&mut file, optional + at, size(value).expect("small")).expect("inside");
        }
        let table = file.len();
        file.resize(start + 512, 0);
        file[start..start + content.len()].copy_from_slice(content);
        let fields = [content.len(), 4096, 512, start].map(|field| long(field).expect("small"));
        write_header(&mut file, table, name, fields).expect("inside");
        file
    }

    #[test]
    fn sections_are_added_behind_the_last_one() {
        let file = stub(".text", b"code", 3);
        let changed = append(&file, &[(".a", &[1; 600]), (".linux", b"x")]).expect("there is room");
        let read = sections(&changed).expect("sound");
        let lies: Vec<_> = read.iter().map(|s| (s.name.as_str(), s.start, s.room, s.end_in_memory)).collect();
        assert_eq!(
            lies,
            [(".text", 512, 512, 4100), (".a", 1024, 1024, 8192 + 600), (".linux", 2048, 512, 12289)]
        );
        assert_eq!(read[1].content, [1; 600]);
        assert_eq!(changed.len(), 2560);
        assert_eq!(changed[0x40 + SIZE_OF_IMAGE..][..4], 16384_u32.to_le_bytes());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let file = stub(".text", b"code", 2);
        let error = append(&file, &[(".a", &b""[..]); 4]).expect_err("room for three");
        assert_eq!(error.to_string(), "its headers have no room for 4 more sections");
        let error = replace(&file, ".text", &[0; 513]).expect_err("a sector");
        assert_eq!(error.to_string(), "its section `.text` of 512 bytes has no room for 513");
    }

    #[test]
    fn headers_that_lead_out_of_the_file_are_refused() {
        let file = stub(".text", b"code", 2);
        for length in [0, 1, 0x3f, 0x40, 0x44, 0x60, 0x150, file.len() - 1] {
            assert!(sections(&file[..length]).is_err(), "{length}");
        }
        for (at, value) in [(0x3c, u32::MAX), (0x40 + OPTIONAL_HEADER + 36, 3)] {
            let mut bad = file.clone();
            put(&mut bad, at, value).expect("inside");
            assert!(append(&bad, &[(".a", b"x")]).is_err(), "{at}");
        }
    }
}
