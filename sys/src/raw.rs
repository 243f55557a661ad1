//! System calls that only attack suites make: raw ones, by the numbers of each ABI.
//!
//! Behind the feature `probe`; no program of the guest turns it on. What rustix or nix offers safely is not here.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes of a [`Page`].
pub const PAGE: usize = 4096;

/// Memory for the kernel to read from and write to.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Page(pub [u8; PAGE]);

impl Default for Page {
    fn default() -> Self {
        Self([0; PAGE])
    }
}

impl Page {
    /// A page that begins with these words.
    #[must_use]
    pub fn of_words(words: &[u32]) -> Box<Self> {
        let mut page = Box::<Self>::default();
        for (place, word) in page.0.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        page
    }
}

/// Memory for the kernel to read, below 4 GiB so that every ABI can name it, and which may change while a call reads it.
#[derive(Debug)]
pub struct SharedPage {
    bytes: std::ptr::NonNull<[AtomicU8; PAGE]>,
}

impl SharedPage {
    /// A page of zeros.
    ///
    /// # Errors
    /// That of `mmap(2)`, and `EINVAL` where low addresses cannot be asked for.
    #[expect(unsafe_code, reason = "low memory comes from the kernel only")]
    pub fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that is there.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | LOW,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let bytes = std::ptr::NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { bytes })
    }

    /// Writes `text` and a NUL behind it, byte by byte; what does not fit is left out.
    pub fn set(&self, text: &[u8]) {
        // The last byte of the page stays 0.
        let ended = text.iter().take(PAGE - 2).chain(&[0]);
        self.bytes().iter().zip(ended).for_each(|(place, byte)| place.store(*byte, Ordering::SeqCst));
    }

    #[expect(unsafe_code, reason = "the mapping is ours")]
    fn bytes(&self) -> &[AtomicU8; PAGE] {
        // SAFETY: the pointer is that of a mapping of this length which lives as long as `self`, zeroed and so valid; atomics
        // may be shared, also with the kernel.
        unsafe { self.bytes.as_ref() }
    }

    fn address(&self) -> i64 {
        self.bytes.as_ptr() as *mut u8 as i64
    }
}

// SAFETY: it owns its mapping, and all access is atomic.
#[expect(unsafe_code, reason = "a pointer is neither by itself")]
unsafe impl Send for SharedPage {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer is neither by itself")]
unsafe impl Sync for SharedPage {}

impl Drop for SharedPage {
    #[expect(unsafe_code, reason = "gives the mapping back")]
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and nobody can borrow it any more.
        unsafe { libc::munmap(self.bytes.as_ptr().cast(), PAGE) };
    }
}

/// The first page of a file, for the kernel to read: it comes from the file when it is touched.
#[derive(Debug)]
pub struct MappedPage {
    address: std::ptr::NonNull<libc::c_void>,
}

impl MappedPage {
    /// Maps `file` without reading it.
    ///
    /// # Errors
    /// That of `mmap(2)`.
    #[expect(unsafe_code, reason = "a mapping that is never read here has no safe wrapper")]
    pub fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: a mapping at an address of the kernel's choice touches nothing that is there; what is in the file never
        // becomes a value of ours.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address: std::ptr::NonNull::new(address).ok_or(io::ErrorKind::OutOfMemory)? })
    }
}

impl Drop for MappedPage {
    #[expect(unsafe_code, reason = "gives the mapping back")]
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `of` with this length, and nobody can borrow it any more.
        unsafe { libc::munmap(self.address.as_ptr(), PAGE) };
    }
}

#[cfg(target_arch = "x86_64")]
const LOW: libc::c_int = libc::MAP_32BIT;
#[cfg(not(target_arch = "x86_64"))]
const LOW: libc::c_int = 0;

/// Numbers that are the address of nothing: the first pages of a process are not mapped (`vm.mmap_min_addr`), and the last
/// belong to the kernel.
const NO_ADDRESS: std::ops::Range<i64> = -(PAGE as i64)..PAGE as i64 + 1;

/// What a call is given.
#[derive(Debug)]
pub enum Argument<'a> {
    /// A number that the kernel does not take for an address.
    Number(i64),
    /// No address.
    Null,
    /// A text that the kernel reads.
    Text(&'a CStr),
    /// Memory that the kernel reads or writes.
    Page(&'a mut Page),
    /// Memory that the kernel reads, up to a NUL.
    Shared(&'a SharedPage),
    /// A file's memory that the kernel reads.
    Mapped(&'a MappedPage),
    /// An open descriptor.
    Descriptor(BorrowedFd<'a>),
}

/// Which numbers and which way into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// The machine's own.
    Native,
    /// x86-64's numbers with bit 30 set.
    X32,
    /// `int 0x80`; takes numbers and shared pages only, as no other address of ours fits into 32 bits.
    I386,
}

/// The calls, and how the kernel takes their arguments. For each, memory is touched only through arguments that [`call`]
/// checks: texts are read to their NUL, pages are written for no more than [`PAGE`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Type, description, payload, its length, keyring.
    AddKey,
    /// `struct timex` of 208 bytes.
    Adjtimex,
    /// With no attributes of size 0, for the ABIs; a real one is [`load_bpf_program`].
    Bpf,
    /// `struct io_uring_params` of 120 bytes; refused here unless zero, so that no address is in it.
    IoUringSetup,
    /// First port, count, on or off.
    Ioperm,
    /// Level.
    Iopl,
    /// Two processes, what to compare, two indices.
    Kcmp,
    /// Entry, number of segments (refused here unless 0), segments, flags.
    KexecLoad,
    /// Operation, a key, then numbers, a text, or a page with its length.
    Keyctl,
    /// Path, mode, device.
    Mknod,
    /// Folder, path, mode, device.
    Mknodat,
    /// Folder, path, `struct file_handle` (its length word is refused here above 128), mount id, flags.
    NameToHandleAt,
    /// Any descriptor of the mount, `struct file_handle`, flags.
    OpenByHandleAt,
    /// `struct perf_event_attr` (which holds no address that is written to), process, processor, group, flags.
    PerfEventOpen,
    /// Two magic numbers, of which the first is refused here when it is the right one, and a command.
    Reboot,
    /// `struct timeval`, zone.
    Settimeofday,
    /// Path, flags.
    Swapon,
    /// Action, a page, its length.
    Syslog,
    /// Flags without `CLONE_VM`, which is not among those that `unshare` takes for memory.
    Unshare,
    /// Flags.
    Userfaultfd,
}

impl Call {
    /// Numbers of x86-64 (also aarch64's own, where it has the call) and of i386.
    fn number(self, abi: Abi) -> Option<i64> {
        let (native, i386): (Option<i64>, i64) = match self {
            Self::AddKey => (Some(libc::SYS_add_key), 286),
            Self::Adjtimex => (Some(libc::SYS_adjtimex), 124),
            Self::Bpf => (Some(libc::SYS_bpf), 357),
            Self::IoUringSetup => (Some(libc::SYS_io_uring_setup), 425),
            Self::Ioperm => (port_calls(PortCall::Ioperm), 101),
            Self::Iopl => (port_calls(PortCall::Iopl), 110),
            Self::Kcmp => (Some(libc::SYS_kcmp), 349),
            Self::KexecLoad => (Some(libc::SYS_kexec_load), 283),
            Self::Keyctl => (Some(libc::SYS_keyctl), 288),
            Self::Mknod => (mknod_number(), 14),
            Self::Mknodat => (Some(libc::SYS_mknodat), 297),
            Self::NameToHandleAt => (Some(libc::SYS_name_to_handle_at), 341),
            Self::OpenByHandleAt => (Some(libc::SYS_open_by_handle_at), 342),
            Self::PerfEventOpen => (Some(libc::SYS_perf_event_open), 336),
            Self::Reboot => (Some(libc::SYS_reboot), 88),
            Self::Settimeofday => (Some(libc::SYS_settimeofday), 79),
            Self::Swapon => (Some(libc::SYS_swapon), 87),
            Self::Syslog => (Some(libc::SYS_syslog), 103),
            Self::Unshare => (Some(libc::SYS_unshare), 310),
            Self::Userfaultfd => (Some(libc::SYS_userfaultfd), 374),
        };
        match abi {
            Abi::Native => native,
            Abi::X32 => native.map(|number| number | 0x4000_0000),
            Abi::I386 => Some(i386),
        }
    }

    /// Position of the length of a page in the arguments, when the caller gives it.
    fn length_at(self) -> Option<usize> {
        match self {
            Self::AddKey | Self::Keyctl => Some(3),
            Self::Syslog => Some(2),
            Self::KexecLoad => Some(1),
            _ => None,
        }
    }

    /// Positions that the kernel takes for addresses, always or for some operations.
    fn addresses_at(self) -> &'static [usize] {
        match self {
            Self::AddKey => &[0, 1, 2],
            Self::Adjtimex | Self::Mknod | Self::PerfEventOpen | Self::Swapon => &[0],
            Self::Bpf | Self::Mknodat | Self::IoUringSetup | Self::OpenByHandleAt | Self::Syslog => &[1],
            Self::KexecLoad => &[2],
            Self::Keyctl => &[2, 3],
            Self::NameToHandleAt => &[1, 2, 3],
            Self::Reboot => &[3],
            Self::Settimeofday => &[0, 1],
            Self::Ioperm | Self::Iopl | Self::Kcmp | Self::Unshare | Self::Userfaultfd => &[],
        }
    }

    /// The conditions that the documentation of each call names; a call that breaks one is not made.
    fn is_sound(self, arguments: &[Argument<'_>]) -> bool {
        let number = |at: usize| match arguments.get(at) {
            Some(Argument::Number(number)) => Some(*number),
            _ => None,
        };
        let page = |at: usize| match arguments.get(at) {
            Some(Argument::Page(page)) => Some(page.0),
            _ => None,
        };
        let has_page = arguments.iter().any(|argument| matches!(argument, Argument::Page(_)));
        let longest = if self == Self::KexecLoad { 0 } else { PAGE as i64 };
        let length = self.length_at().and_then(number).unwrap_or(0);
        let length_fits = !(has_page || self == Self::KexecLoad) || (0..=longest).contains(&length);
        let addresses_are_ours = self
            .addresses_at()
            .iter()
            .all(|at| number(*at).is_none_or(|number| NO_ADDRESS.contains(&number)));
        length_fits
            && addresses_are_ours
            && match self {
                Self::Bpf => !has_page,
                Self::IoUringSetup => page(1).is_none_or(|page| page.iter().all(|byte| *byte == 0)),
                Self::NameToHandleAt => page(2).is_none_or(|page| page[0] <= 128 && page[1..4] == [0; 3]),
                Self::Reboot => number(0) != Some(i64::from(libc::LINUX_REBOOT_MAGIC1)),
                Self::Unshare => number(0).is_some_and(|flags| flags & i64::from(libc::CLONE_VM) == 0),
                _ => true,
            }
    }
}

#[cfg(target_arch = "x86_64")]
fn mknod_number() -> Option<i64> {
    Some(libc::SYS_mknod)
}

#[cfg(not(target_arch = "x86_64"))]
fn mknod_number() -> Option<i64> {
    None
}

#[derive(Clone, Copy)]
enum PortCall {
    Iopl,
    Ioperm,
}

#[cfg(target_arch = "x86_64")]
fn port_calls(call: PortCall) -> Option<i64> {
    Some(match call {
        PortCall::Iopl => libc::SYS_iopl,
        PortCall::Ioperm => libc::SYS_ioperm,
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn port_calls(_: PortCall) -> Option<i64> {
    None
}

/// Makes one system call; what it returns is the caller's business, a descriptor in it stays open.
///
/// # Errors
/// The kernel's, `ENOSYS` for a call that this machine's ABI has not, `EINVAL` for arguments that the documentation of
/// [`Call`] excludes (the kernel is not asked then).
pub fn call(abi: Abi, call: Call, arguments: &mut [Argument<'_>]) -> io::Result<i64> {
    let number = call.number(abi).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))?;
    let is_low = |argument: &Argument<'_>| {
        matches!(argument, Argument::Number(_) | Argument::Null | Argument::Shared(_))
    };
    let numbers_only = arguments.iter().all(is_low);
    if arguments.len() > 6 || !call.is_sound(arguments) || (abi == Abi::I386 && !numbers_only) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut words = [0_i64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Argument::Number(number) => *number,
            Argument::Null => 0,
            Argument::Text(text) => text.as_ptr() as i64,
            Argument::Page(page) => page.0.as_mut_ptr() as i64,
            // Its last byte is never written and stays 0, so that the kernel reads no further.
            Argument::Shared(page) => page.address(),
            Argument::Mapped(page) => page.address.as_ptr() as i64,
            Argument::Descriptor(descriptor) => i64::from(descriptor.as_raw_fd()),
        };
    }
    match abi {
        Abi::Native | Abi::X32 => enter(number, words),
        Abi::I386 => enter_i386(number, words),
    }
}

#[expect(unsafe_code, reason = "the calls that suites attack with have no safe wrapper")]
fn enter(number: i64, words: [i64; 6]) -> io::Result<i64> {
    let [first, second, third, fourth, fifth, sixth] = words;
    // SAFETY: the number is one of the list in `Call`, whose documentation says how much memory each touches, and
    // `is_sound` has checked the lengths. Every address among the words is a text's or a page's that `call` borrows
    // until this returns, pages exclusively but for shared ones, which are only read; a `Number` in the place of an address is that of nothing (`is_sound` again),
    // for which the kernel answers EFAULT.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the i386 entry is an instruction")]
fn enter_i386(number: i64, words: [i64; 6]) -> io::Result<i64> {
    let mut result = number;
    // SAFETY: `int 0x80` clobbers `rax` and, on old kernels, r8 to r11, all named below; rbx, which the compiler keeps
    // for itself, is put back by the second exchange. No word is an address but that of a shared page (`call` checks), which
    // lies below 4 GiB and which the kernel reads up to a NUL. rbp, the sixth argument, is left out: no call of the list has six.
    unsafe {
        std::arch::asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) words[0] => _,
            inlateout("rax") result,
            in("rcx") words[1],
            in("rdx") words[2],
            in("rsi") words[3],
            in("rdi") words[4],
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    // The kernel's answer has 32 bits.
    match result as i32 {
        error @ -4095..=-1 => Err(io::Error::from_raw_os_error(-error)),
        answer => Ok(i64::from(answer)),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn enter_i386(_: i64, _: [i64; 6]) -> io::Result<i64> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// Loads a socket filter program that returns 0. The descriptor stays open.
///
/// # Errors
/// The kernel's.
#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
pub fn load_bpf_program() -> io::Result<()> {
    const PROGRAM_LOAD: libc::c_int = 5;
    const SOCKET_FILTER: u32 = 1;
    // `r0 = 0; exit`.
    let instructions: [u64; 2] = [0xb7, 0x95];
    let licence = c"GPL";
    let mut attributes = [0_u64; 16];
    attributes[0] = u64::from(SOCKET_FILTER) | ((instructions.len() as u64) << 32);
    attributes[1] = instructions.as_ptr() as u64;
    attributes[2] = licence.as_ptr() as u64;
    // SAFETY: the kernel reads `attributes` for the size given, the two instructions that its second word points at and
    // the licence to its NUL; all are locals alive until the call returns. The log's address is 0, so nothing is written.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, PROGRAM_LOAD, attributes.as_mut_ptr(), size_of_val(&attributes))
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes an array map of one element. The descriptor stays open.
///
/// # Errors
/// The kernel's.
#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
pub fn create_bpf_map() -> io::Result<()> {
    const MAP_CREATE: libc::c_int = 0;
    const ARRAY: u32 = 2;
    let mut attributes = [ARRAY, 4, 8, 1, 0, 0, 0, 0];
    // SAFETY: the kernel reads `attributes`, a live local, for the size given; there is no address in it.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, MAP_CREATE, attributes.as_mut_ptr(), size_of_val(&attributes))
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(result: io::Result<i64>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn a_length_beyond_the_page_is_not_passed_on() {
        let mut page = Page::default();
        let mut arguments =
            [Argument::Number(3), Argument::Page(&mut page), Argument::Number(PAGE as i64 + 1)];
        assert!(!Call::Syslog.is_sound(&arguments));
        arguments[2] = Argument::Number(PAGE as i64);
        assert!(Call::Syslog.is_sound(&arguments));
    }

    #[test]
    fn the_true_magic_of_reboot_is_not_passed_on() {
        let magic = i64::from(libc::LINUX_REBOOT_MAGIC1);
        assert!(!Call::Reboot.is_sound(&[Argument::Number(magic)]));
        assert!(Call::Reboot.is_sound(&[Argument::Number(magic ^ 1)]));
    }

    #[test]
    fn ring_parameters_with_anything_in_them_are_not_passed_on() {
        let mut page = Page::of_words(&[0, 1]);
        assert!(!Call::IoUringSetup.is_sound(&[Argument::Number(1), Argument::Page(&mut page)]));
    }

    #[test]
    fn a_number_in_the_place_of_an_address_is_not_passed_on() {
        let number = [Argument::Number(11), Argument::Number(1), Argument::Number(0x7fff_0000_0000)];
        assert!(!Call::Keyctl.is_sound(&number));
        assert!(Call::Keyctl.is_sound(&[Argument::Number(0), Argument::Number(-4), Argument::Number(1)]));
    }

    #[test]
    fn the_i386_entry_takes_no_address() {
        let mut page = Page::default();
        assert_eq!(
            errno(call(Abi::I386, Call::Adjtimex, &mut [Argument::Page(&mut page)])),
            Some(libc::EINVAL)
        );
    }
}
