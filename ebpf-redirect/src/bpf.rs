// SPDX-License-Identifier: Apache-2.0
//! The `bpf(2)` calls for which aya has no form that fits: links that are pinned and updated in
//! place, and typed views of pinned maps.
#![allow(unsafe_code, reason = "system calls and views of map values")]

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use weft_ebpf_common::{
    Verdict,
    connection::{Connection, ConnectionKey, PlaceKey, Share},
    layout,
};

pub mod bare;
pub(crate) mod link;

/// Attach types of links (`enum bpf_attach_type`, kernel 6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Attach {
    /// `cgroup/connect4`.
    Connect4 = 10,
    /// `cgroup/connect6`.
    Connect6 = 11,
    /// `cgroup/sendmsg4`.
    Sendmsg4 = 14,
    /// `cgroup/sendmsg6`.
    Sendmsg6 = 15,
    /// `cgroup/recvmsg4`.
    Recvmsg4 = 19,
    /// `cgroup/recvmsg6`.
    Recvmsg6 = 20,
    /// `cgroup/setsockopt`.
    Setsockopt = 22,
    /// `cgroup/getpeername4`.
    Getpeername4 = 29,
    /// `cgroup/getpeername6`.
    Getpeername6 = 30,
    /// tcx, ingress.
    TcxIngress = 46,
    /// tcx, egress.
    TcxEgress = 47,
}

const PROG_LOAD: u32 = 5;
const MAP_LOOKUP: u32 = 1;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const MAP_NEXT_KEY: u32 = 4;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_TEST_RUN: u32 = 10;
const PROG_BY_ID: u32 = 13;
const OBJ_INFO: u32 = 15;
const PROG_QUERY: u32 = 16;
const LINK_CREATE: u32 = 28;
const MAP_LOOKUP_BATCH: u32 = 24;
const LINK_UPDATE: u32 = 29;

/// `union bpf_attr`, by the byte offsets that include/uapi/linux/bpf.h gives.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn new() -> Attributes {
        Attributes([0; 128])
    }

    fn u32(mut self, offset: usize, value: u32) -> Attributes {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, offset: usize, value: u64) -> Attributes {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, offset: usize, fd: BorrowedFd<'_>) -> Attributes {
        self.u32(offset, fd.as_raw_fd().cast_unsigned())
    }

    fn at(&self, offset: usize) -> u32 {
        u32::from_ne_bytes([self.0[offset], self.0[offset + 1], self.0[offset + 2], self.0[offset + 3]])
    }

    /// # Safety
    /// Addresses among the attributes must be valid for what the command does with them.
    unsafe fn call(&mut self, command: u32) -> io::Result<libc::c_long> {
        // SAFETY: the structure is as long as is said; the caller answers for the addresses in it.
        let done = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
    }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel just returned this descriptor, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// Attaches a program to a cgroup or, by its index, to a device.
///
/// # Errors
/// `EINVAL` where the kernel does not know the kind of link.
pub(crate) fn link_create(program: BorrowedFd<'_>, target: u32, kind: Attach) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new().fd(0, program).u32(4, target).u32(8, kind as u32).u32(12, 0);
    // SAFETY: there are no addresses among the attributes.
    unsafe { attributes.call(LINK_CREATE) }.map(owned)
}

/// Puts another program behind a link, without a moment between.
///
/// # Errors
/// `ENOLINK` where the device of the link is gone.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attributes::new().fd(0, link).fd(4, program);
    // SAFETY: there are no addresses among the attributes.
    unsafe { attributes.call(LINK_UPDATE) }.map(|_| ())
}

/// The numbers of the programs that are attached to a device by links.
///
/// # Errors
/// Those of the system call; a kernel without such links has none.
pub(crate) fn attached(ifindex: u32, kind: Attach) -> io::Result<Vec<u32>> {
    // The kernel's bound (BPF_MPROG_MAX in include/linux/bpf_mprog.h).
    let mut numbers = [0_u32; 64];
    let mut attributes = Attributes::new()
        .u32(0, ifindex)
        .u32(4, kind as u32)
        .u64(16, numbers.as_mut_ptr() as u64)
        .u32(24, numbers.len() as u32);
    // SAFETY: there is room for so many numbers.
    match unsafe { attributes.call(PROG_QUERY) } {
        Ok(_) => Ok(numbers[..attributes.at(24).min(64) as usize].to_vec()),
        // ENOENT: the device has never had one.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The name of a program, of which the kernel keeps 15 bytes.
///
/// # Errors
/// `ENOENT` where it is gone.
pub fn program_name(number: u32) -> io::Result<String> {
    use std::os::fd::AsFd;
    let mut attributes = Attributes::new().u32(0, number);
    // SAFETY: there are no addresses among the attributes.
    let program = unsafe { attributes.call(PROG_BY_ID) }.map(owned)?;
    // `struct bpf_prog_info` up to its name, which is at 64.
    let mut details = [0_u8; 80];
    let mut attributes = Attributes::new()
        .fd(0, program.as_fd())
        .u32(4, details.len() as u32)
        .u64(8, details.as_mut_ptr() as u64);
    // SAFETY: the buffer is as long as is said.
    unsafe { attributes.call(OBJ_INFO) }?;
    let name = details[64..].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Opens what is pinned at a path.
///
/// # Errors
/// `ENOENT` where there is nothing.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attributes = Attributes::new().u64(0, path.as_ptr() as u64);
    // SAFETY: the path is a C string that outlives the call.
    unsafe { attributes.call(OBJ_GET) }.map(owned)
}

/// Pins a link, program or map.
///
/// # Errors
/// `EEXIST` where something is pinned already.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attributes = Attributes::new().u64(0, path.as_ptr() as u64).fd(8, fd);
    // SAFETY: the path is a C string that outlives the call.
    unsafe { attributes.call(OBJ_PIN) }.map(|_| ())
}

/// Runs a tc program once on a packet (an Ethernet frame): its verdict, and the packet afterwards.
///
/// # Errors
/// Those of `BPF_PROG_TEST_RUN`; frames shorter than an Ethernet header are refused.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], context: &mut [u8]) -> io::Result<(i32, Vec<u8>)> {
    let mut out = vec![0_u8; frame.len() + 256];
    let pointer = context.as_mut_ptr() as u64;
    let length = context.len() as u32;
    let mut attributes = Attributes::new()
        .fd(0, program)
        .u32(8, frame.len() as u32)
        .u32(12, out.len() as u32)
        .u64(16, frame.as_ptr() as u64)
        .u64(24, out.as_mut_ptr() as u64)
        .u32(40, length)
        .u32(44, length)
        .u64(48, pointer)
        .u64(56, pointer);
    // SAFETY: the buffers live until the call returns and are as long as is said.
    unsafe { attributes.call(PROG_TEST_RUN) }?;
    out.truncate(attributes.at(12) as usize);
    Ok((attributes.at(4).cast_signed(), out))
}

/// Runs a tc program on a packet again and again: how long it takes once, in nanoseconds.
///
/// # Errors
/// As [`test_run`].
pub fn test_time(program: BorrowedFd<'_>, frame: &[u8], context: &mut [u8], times: u32) -> io::Result<u32> {
    let pointer = context.as_mut_ptr() as u64;
    let length = context.len() as u32;
    let mut attributes = Attributes::new()
        .fd(0, program)
        .u32(8, frame.len() as u32)
        .u64(16, frame.as_ptr() as u64)
        .u32(32, times)
        .u32(40, length)
        .u32(44, length)
        .u64(48, pointer)
        .u64(56, pointer);
    // SAFETY: the buffers live until the call returns and are as long as is said.
    unsafe { attributes.call(PROG_TEST_RUN) }?;
    Ok(attributes.at(36))
}

/// Plain numbers without gaps: any bytes are a value.
///
/// # Safety
/// The type must have no padding and no invalid bit patterns.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: a number.
unsafe impl Plain for u32 {}
// SAFETY: a number.
unsafe impl Plain for u64 {}

macro_rules! plain {
    ($($name:ident),*) => {$(
        // SAFETY: `layout` asserts at compile time that the sizes are the sums of the fields.
        unsafe impl Plain for layout::$name {}
    )*};
}
// SAFETY: plain numbers without a gap between them, as `layout` asserts of its size.
unsafe impl Plain for Verdict {}
// SAFETY: as above.
unsafe impl Plain for ConnectionKey {}
// SAFETY: as above.
unsafe impl Plain for Connection {}
// SAFETY: as above.
unsafe impl Plain for PlaceKey {}
// SAFETY: as above.
unsafe impl Plain for Share {}
plain!(
    Address,
    BackendKey,
    Change,
    Config,
    Endpoint,
    Event,
    Fragmented,
    FragmentedKey,
    Metric,
    PolicyKey,
    ReverseKey,
    Service,
    ServiceCounters,
    ServiceKey,
    Workload,
    DropKey,
    DropState
);

/// A key of a trie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<K> {
    /// How many leading bits of `data` count.
    pub length: u32,
    /// The data.
    pub data: K,
}

// SAFETY: the data is aligned to at most 4 bytes and a multiple of 4 long, so there is no gap.
unsafe impl Plain for Prefix<layout::Address> {}
// SAFETY: as above.
unsafe impl Plain for Prefix<layout::PolicyKey> {}

/// Entries of a part of a table, and where it ends; nowhere if it is the last.
pub type Part<K, V> = (Vec<(K, V)>, Option<u32>);

/// A typed view of a map.
#[derive(Debug)]
pub struct Table<K, V> {
    fd: OwnedFd,
    types: std::marker::PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// A view of the map behind a descriptor, whose key and value have the sizes of `K` and `V`.
    pub(crate) fn new(fd: OwnedFd) -> Table<K, V> {
        Table { fd, types: std::marker::PhantomData }
    }

    fn attributes(&self, key: &K) -> Attributes {
        use std::os::fd::AsFd;
        Attributes::new().fd(0, self.fd.as_fd()).u64(8, std::ptr::from_ref(key) as u64)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// Those of the system call, except that a missing key is `None`.
    pub fn lookup(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::zeroed();
        let mut attributes = self.attributes(key).u64(16, value.as_mut_ptr() as u64);
        // SAFETY: key and value are as long as the map says (checked when it was opened).
        match unsafe { attributes.call(MAP_LOOKUP) } {
            // SAFETY: any bytes are a value of a plain type.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds or replaces a key.
    ///
    /// # Errors
    /// `E2BIG` or `ENOSPC` where the map is full.
    pub fn update(&self, key: &K, value: &V) -> io::Result<()> {
        let mut attributes = self.attributes(key).u64(16, std::ptr::from_ref(value) as u64);
        // SAFETY: key and value are as long as the map says (checked when it was opened).
        unsafe { attributes.call(MAP_UPDATE) }.map(|_| ())
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn remove(&self, key: &K) -> io::Result<()> {
        let mut attributes = self.attributes(key);
        // SAFETY: the key is as long as the map says (checked when it was opened).
        match unsafe { attributes.call(MAP_DELETE) } {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// All keys. Keys that are removed meanwhile can make it start again; it ends all the same.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn keys(&self) -> io::Result<Vec<K>> {
        use std::os::fd::AsFd;
        const MOST: usize = 1 << 21;
        let mut keys: Vec<K> = Vec::new();
        while keys.len() < MOST {
            let mut next = MaybeUninit::<K>::zeroed();
            let previous = keys.last().map_or(0, |key| std::ptr::from_ref(key) as u64);
            let mut attributes =
                Attributes::new().fd(0, self.fd.as_fd()).u64(8, previous).u64(16, next.as_mut_ptr() as u64);
            // SAFETY: both keys are as long as the map says (checked when it was opened).
            match unsafe { attributes.call(MAP_NEXT_KEY) } {
                // SAFETY: any bytes are a value of a plain type.
                Ok(_) => keys.push(unsafe { next.assume_init() }),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }

    /// Up to `most` entries of a hash table, from where the last call stopped, and where this one did; nowhere
    /// when it was the end. At least the entries of one bucket.
    ///
    /// # Errors
    /// Those of the system call; `ENOSPC` where a bucket has more entries than that.
    pub fn some(&self, from: Option<u32>, most: usize) -> io::Result<Part<K, V>> {
        use std::os::fd::AsFd;
        let mut keys: Vec<MaybeUninit<K>> = Vec::new();
        let mut values: Vec<MaybeUninit<V>> = Vec::new();
        keys.resize_with(most, MaybeUninit::zeroed);
        values.resize_with(most, MaybeUninit::zeroed);
        let (first, mut next) = (from.unwrap_or_default(), 0_u32);
        let mut attributes = Attributes::new()
            .u64(0, if from.is_some() { std::ptr::from_ref(&first) as u64 } else { 0 })
            .u64(8, std::ptr::from_mut(&mut next) as u64)
            .u64(16, keys.as_mut_ptr() as u64)
            .u64(24, values.as_mut_ptr() as u64)
            .u32(32, most as u32)
            .fd(36, self.fd.as_fd());
        // SAFETY: there is room for so many keys and values, and the positions are numbers of 4 bytes.
        let more = match unsafe { attributes.call(MAP_LOOKUP_BATCH) } {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
            Err(error) => return Err(error),
        };
        let found = keys.into_iter().zip(values).take(attributes.at(32) as usize);
        let entries = found.map(|(key, value)| {
            // SAFETY: any bytes are a value of a plain type.
            let key = unsafe { key.assume_init() };
            // SAFETY: as above.
            (key, unsafe { value.assume_init() })
        });
        Ok((entries.collect(), more.then_some(next)))
    }

    /// All keys with their values, without those that vanish meanwhile.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        for key in self.keys()? {
            if let Some(value) = self.lookup(&key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }
}

/// A typed view of a map with a value per CPU. Values are multiples of 8 bytes long.
#[derive(Debug)]
pub struct CpuTable<K, V> {
    table: Table<K, V>,
    cpus: usize,
}

impl<K: Plain, V: Plain> CpuTable<K, V> {
    /// A view of the map behind a descriptor, on a machine with this number of possible CPUs.
    pub(crate) fn new(fd: OwnedFd, cpus: usize) -> CpuTable<K, V> {
        CpuTable { table: Table::new(fd), cpus }
    }

    /// The values of a key, one per CPU.
    ///
    /// # Errors
    /// Those of the system call, except that a missing key is `None`.
    pub fn lookup(&self, key: &K) -> io::Result<Option<Vec<V>>> {
        let mut values: Vec<MaybeUninit<V>> = Vec::new();
        values.resize_with(self.cpus, MaybeUninit::zeroed);
        let mut attributes = self.table.attributes(key).u64(16, values.as_mut_ptr() as u64);
        // SAFETY: there is room for a value of every possible CPU.
        match unsafe { attributes.call(MAP_LOOKUP) } {
            // SAFETY: any bytes are a value of a plain type.
            Ok(_) => Ok(Some(values.into_iter().map(|value| unsafe { value.assume_init() }).collect())),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the value of every CPU.
    ///
    /// # Errors
    /// `E2BIG` or `ENOSPC` where the map is full.
    pub(crate) fn set_all(&self, key: &K, value: V) -> io::Result<()> {
        let values = vec![value; self.cpus];
        let mut attributes = self.table.attributes(key).u64(16, values.as_ptr() as u64);
        // SAFETY: there is a value of every possible CPU.
        unsafe { attributes.call(MAP_UPDATE) }.map(|_| ())
    }

    /// All keys.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn keys(&self) -> io::Result<Vec<K>> {
        self.table.keys()
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn remove(&self, key: &K) -> io::Result<()> {
        self.table.remove(key)
    }
}
