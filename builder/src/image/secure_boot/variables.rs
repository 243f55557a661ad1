//! What enrols keys: signature lists, and signed changes of the firmware's variables.
//!
//! Format: UEFI 2.10, 32.4.1 (`EFI_SIGNATURE_LIST`, files `.esl`) and 8.2.2 (`EFI_VARIABLE_AUTHENTICATION_2`, files
//! `.auth`, which take effect whatever brings them to the firmware).

use der::Encode;
use uuid::{Uuid, uuid};

use super::{Certificate, Error, Signer, pkcs7};

/// `EFI_CERT_X509_GUID`: the entry is a certificate.
const X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
/// `EFI_CERT_TYPE_PKCS7_GUID`: the change is signed as PKCS #7 has it.
const PKCS7: Uuid = uuid!("4aafd29d-68df-49ee-8aa9-347d375665a7");
/// Kept when power is off, seen by boot loaders and the running system, changed by who signs with a time.
const ATTRIBUTES: u32 = 0x01 | 0x02 | 0x04 | 0x20;
/// `WIN_CERT_TYPE_EFI_GUID` with its revision.
const WIN_CERTIFICATE: [u8; 4] = [0x00, 0x02, 0xf1, 0x0e];
const GUID_BYTES: usize = 16;

/// One of the firmware's variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    /// Its name, and that of its files.
    pub name: &'static str,
    vendor: Uuid,
}

/// Who owns the machine.
pub(super) const PK: Variable =
    Variable { name: "PK", vendor: uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c") };
/// Who may change db.
pub(super) const KEK: Variable = Variable { name: "KEK", vendor: PK.vendor };
/// Whose programs run.
pub(super) const DB: Variable =
    Variable { name: "db", vendor: uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f") };

/// A signature list of one certificate; `owner` tells later which entries are whose.
///
/// # Errors
/// [`Error::Encode`] for a certificate whose size the format cannot tell.
pub(super) fn list(certificate: &Certificate, owner: Uuid) -> Result<Vec<u8>, Error> {
    let entry = [&owner.to_bytes_le()[..], certificate.der()].concat();
    let header = GUID_BYTES + 3 * size_of::<u32>();
    let sizes = [header + entry.len(), 0, entry.len()];
    let mut list = X509.to_bytes_le().to_vec();
    for size in sizes {
        list.extend(word(size)?);
    }
    list.extend(entry);
    Ok(list)
}

/// The change that sets `variable` to `list`, signed. It is dated with the first moment of the signer's certificate: the
/// firmware takes no change that is older than the last one, and keys that replace others are younger.
///
/// # Errors
/// [`Error::Encode`] and [`Error::Sign`].
pub(super) fn change(variable: Variable, list: &[u8], signer: &Signer) -> Result<Vec<u8>, Error> {
    let time = time(signer);
    let message = [
        &variable.name.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()[..],
        &variable.vendor.to_bytes_le(),
        &ATTRIBUTES.to_le_bytes(),
        &time,
        list,
    ];
    // Not wrapped into `ContentInfo`: the specification has it so, and some firmware insists.
    let signed = pkcs7::detached(&signer.sign(&message.concat())?, signer.certificate())?.to_der()?;
    let length = size_of::<u32>() + WIN_CERTIFICATE.len() + GUID_BYTES + signed.len();
    Ok([&time[..], &word(length)?, &WIN_CERTIFICATE, &PKCS7.to_bytes_le(), &signed, list].concat())
}

/// `EFI_TIME` of UTC; everything finer than a second has to be zero.
fn time(signer: &Signer) -> [u8; 16] {
    let from = signer.certificate().valid_from().to_date_time();
    let mut time = [0; 16];
    time[..2].copy_from_slice(&from.year().to_le_bytes());
    time[2..7].copy_from_slice(&[from.month(), from.day(), from.hour(), from.minutes(), from.seconds()]);
    time
}

fn word(size: usize) -> Result<[u8; 4], Error> {
    Ok(u32::try_from(size).map_err(|_| der::Error::from(der::ErrorKind::Overflow))?.to_le_bytes())
}
