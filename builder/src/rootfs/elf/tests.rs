use super::*;

/// A minimal ELF file that needs these libraries: header, `PT_INTERP`, and sections `.dynamic` and `.dynstr`.
fn craft(machine: u16, loader: &str, libraries: &[&str]) -> Vec<u8> {
    const HEADER: usize = 64;
    const SEGMENT: usize = 56;
    let mut strings = vec![0_u8];
    let mut dynamic = Vec::new();
    for library in libraries {
        dynamic.extend([u64::from(elf::DT_NEEDED), strings.len() as u64]);
        strings.extend(library.as_bytes());
        strings.push(0);
    }
    dynamic.extend([0, 0]);
    let dynamic: Vec<u8> = dynamic.into_iter().flat_map(u64::to_le_bytes).collect();
    let interp_at = HEADER + SEGMENT;
    let dynamic_at = interp_at + loader.len() + 1;
    let strings_at = dynamic_at + dynamic.len();
    let sections_at = strings_at + strings.len();

    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [elf::ET_DYN, machine] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1_u32.to_le_bytes());
    for long in [0, HEADER, sections_at] {
        bytes.extend((long as u64).to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 3, 2] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(elf::PT_INTERP.to_le_bytes());
    bytes.extend(4_u32.to_le_bytes());
    for long in [interp_at, interp_at, interp_at, loader.len() + 1, loader.len() + 1, 1] {
        bytes.extend((long as u64).to_le_bytes());
    }
    bytes.extend(loader.as_bytes());
    bytes.push(0);
    bytes.extend(&dynamic);
    bytes.extend(&strings);
    bytes.extend([0; 64]);
    for (kind, at, size, link) in [
        (elf::SHT_DYNAMIC, dynamic_at, dynamic.len(), 2_u32),
        (elf::SHT_STRTAB, strings_at, strings.len(), 0),
    ] {
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        for long in [0, 0, at, size] {
            bytes.extend((long as u64).to_le_bytes());
        }
        bytes.extend(link.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        for long in [1_u64, 16] {
            bytes.extend(long.to_le_bytes());
        }
    }
    bytes
}

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

fn check(files: &[(&str, Vec<u8>)]) -> Result<(), Error> {
    let home = tempfile::tempdir().expect("temporary folder");
    let mut tree = Tree::create(&home.path().join("root")).expect("tree");
    for (path, bytes) in files {
        tree.add_file(path, &mut bytes.as_slice(), true, Origin::Overlay).expect("file");
    }
    for (path, target) in [("/lib64", "usr/lib64"), ("/usr/lib/x86_64-linux-gnu/liba.so.1", "liba.so.1.2")] {
        tree.add_symlink(path, target, Origin::Overlay).expect("link");
    }
    check_closure(&tree, Architecture::X86_64)
}

fn complete() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("/usr/bin/a", craft(elf::EM_X86_64, LOADER, &["liba.so.1", "libc.so.6"])),
        ("/usr/lib/x86_64-linux-gnu/liba.so.1.2", craft(elf::EM_X86_64, LOADER, &["libc.so.6"])),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", craft(elf::EM_X86_64, LOADER, &[])),
        ("/usr/lib64/ld-linux-x86-64.so.2", craft(elf::EM_X86_64, LOADER, &[])),
    ]
}

#[test]
fn a_complete_closure_passes() {
    check(&complete()).expect("all is there");
}

#[test]
fn each_missing_library_and_the_loader_are_named() {
    for (gone, needed) in [(1, "liba.so.1"), (2, "libc.so.6"), (3, LOADER)] {
        let mut files = complete();
        files.remove(gone);
        let error = check(&files).expect_err("something is missing");
        assert!(
            error.to_string().ends_with(&format!("needs `{needed}`, which no rule brings in")),
            "{error}"
        );
    }
}

#[test]
fn a_library_that_nothing_needs_is_refused() {
    let mut files = complete();
    files.push(("/usr/lib/x86_64-linux-gnu/libz.so.1", craft(elf::EM_X86_64, LOADER, &[])));
    let error = check(&files).expect_err("nobody needs libz").to_string();
    assert_eq!(
        error,
        "`/usr/lib/x86_64-linux-gnu/libz.so.1`, from the overlay, is a library that nothing needs"
    );
}

#[test]
fn a_program_for_another_processor_is_refused() {
    let mut files = complete();
    files.push(("/usr/bin/b", craft(elf::EM_AARCH64, LOADER, &[])));
    assert!(matches!(check(&files), Err(Error::Foreign { .. })));
}

#[test]
fn a_truncated_program_is_refused() {
    let mut files = complete();
    files[0].1.truncate(40);
    assert!(matches!(check(&files), Err(Error::Malformed { .. })));
}
