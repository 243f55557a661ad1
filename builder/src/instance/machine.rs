//! QEMU's command line: a plan in, arguments out, nothing done.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use eci_contract::choice::DISK_NAME as CHOICE_NAME;
use eci_contract::config_disk::DISK_NAME;
use eci_contract::disk::DATA_NAME;
use eci_contract::link::PORT_NAME;
use eci_contract::manifest::Architecture;
use eci_contract::shares::{DISK_NAME as SHARES_NAME, tag};

/// QEMU for machines of an architecture, and Debian's package that has it.
#[must_use]
pub const fn program(architecture: Architecture) -> (&'static str, &'static str) {
    match architecture {
        Architecture::X86_64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Architecture::Aarch64 => ("qemu-system-aarch64", "qemu-system-arm"),
    }
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// A machine that boots the appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What its processor is.
    pub architecture: Architecture,
    /// What executes it.
    pub accelerator: Accelerator,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initial RAM file system.
    pub initrd: PathBuf,
    /// Firmware and TPM of a machine that measures what it boots, from the image's EFI system partition. Any other is given kernel
    /// and initrd.
    pub measured: Option<Measured>,
    /// File that the console is written to.
    pub console: PathBuf,
    /// Disks and sockets; `None` for the machine that only has to print a line.
    pub body: Option<Body>,
}

/// What a machine measures its boot with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Code of the UEFI firmware.
    pub firmware: PathBuf,
    /// Its variables, which it writes.
    pub variables: PathBuf,
    /// Control socket of the TPM.
    pub tpm_socket: PathBuf,
}

/// Disks and sockets of a machine that is more than a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The appliance's disk.
    pub image: PathBuf,
    /// Whether it is the instance's own, on which boots are counted; any other is attached read-only.
    pub own: bool,
    /// The data disk, raw.
    pub data: PathBuf,
    /// The administrator's config disk, if there is one.
    pub settings: Option<PathBuf>,
    /// The disk that tells what the user chose, if that is anything.
    pub choice: Option<PathBuf>,
    /// The disk that names the folders of the host, and the socket of each.
    pub shares: Option<(PathBuf, Vec<PathBuf>)>,
    /// Socket of the virtio-serial port that carries the link.
    pub port_socket: PathBuf,
    /// Control socket.
    pub qmp_socket: PathBuf,
}

impl Plan {
    /// The arguments, without the program. The kernel's command line is built in, so none is given.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let accelerator = match self.accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg,thread=multi",
        };
        let mut arguments = Arguments::default();
        let shares = self.body.as_ref().and_then(|body| body.shares.as_ref());
        // What serves a folder of the host writes what was read into the VM's memory by itself.
        let memory = if shares.is_some() { ",memory-backend=memory" } else { "" };
        arguments.option("-machine", &format!("{}{memory}", self.machine()));
        if shares.is_some() {
            let size = self.memory_mib;
            arguments.option("-object", &format!("memory-backend-memfd,id=memory,size={size}M,share=on"));
        }
        arguments.option("-accel", accelerator);
        arguments.option("-cpu", self.processor());
        arguments.option("-m", &self.memory_mib.to_string());
        arguments.option("-smp", &self.cpus.to_string());
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            arguments.flag(flag);
        }
        arguments.option("-display", "none");
        // What QEMU may do to the host when the guest breaks out of it.
        arguments
            .option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        match &self.measured {
            Some(measured) => measured.add_to(self.architecture, &mut arguments),
            None => {
                arguments.file_option("-kernel", &self.kernel);
                arguments.file_option("-initrd", &self.initrd);
            }
        }
        arguments.with_path("-chardev", "file,id=console,append=off,path=", &self.console, "");
        arguments.option("-serial", "chardev:console");
        if let Some(body) = &self.body {
            body.add_to(&mut arguments);
        }
        arguments.0
    }

    /// The board.
    fn machine(&self) -> &'static str {
        match (self.architecture, self.accelerator) {
            // Without AHCI: probing six ports without a drive holds the kernel up for a quarter of a second.
            (Architecture::X86_64, _) => "q35,usb=off,vmport=off,sata=off",
            (Architecture::Aarch64, Accelerator::Tcg) => "virt,gic-version=3",
            // The host's own: KVM has no other.
            (Architecture::Aarch64, Accelerator::Kvm) => "virt,gic-version=host",
        }
    }

    /// All that the host's processor, or the translator, can do.
    fn processor(&self) -> &'static str {
        match (self.architecture, self.accelerator) {
            (_, Accelerator::Kvm) => "max",
            // A processor whose string instructions are not said to be fast, for they are not: QEMU translates them byte
            // by byte, and without the two flags kernel and C library copy and clear in larger steps.
            (Architecture::X86_64, Accelerator::Tcg) => "max,-erms,-fsrm",
            // Pointers are signed by a hash of QEMU's own: Arm's is most of the time that a boot takes when it is computed
            // in software.
            (Architecture::Aarch64, Accelerator::Tcg) => "max,pauth-impdef=on",
        }
    }
}

impl Measured {
    fn add_to(&self, architecture: Architecture, arguments: &mut Arguments) {
        let flash = "if=pflash,format=raw,unit";
        arguments.with_path("-drive", &format!("{flash}=0,readonly=on,file="), &self.firmware, "");
        arguments.with_path("-drive", &format!("{flash}=1,file="), &self.variables, "");
        arguments.with_path("-chardev", "socket,id=tpm,path=", &self.tpm_socket, "");
        arguments.option("-tpmdev", "emulator,id=tpm,chardev=tpm");
        let device = match architecture {
            Architecture::X86_64 => "tpm-crb",
            Architecture::Aarch64 => "tpm-tis-device",
        };
        arguments.option("-device", &format!("{device},tpmdev=tpm"));
    }
}

impl Body {
    fn add_to(&self, arguments: &mut Arguments) {
        let image = if self.own { "" } else { "readonly=on," };
        let image = format!("if=none,id=image,format=raw,{image}file=");
        arguments.with_path("-drive", &image, &self.image, "");
        // Firmware tries this one first. QEMU's own loader, where that boots, has the first place itself.
        arguments.option("-device", "virtio-blk-pci,drive=image,bootindex=1");
        // Deleted images give their space back to the host.
        let data = "if=none,id=data,format=raw,discard=unmap,detect-zeroes=unmap,file=";
        arguments.with_path("-drive", data, &self.data, "");
        arguments.option("-device", &format!("virtio-blk-pci,drive=data,serial={DATA_NAME}"));
        if let Some(settings) = &self.settings {
            arguments.with_path("-drive", "if=none,id=settings,format=raw,readonly=on,file=", settings, "");
            arguments.option("-device", &format!("virtio-blk-pci,drive=settings,serial={DISK_NAME}"));
        }
        if let Some(choice) = &self.choice {
            arguments.with_path("-drive", "if=none,id=choice,format=raw,readonly=on,file=", choice, "");
            arguments.option("-device", &format!("virtio-blk-pci,drive=choice,serial={CHOICE_NAME}"));
        }
        if let Some((disk, sockets)) = &self.shares {
            arguments.with_path("-drive", "if=none,id=shares,format=raw,readonly=on,file=", disk, "");
            arguments.option("-device", &format!("virtio-blk-pci,drive=shares,serial={SHARES_NAME}"));
            for (index, socket) in sockets.iter().enumerate() {
                arguments.with_path("-chardev", &format!("socket,id=share{index},path="), socket, "");
                let device = format!("vhost-user-fs-pci,chardev=share{index},tag={}", tag(index));
                arguments.option("-device", &device);
            }
        }
        arguments.option("-netdev", "user,id=net");
        arguments.option("-device", "virtio-net-pci,netdev=net,romfile=");
        arguments.option("-device", "virtio-rng-pci");
        arguments.option("-device", "virtio-balloon-pci,free-page-reporting=on");
        arguments.option("-device", "virtio-serial-pci");
        arguments.with_path("-chardev", "socket,id=link,server=on,wait=off,path=", &self.port_socket, "");
        arguments.option("-device", &format!("virtserialport,chardev=link,name={PORT_NAME}"));
        arguments.with_path("-qmp", "unix:", &self.qmp_socket, ",server=on,wait=off");
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn option(&mut self, option: &str, value: &str) {
        self.0.extend([option.into(), value.into()]);
    }

    /// The value is a path as it is.
    fn file_option(&mut self, option: &str, path: &Path) {
        self.0.extend([option.into(), path.into()]);
    }

    /// The value has a path within; there QEMU reads two commas as one that belongs to it.
    fn with_path(&mut self, option: &str, before: &str, path: &Path, after: &str) {
        let path = path.to_string_lossy().replace(',', ",,");
        self.option(option, &format!("{before}{path}{after}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(data: &str) -> Plan {
        Plan {
            architecture: Architecture::X86_64,
            accelerator: Accelerator::Tcg,
            memory_mib: 2048,
            cpus: 2,
            kernel: "/out/vmlinuz".into(),
            initrd: "/out/initrd.img".into(),
            measured: None,
            console: "/s/console.log".into(),
            body: Some(Body {
                image: "/out/eci.raw".into(),
                own: false,
                data: data.into(),
                settings: None,
                choice: None,
                shares: None,
                port_socket: "/s/port.sock".into(),
                qmp_socket: "/s/qmp.sock".into(),
            }),
        }
    }

    fn shown(plan: &Plan) -> String {
        plan.arguments().iter().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_image_is_read_only_and_the_data_disk_is_found_by_its_serial() {
        let shown = shown(&plan("/s/data.raw"));
        assert!(shown.contains("format=raw,readonly=on,file=/out/eci.raw "), "{shown}");
        assert!(
            shown.contains("file=/s/data.raw -device virtio-blk-pci,drive=data,serial=eci-data"),
            "{shown}"
        );
    }

    #[test]
    fn an_instance_counts_boots_on_its_own_disk_alone() {
        let mut plan = plan("/s/data.raw");
        if let Some(body) = &mut plan.body {
            body.own = true;
        }
        let shown = shown(&plan);
        assert!(shown.contains("id=image,format=raw,file=/out/eci.raw "), "{shown}");
    }

    #[test]
    fn disks_of_administrator_and_user_are_found_by_their_serials_and_not_written_to() {
        let mut plan = plan("/s/data.raw");
        if let Some(body) = &mut plan.body {
            body.settings = Some("/s/settings.img".into());
            body.choice = Some("/s/choice.img".into());
        }
        let shown = shown(&plan);
        for wanted in [
            "readonly=on,file=/s/settings.img -device virtio-blk-pci,drive=settings,serial=eci-config",
            "readonly=on,file=/s/choice.img -device virtio-blk-pci,drive=choice,serial=eci-choice",
        ] {
            assert!(shown.contains(wanted), "{wanted} is not in {shown}");
        }
    }

    #[test]
    fn folders_of_the_host_are_devices_with_tags_and_memory_is_shared_for_them_alone() {
        let mut plan = plan("/s/data.raw");
        assert!(!shown(&plan).contains("memory-backend"));
        if let Some(body) = &mut plan.body {
            body.shares =
                Some(("/s/shares.img".into(), vec!["/s/share-0.sock".into(), "/s/a,b.sock".into()]));
        }
        let shown = shown(&plan);
        for wanted in [
            "-machine q35,usb=off,vmport=off,sata=off,memory-backend=memory ",
            "-object memory-backend-memfd,id=memory,size=2048M,share=on ",
            "readonly=on,file=/s/shares.img -device virtio-blk-pci,drive=shares,serial=eci-shares ",
            "-chardev socket,id=share0,path=/s/share-0.sock -device vhost-user-fs-pci,chardev=share0,tag=eci-share-0 ",
            "-chardev socket,id=share1,path=/s/a,,b.sock -device vhost-user-fs-pci,chardev=share1,tag=eci-share-1 ",
        ] {
            assert!(shown.contains(wanted), "{wanted} is not in {shown}");
        }
    }

    #[test]
    fn a_measured_boot_is_the_firmware_s_and_not_qemu_s() {
        let mut plan = plan("/s/data.raw");
        plan.measured = Some(Measured {
            firmware: "/f/code.fd".into(),
            variables: "/s/a,b.fd".into(),
            tpm_socket: "/s/tpm.sock".into(),
        });
        for (architecture, device) in
            [(Architecture::X86_64, "tpm-crb"), (Architecture::Aarch64, "tpm-tis-device")]
        {
            plan.architecture = architecture;
            let shown = shown(&plan);
            assert!(!shown.contains("-kernel") && !shown.contains("-initrd"), "{shown}");
            for wanted in [
                "if=pflash,format=raw,unit=0,readonly=on,file=/f/code.fd ",
                "if=pflash,format=raw,unit=1,file=/s/a,,b.fd ",
                "-chardev socket,id=tpm,path=/s/tpm.sock -tpmdev emulator,id=tpm,chardev=tpm ",
                &format!("-device {device},tpmdev=tpm "),
            ] {
                assert!(shown.contains(wanted), "{wanted} is not in {shown}");
            }
        }
    }

    #[test]
    fn no_port_of_the_host_is_forwarded_and_nothing_reads_a_keyboard() {
        let shown = shown(&plan("/s/data.raw"));
        for absent in ["hostfwd", "stdio", "-append", "monitor", "tcp:"] {
            assert!(!shown.contains(absent), "{absent} in {shown}");
        }
    }

    #[test]
    fn a_machine_is_of_the_image_s_architecture() {
        let mut plan = plan("/s/data.raw");
        assert!(shown(&plan).starts_with("-machine q35,"));
        plan.architecture = Architecture::Aarch64;
        assert!(shown(&plan).starts_with("-machine virt,gic-version=3 "));
        plan.accelerator = Accelerator::Kvm;
        assert!(shown(&plan).starts_with("-machine virt,gic-version=host -accel kvm -cpu max "));
    }

    #[test]
    fn a_comma_in_a_path_adds_no_option() {
        let shown = shown(&plan("/s/a,readonly=on.raw"));
        assert!(shown.contains("file=/s/a,,readonly=on.raw "), "{shown}");
    }

    #[test]
    fn a_probe_has_no_disk_and_no_socket() {
        let shown = shown(&Plan { accelerator: Accelerator::Kvm, body: None, ..plan("/s/data.raw") });
        assert!(
            shown.contains("-accel kvm ") && !shown.contains("-drive") && !shown.contains("socket"),
            "{shown}"
        );
    }
}
