//! Making a container's mounts, in this order:
//!
//! | step | why there |
//! | --- | --- |
//! | [`scratch::enter_private_namespace`] | nothing that follows shows in the VM |
//! | [`view`]: open and judge every source | on the VM's own mount table, before anything covers it |
//! | [`figures`]: files for `/proc/meminfo` and its like | their tmpfs goes out of sight next |
//! | [`scratch`]: a tmpfs over the appliance's folder | room to attach to, sockets out of sight |
//! | [`tree`]: layers id-mapped, overlay built | the kernel locks it when crun makes the user namespace |
//! | [`destination::check_folders`] | on the tree that crun will see |
//! | [`binds`]: volumes and files id-mapped and laid | same lock |
//! | [`uptime`]: the clock that counts from the boot | crun is executed under it |

pub mod binds;
pub mod destination;
mod error;
pub mod figures;
pub mod scratch;
pub mod tree;
pub mod uptime;
pub mod view;

pub use error::Error;
