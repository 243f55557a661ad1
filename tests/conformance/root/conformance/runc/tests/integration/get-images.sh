#!/bin/sh
# In place of runc's, which downloads images: the only one is made with this root.
echo BUSYBOX_IMAGE=/conformance/runc/busybox.tar
