"""What crun's tests use of python3-libmount, which Debian 13 does not have: mountinfo, read from a file."""

class Mount:
    def __init__(self, line):
        left, right = line.rstrip("\n").split(" - ", 1)
        fields = left.split(" ")
        self.target, self.vfs_options = fields[4], fields[5]
        self.fs_options = right.split(" ")[2]


class Table:
    def __init__(self, path):
        with open(path) as lines:
            self.mounts = [Mount(line) for line in lines if " - " in line]

    def find_target(self, target):
        return next((mount for mount in reversed(self.mounts) if mount.target == target), None)
