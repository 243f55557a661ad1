#!/bin/sh
# Starts the appliance beside this script on a Mac with Apple's processor, by vfkit, in the foreground. Arguments go to vfkit: more
# devices, for example. README.md of the project has the devices one by one, section "On a Mac".
#
# ECI_STATE        folder of what the machine keeps: its data disk, console, socket
# ECI_CPUS         processors (2)
# ECI_MEMORY_MIB   memory (2048)
# ECI_DATA_GIB     size of the data disk when it is made, of which only what is used takes room (64); later it can be made larger
set -eu
umask 077

die() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 4
}

here=$(cd "$(dirname "$0")" && pwd)
state=${ECI_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/eci-vfkit}
mkdir -p "$state"
state=$(cd "$state" && pwd)
link=$state/link.sock

command -v vfkit >/dev/null || die "vfkit is not in PATH" "brew install vfkit"
case $here$state in
*,* | *'"'*) die "vfkit takes no path with a comma or a quote in it: $here, $state" "move the folder, or set ECI_STATE" ;;
esac
# `sun_path` of macOS has 104 bytes with the one that ends it.
[ ${#link} -lt 104 ] || die "the path of a socket would be too long: $link" "set ECI_STATE to a shorter one"
# Two machines on one data disk would destroy what is on it.
if [ -e "$state/pid" ] && running=$(ps -p "$(cat "$state/pid")" -o comm= 2>/dev/null); then
    case $running in
    *vfkit) die "process $(cat "$state/pid") runs a machine on $state" "end that one, or set ECI_STATE" ;;
    esac
fi

# The machine counts its boots in the partition table: in a clone, so that what was signed stays as it is.
rm -f "$state/disk.raw" "$link"
cp -c "$here/disk.raw" "$state/disk.raw" 2>/dev/null || cp "$here/disk.raw" "$state/disk.raw"
[ -e "$state/data.raw" ] || truncate -s "$((${ECI_DATA_GIB:-64} << 30))" "$state/data.raw"
# The same address in each boot: the framework's DHCP server keeps one lease for each that it sees. Locally administered.
[ -e "$state/mac" ] || od -An -N5 -tx1 /dev/urandom | sed 's/^ */02 /;s/ *$//;s/  */:/g' >"$state/mac"

# x86-64 programs, where macOS has Rosetta (softwareupdate --install-rosetta).
if [ -e /Library/Apple/usr/libexec/oah/RosettaLinux/rosetta ]; then
    set -- --device rosetta,mountTag=rosetta "$@"
fi

printf 'console: %s\nlink:    %s\n' "$state/console.log" "$link" >&2
echo $$ >"$state/pid"
# The kernel has its command line built in and takes no other; the framework wants one. The console is output only.
exec vfkit \
    --cpus "${ECI_CPUS:-2}" \
    --memory "${ECI_MEMORY_MIB:-2048}" \
    --bootloader "linux,kernel=$here/Image,initrd=$here/initrd.img,cmdline=console=hvc0" \
    --device "virtio-blk,path=$state/disk.raw" \
    --device "virtio-blk,path=$state/data.raw,deviceId=eci-data" \
    --device "virtio-net,nat,mac=$(cat "$state/mac")" \
    --device "virtio-vsock,port=1724,socketURL=$link,connect" \
    --device "virtio-serial,logFilePath=$state/console.log" \
    --device virtio-rng \
    "$@"
