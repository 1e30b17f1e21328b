// SPDX-License-Identifier: Apache-2.0
//! The bpf file system, which keeps maps and links over restarts.

use std::{fs, io, path::Path};

use crate::error::{LoadError, path_error};

/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const BPFFS_ROOT: &str = "/sys/fs/bpf";

/// Makes the directory, with a bpf file system under `/sys/fs/bpf` if there is none.
pub(crate) fn mount(bpffs: &Path) -> Result<(), LoadError> {
    let root = Path::new(BPFFS_ROOT);
    if bpffs.starts_with(root) && !is_bpffs(root).map_err(path_error(root))? {
        mount_bpffs(root).map_err(path_error(root))?;
    }
    fs::create_dir_all(bpffs).map_err(path_error(bpffs))?;
    if is_bpffs(bpffs).map_err(path_error(bpffs))? {
        Ok(())
    } else {
        Err(path_error(bpffs)(io::Error::other("not on a bpf file system (mount -t bpf bpf /sys/fs/bpf)")))
    }
}

/// Whether a bpf file system is at a path.
#[allow(unsafe_code, reason = "statfs has no safe form in the standard library")]
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is a C string and the buffer has the right type; both outlive the call.
    if unsafe { libc::statfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and filled the structure.
    Ok(unsafe { found.assume_init() }.f_type == BPF_FS_MAGIC)
}

#[allow(unsafe_code, reason = "mount has no safe form in the standard library")]
fn mount_bpffs(root: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let root = std::ffi::CString::new(root.as_os_str().as_bytes())?;
    let kind = c"bpf".as_ptr();
    // SAFETY: all strings are C strings that outlive the call; the data may be null.
    let done = unsafe { libc::mount(kind, root.as_ptr(), kind, 0, std::ptr::null()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
