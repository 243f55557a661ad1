#!/bin/sh
# Starts the appliance beside this script on a Mac with Apple's processor, by vfkit, in the foreground. Arguments go to vfkit: more
# devices, for example. docs/machines.md of the project has the devices one by one, section "On a Mac".
#
# ECI_STATE        folder of what the machine keeps: its data disk, console, socket
# ECI_CPUS         processors (2)
# ECI_MEMORY_MIB   memory (2048)
# ECI_DATA_GIB     size of the data disk when it is made, of which only what is used takes room (64). Larger later: with the machine off,
#                  `truncate -s 128G data.raw` in that folder; the next boot grows the file system. Never smaller.
set -eu
umask 077

die() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 4
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for name in disk.raw Image initrd.img; do
    [ -f "$here/$name" ] || die "there is no $name beside this script, in $here" \
        "copy the whole folder, and run the script that is in it, not a link to it"
done
gib=${ECI_DATA_GIB:-64}
case $gib in
0* | *[!0-9]* | ??????*) die "ECI_DATA_GIB is no size: $gib" "set it to a whole number of GiB from 1 to 99999, or leave it out" ;;
esac
state=${ECI_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/eci-vfkit}
mkdir -p -- "$state"
# One name for one folder, for whoever looks for it among the arguments of processes.
state=$(CDPATH='' cd -- "$state" && pwd -P)
link=$state/link.sock

command -v vfkit >/dev/null || die "vfkit is not in PATH" "brew install vfkit"
case $here$state in
*,* | *'"'*) die "vfkit takes no path with a comma or a quote in it: $here, $state" "move the folder, or set ECI_STATE" ;;
esac
# `sun_path` of macOS has 104 bytes with the one that ends it.
[ "$(($(printf %s "$link" | wc -c)))" -lt 104 ] ||
    die "the path of a socket would be too long: $link" "set ECI_STATE to a shorter one"

# Two machines on one data disk would destroy what is on it. The lock is a link to the number of the process, so that both are there at
# once; vfkit keeps the number. Of a process that is gone, or is another by now, it is taken over, by one start at a time.
lock=$state/lock
held() {
    holder=$(readlink "$lock") && [ "$holder" != "$$" ] || return 1
    case $(ps -ww -p "$holder" -o args= 2>/dev/null) in
    *"$state/data.raw"* | *"${0##*/}"*) return 0 ;;
    *) return 1 ;;
    esac
}
taken() {
    die "process $holder runs a machine on $state, or starts one" \
        "shut that machine down first, or set ECI_STATE to another folder"
}
if ! ln -s "$$" "$lock" 2>/dev/null; then
    if held; then taken; fi
    mkdir "$lock.stale" 2>/dev/null || die "another start takes $state over, or was cut off at it" \
        "try again; where no other start runs: rmdir '$lock.stale'"
    if held; then
        rmdir "$lock.stale"
        taken
    fi
    rm -f "$lock"
    ln -s "$$" "$lock" 2>/dev/null || locked=no
    rmdir "$lock.stale"
    [ "${locked-yes}" = yes ] || die "cannot make $lock, or another start was faster" \
        "try again; you have to be able to write to $state"
fi

# The machine counts its boots in the partition table: in a clone, so that what was signed stays as it is.
rm -f "$state/disk.raw" "$link"
cp -c "$here/disk.raw" "$state/disk.raw" 2>/dev/null || cp "$here/disk.raw" "$state/disk.raw"
chmod u+w "$state/disk.raw"
if ! [ -e "$state/data.raw" ]; then
    rm -f "$state/data.raw.new"
    truncate -s "$((gib << 30))" "$state/data.raw.new"
    mv "$state/data.raw.new" "$state/data.raw"
fi
# The same address in each boot: the framework's DHCP server keeps one lease for each that it sees. Locally administered.
if ! [ -s "$state/mac" ]; then
    od -An -N5 -tx1 /dev/urandom | sed 's/^ */02 /;s/ *$//;s/  */:/g' >"$state/mac.new"
    mv "$state/mac.new" "$state/mac"
fi

# x86-64 programs, where macOS has Rosetta (softwareupdate --install-rosetta).
if [ -e /Library/Apple/usr/libexec/oah/RosettaLinux/rosetta ]; then
    set -- --device rosetta,mountTag=rosetta "$@"
fi

printf 'console: %s\nlink:    %s\n' "$state/console.log" "$link" >&2
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
