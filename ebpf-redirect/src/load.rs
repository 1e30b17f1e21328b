// SPDX-License-Identifier: Apache-2.0
//! Loads the programs, keeps maps and links pinned, and puts new programs behind old links.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{Program, ProgramError},
};

use crate::{
    bpf::{self, Attach},
    maps::LAYOUT,
};

/// An object file, aligned as the ELF parser wants it.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../prebuilt/weft.bpf.o"));

/// The bytes of the object file.
pub(crate) fn object() -> &'static [u8] {
    &OBJECT.0
}

/// The hooks of sockets, each attached to the node's cgroup.
pub(crate) const SOCKET_HOOKS: [(&str, Attach); 11] = [
    ("connect4", Attach::Connect4),
    ("connect6", Attach::Connect6),
    ("sendmsg4", Attach::Sendmsg4),
    ("sendmsg6", Attach::Sendmsg6),
    ("recvmsg4", Attach::Recvmsg4),
    ("recvmsg6", Attach::Recvmsg6),
    ("getpeername4", Attach::Getpeername4),
    ("getpeername6", Attach::Getpeername6),
    ("post_bind4", Attach::PostBind4),
    ("post_bind6", Attach::PostBind6),
    ("setsockopt", Attach::Setsockopt),
];

/// A hook of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceHook {
    /// What a pod sends.
    FromPod,
    /// What is sent to a pod.
    ToPod,
    /// What a port of a bridge sends of which it is not known whose it is.
    FromPort,
    /// What is sent to such a port.
    ToPort,
    /// What comes from everywhere else.
    FromNetdev,
    /// Our own device.
    Bounced,
}

impl DeviceHook {
    /// All of them.
    pub const ALL: [DeviceHook; 6] = [
        DeviceHook::FromPod,
        DeviceHook::ToPod,
        DeviceHook::FromPort,
        DeviceHook::ToPort,
        DeviceHook::FromNetdev,
        DeviceHook::Bounced,
    ];

    /// The name of the program.
    pub fn program(self) -> &'static str {
        match self {
            DeviceHook::FromPod => "from_pod",
            DeviceHook::ToPod => "to_pod",
            DeviceHook::FromPort => "from_port",
            DeviceHook::ToPort => "to_port",
            DeviceHook::FromNetdev => "from_netdev",
            DeviceHook::Bounced => "bounced",
        }
    }

    fn attach(self) -> Attach {
        match self {
            DeviceHook::ToPod | DeviceHook::ToPort => Attach::TcxEgress,
            _ => Attach::TcxIngress,
        }
    }
}

/// What went wrong while loading or attaching.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bpf file system or a pin could not be used.
    #[error("{path}: {source}")]
    Path {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("kernel programs could not be read or their maps not be made: {0}")]
    Object(#[from] aya::EbpfError),
    /// The kernel refused a program.
    #[error("kernel program {name}: {source}")]
    Program {
        /// Which program.
        name: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A program could not be attached.
    #[error("kernel program {name} could not be attached: {source}")]
    Attach {
        /// Which program.
        name: String,
        /// Why.
        source: io::Error,
    },
}

fn path_error(path: &Path) -> impl FnOnce(io::Error) -> LoadError + '_ {
    |source| LoadError::Path { path: path.to_owned(), source }
}

/// The loaded programs of a node.
#[derive(Debug)]
pub struct Programs {
    bpf: Ebpf,
    directory: PathBuf,
}

/// Where the maps of a node are pinned.
pub(crate) fn maps_directory(bpffs: &Path) -> PathBuf {
    bpffs.join("maps")
}

/// Where the links of a node are pinned.
pub(crate) fn links_directory(bpffs: &Path) -> PathBuf {
    bpffs.join("links")
}

impl Programs {
    /// Loads all programs; maps that are pinned and have the right layout are used again.
    ///
    /// # Errors
    /// Names the program or path and the kernel's reason.
    pub fn load(bpffs: &Path) -> Result<Programs, LoadError> {
        mount(bpffs)?;
        let maps = maps_directory(bpffs);
        for directory in [&maps, &links_directory(bpffs)] {
            fs::create_dir_all(directory).map_err(path_error(directory))?;
        }
        drop_other_layouts(&maps)?;
        let mut bpf = EbpfLoader::new().default_map_pin_directory(&maps).load(object())?;
        for (name, program) in bpf.programs_mut() {
            let loaded = match program {
                Program::SchedClassifier(program) => program.load(),
                Program::CgroupSockAddr(program) => program.load(),
                Program::CgroupSock(program) => program.load(),
                Program::CgroupSockopt(program) => program.load(),
                _ => continue,
            };
            loaded
                .map_err(|source| LoadError::Program { name: name.to_owned(), source: Box::new(source) })?;
        }
        Ok(Programs { bpf, directory: bpffs.to_owned() })
    }

    /// The descriptor of a loaded program.
    ///
    /// # Errors
    /// Where the object has no program of this name.
    pub fn fd(&self, name: &str) -> Result<BorrowedFd<'_>, LoadError> {
        let missing = || LoadError::Attach { name: name.to_owned(), source: io::ErrorKind::NotFound.into() };
        let program = self.bpf.program(name).ok_or_else(missing)?;
        let fd = program
            .fd()
            .map_err(|source| LoadError::Program { name: name.to_owned(), source: Box::new(source) })?;
        Ok(fd.as_fd())
    }

    /// Attaches the hooks of sockets to a cgroup, or replaces the programs behind the old links.
    ///
    /// # Errors
    /// Names the program and the kernel's reason.
    pub fn attach_cgroup(&self, cgroup: &Path) -> Result<(), LoadError> {
        let target = fs::File::open(cgroup).map_err(path_error(cgroup))?;
        // A link to a cgroup that was removed and made again is attached to nothing.
        let inode = target.metadata().map_err(path_error(cgroup))?.ino();
        for (name, kind) in SOCKET_HOOKS {
            let pin = links_directory(&self.directory).join(format!("{name}-{inode}"));
            self.attach(name, target.as_raw_fd().cast_unsigned(), kind, &pin)?;
        }
        Ok(())
    }

    /// Attaches a hook to a device, or replaces the program behind the old link.
    ///
    /// # Errors
    /// Names the program and the kernel's reason.
    pub fn attach_device(&self, hook: DeviceHook, ifindex: u32) -> Result<(), LoadError> {
        self.attach(hook.program(), ifindex, hook.attach(), &self.device_pin(hook, ifindex))
    }

    /// Detaches a hook from a device, if it is attached.
    ///
    /// # Errors
    /// Where the pin cannot be removed.
    pub fn detach_device(&self, hook: DeviceHook, ifindex: u32) -> Result<(), LoadError> {
        remove(&self.device_pin(hook, ifindex))
    }

    /// The hooks of devices that have a pinned link.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn attached(&self) -> Result<BTreeSet<(DeviceHook, u32)>, LoadError> {
        let directory = links_directory(&self.directory);
        let mut attached = BTreeSet::new();
        for entry in fs::read_dir(&directory).map_err(path_error(&directory))? {
            let name = entry.map_err(path_error(&directory))?.file_name();
            let Some((program, index)) = name.to_str().and_then(|name| name.rsplit_once('-')) else {
                continue;
            };
            let hook = DeviceHook::ALL.into_iter().find(|hook| hook.program() == program);
            if let (Some(hook), Ok(index)) = (hook, index.parse()) {
                attached.insert((hook, index));
            }
        }
        Ok(attached)
    }

    fn device_pin(&self, hook: DeviceHook, ifindex: u32) -> PathBuf {
        links_directory(&self.directory).join(format!("{}-{ifindex}", hook.program()))
    }

    fn attach(&self, name: &str, target: u32, kind: Attach, pin: &Path) -> Result<(), LoadError> {
        let program = self.fd(name)?;
        let failed = |source| LoadError::Attach { name: name.to_owned(), source };
        match bpf::open(pin) {
            Ok(link) => match bpf::link_update(link.as_fd(), program) {
                Ok(()) => return Ok(()),
                // The device or cgroup is gone and its number was given again.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => remove(pin)?,
                Err(error) => return Err(failed(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(path_error(pin)(error)),
        }
        let link = bpf::link_create(program, target, kind).map_err(failed)?;
        bpf::pin(link.as_fd(), pin).map_err(path_error(pin))
    }
}

/// Removes all pins of a node, and so everything that only they hold.
pub(crate) fn unpin_all(bpffs: &Path) -> Result<(), LoadError> {
    for directory in [links_directory(bpffs), maps_directory(bpffs)] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(path_error(&directory)(error));
            }
            _ => {}
        }
    }
    match fs::remove_dir(bpffs) {
        // Another thing of the caller's may be in there.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(path_error(bpffs)(error))
        }
        _ => Ok(()),
    }
}

fn remove(pin: &Path) -> Result<(), LoadError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(path_error(pin)(error)),
        _ => Ok(()),
    }
}

/// Removes pinned maps whose layout is not ours: the loader would use them as they are.
fn drop_other_layouts(directory: &Path) -> Result<(), LoadError> {
    for (name, key, value) in LAYOUT {
        let path = directory.join(name);
        let Ok(info) = MapInfo::from_pin(&path) else { continue };
        if (info.key_size() as usize, info.value_size() as usize) != (key, value) {
            tracing::warn!(map = name, "pinned map has another layout, made anew");
            remove(&path)?;
        }
    }
    Ok(())
}

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

#[allow(unsafe_code, reason = "statfs has no safe form in the standard library")]
fn is_bpffs(path: &Path) -> io::Result<bool> {
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
