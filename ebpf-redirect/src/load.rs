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
    bpffs, clsact,
    config::Attachment,
    error::{LoadError, path_error},
    hook::{DeviceHook, OPTIONAL_HOOKS, SOCKET_HOOKS},
    maps::{CONNECTIONS, LAYOUT, Layout, has_other_version},
};

/// An object file, aligned as the ELF parser wants it.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../prebuilt/weft.bpf.o"));

/// The bytes of the object file.
pub(crate) fn object() -> &'static [u8] {
    &OBJECT.0
}

/// The loaded programs of a node.
#[derive(Debug)]
pub struct Programs {
    bpf: Ebpf,
    directory: PathBuf,
    left_out: BTreeSet<&'static str>,
    chooses_error: bool,
    knows_tcx: bool,
    attachment: Attachment,
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
        if is_real_time() {
            return Err(LoadError::RealTime);
        }
        bpffs::mount(bpffs)?;
        let maps = maps_directory(bpffs);
        for directory in [&maps, &links_directory(bpffs)] {
            fs::create_dir_all(directory).map_err(path_error(directory))?;
        }
        drop_other_layouts(&maps)?;
        let mut chooses_error = true;
        let mut loaded = load_object(&maps, chooses_error);
        if matches!(&loaded, Err(LoadError::Program { source, .. }) if lacks_function(source)) {
            chooses_error = false;
            loaded = load_object(&maps, chooses_error);
        }
        let (bpf, left_out) = loaded?;
        let mut programs = Programs {
            bpf,
            directory: bpffs.to_owned(),
            left_out,
            chooses_error,
            knows_tcx: false,
            attachment: Attachment::Auto,
        };
        programs.knows_tcx = knows_tcx(programs.fd(DeviceHook::FromNetdev.program())?);
        Ok(programs)
    }

    /// Attaches to devices in another way than the kernel's best.
    #[must_use]
    pub fn attaching(mut self, attachment: Attachment) -> Programs {
        self.attachment = attachment;
        self
    }

    /// Whether the kernel has tcx links.
    pub(crate) fn knows_tcx(&self) -> bool {
        self.knows_tcx
    }

    /// The [`OPTIONAL_HOOKS`] that the kernel does not take.
    pub(crate) fn left_out(&self) -> &BTreeSet<&'static str> {
        &self.left_out
    }

    /// Whether a refused `connect` says why; else it is `EPERM`.
    pub(crate) fn chooses_error(&self) -> bool {
        self.chooses_error
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

    /// The size of a loaded program in bytes, and how many instructions the verifier looked at (5.16).
    ///
    /// # Errors
    /// Where the object has no program of this name, or the kernel does not tell.
    pub fn size(&self, name: &str) -> Result<(u32, Option<u32>), LoadError> {
        let missing = || LoadError::Attach { name: name.to_owned(), source: io::ErrorKind::NotFound.into() };
        let program = self.bpf.program(name).ok_or_else(missing)?;
        let failed = |source| LoadError::Program { name: name.to_owned(), source: Box::new(source) };
        let info = program.info().map_err(failed)?;
        Ok((info.size_translated().unwrap_or_default(), info.verified_instruction_count()))
    }

    /// Attaches the hooks of sockets to a cgroup, or replaces the programs behind the old links.
    ///
    /// # Errors
    /// Names the program and the kernel's reason.
    pub(crate) fn attach_cgroup(&self, cgroup: &Path) -> Result<(), LoadError> {
        let target = fs::File::open(cgroup).map_err(path_error(cgroup))?;
        // A link to a cgroup that was removed and made again is attached to nothing.
        let inode = target.metadata().map_err(path_error(cgroup))?.ino();
        for (name, kind) in SOCKET_HOOKS.into_iter().filter(|(name, _)| !self.left_out.contains(name)) {
            let pin = links_directory(&self.directory).join(format!("{name}-{inode}"));
            self.attach(name, target.as_raw_fd().cast_unsigned(), kind, &pin)?;
        }
        Ok(())
    }

    /// Attaches a hook to a device, or replaces the program that is attached.
    ///
    /// # Errors
    /// Names the program and the kernel's reason.
    pub fn attach_device(&self, hook: DeviceHook, ifindex: u32) -> Result<(), LoadError> {
        let (name, pin) = (hook.program(), self.device_pin(hook, ifindex));
        let links = links_directory(&self.directory);
        let failed = |source| LoadError::Attach { name: name.to_owned(), source };
        let tcx = match self.attachment {
            Attachment::Auto => self.knows_tcx,
            Attachment::Tcx => true,
            Attachment::Clsact => false,
        };
        // What an earlier process attached in the other way goes when this is in its place.
        if tcx {
            self.attach(name, ifindex, hook.attach(), &pin)?;
            clsact::detach(hook, ifindex, &links).map_err(failed)
        } else {
            clsact::attach(hook, ifindex, self.fd(name)?, &links).map_err(failed)?;
            remove(&pin)
        }
    }

    /// Detaches a hook from a device, if it is attached.
    ///
    /// # Errors
    /// Where the pin or the filter cannot be removed.
    pub(crate) fn detach_device(&self, hook: DeviceHook, ifindex: u32) -> Result<(), LoadError> {
        remove(&self.device_pin(hook, ifindex))?;
        let failed = |source| LoadError::Attach { name: hook.program().to_owned(), source };
        clsact::detach(hook, ifindex, &links_directory(&self.directory)).map_err(failed)
    }

    /// The hooks of devices that have a pinned link or a filter. A link outlives its device: where the index was
    /// given again, its pin says nothing about the new one, and goes.
    ///
    /// # Errors
    /// Where the directory, a link or the filters cannot be read.
    pub fn attached(&self) -> Result<BTreeSet<(DeviceHook, u32)>, LoadError> {
        let directory = links_directory(&self.directory);
        let mut attached = clsact::attached().map_err(LoadError::Filters)?;
        for entry in fs::read_dir(&directory).map_err(path_error(&directory))? {
            let name = entry.map_err(path_error(&directory))?.file_name();
            let Some((program, index)) = name.to_str().and_then(|name| name.rsplit_once('-')) else {
                continue;
            };
            let hook = DeviceHook::ALL.into_iter().find(|hook| hook.program() == program);
            let (Some(hook), Ok(index)) = (hook, index.parse()) else { continue };
            let pin = self.device_pin(hook, index);
            let of = bpf::open(&pin).and_then(|link| bpf::link::device(link.as_fd()));
            if of.map_err(path_error(&pin))? == index {
                attached.insert((hook, index));
            } else {
                remove(&pin)?;
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

/// Loads the object, whose hooks of sockets say why they refuse where the kernel lets them. What the kernel does
/// not take of [`OPTIONAL_HOOKS`] is left out, and named.
fn load_object(maps: &Path, chooses_error: bool) -> Result<(Ebpf, BTreeSet<&'static str>), LoadError> {
    let chooses = u32::from(chooses_error);
    let mut bpf = EbpfLoader::new()
        .default_map_pin_directory(maps)
        .override_global("CHOOSES_ERROR", &chooses, true)
        .load(object())?;
    let mut left_out = BTreeSet::new();
    for (name, program) in bpf.programs_mut() {
        let loaded = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockopt(program) => program.load(),
            _ => continue,
        };
        let Err(source) = loaded else { continue };
        match OPTIONAL_HOOKS.into_iter().find(|optional| *optional == name) {
            Some(optional) if lacks_function(&source) => left_out.insert(optional),
            _ => return Err(LoadError::Program { name: name.to_owned(), source: Box::new(source) }),
        };
    }
    Ok((bpf, left_out))
}

/// The kernel does not have a function that the program calls, or not for such a program; the three ways in which
/// kernels from 5.10 to 6.18 say so.
fn lacks_function(error: &ProgramError) -> bool {
    let ProgramError::LoadError { verifier_log, .. } = error else { return false };
    let log = verifier_log.to_string();
    ["unknown func ", "invalid func ", "program of this type cannot use helper "]
        .iter()
        .any(|said| log.contains(said))
}

/// A device of index 0 exists nowhere: a kernel that has tcx links says so, another does not know them.
fn knows_tcx(program: BorrowedFd<'_>) -> bool {
    let tried = bpf::link_create(program, 0, Attach::TcxIngress);
    !matches!(&tried, Err(error) if error.raw_os_error() == Some(libc::EINVAL))
}

/// Removes what a node has on devices and cgroups, and its maps.
pub(crate) fn detach_all(bpffs: &Path) -> Result<(), LoadError> {
    let filters = clsact::detach_all(&links_directory(bpffs)).map_err(LoadError::Filters);
    unpin_all(bpffs)?;
    filters
}

/// The packet in hand is one entry per CPU (`programs/src/packet.rs`), which is safe as long as nothing
/// comes between the hooks of one CPU.
fn is_real_time() -> bool {
    fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
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

/// Removes pinned maps that are not what ours are: the loader would use them as they are.
fn drop_other_layouts(directory: &Path) -> Result<(), LoadError> {
    for entry in fs::read_dir(directory).map_err(path_error(directory))? {
        let path = entry.map_err(path_error(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(layout) = LAYOUT.iter().find(|layout| layout.name == name) else {
            tracing::warn!(map = name, "pinned map of another version, removed");
            remove(&path)?;
            continue;
        };
        if !is_ours(layout, &path).map_err(path_error(&path))? {
            tracing::warn!(map = name, "pinned map has another layout, made anew");
            remove(&path)?;
        }
    }
    Ok(())
}

fn is_ours(layout: &Layout, path: &Path) -> io::Result<bool> {
    let Ok(info) = MapInfo::from_pin(path) else { return Ok(false) };
    let found = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
    if found != (layout.key, layout.value, layout.entries) || info.map_type().ok() != Some(layout.kind) {
        return Ok(false);
    }
    // Connections go on where both ends may begin them; the others are reset and begun anew.
    Ok(layout.name != CONNECTIONS || !has_other_version(bpf::open(path)?)?)
}
