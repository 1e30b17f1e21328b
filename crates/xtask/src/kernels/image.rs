// SPDX-License-Identifier: Apache-2.0
//! The first file system of a machine: enough to mount this machine's files and go on there.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::package::{Kernel, tool};
use crate::exec::quiet;

/// What the machine needs before it can load modules from this machine's files.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// Mounts the files of the host read-only, a layer in memory above them, and goes on with the script
/// that the kernel's command line names.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
for module in $(busybox cat /modules); do busybox insmod "$module"; done
mount() { busybox mount "$@" || { echo "weft-kernels: cannot mount $*"; busybox poweroff -f; }; }
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=524288,cache=loose host /lower
mount -t tmpfs layer /layer
busybox mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work root /root
for system in proc:/proc sysfs:/sys devtmpfs:/dev tmpfs:/run; do
    mount -t "${system%%:*}" none "/root${system#*:}"
done
exec busybox switch_root /root /bin/sh "$(busybox sed 's/.* script=\([^ ]*\).*/\1/' /proc/cmdline)"
"#;

/// Builds the image of a kernel.
pub(super) fn build(kernel: &Kernel, folder: &Path) -> anyhow::Result<PathBuf> {
    let tree = folder.join("initrd");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for part in ["bin", "proc", "dev", "lower", "layer", "root"] {
        fs::create_dir_all(tree.join(part))?;
    }
    let busybox = tool("busybox")?;
    fs::copy(&busybox, tree.join("bin/busybox")).context("cannot copy busybox")?;
    let init = tree.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let mut list = String::new();
    for (index, module) in modules(kernel)?.iter().enumerate() {
        let name = format!("{index}.ko");
        unpack(module, &tree.join(&name))?;
        list.push_str(&format!("/{name}\n"));
    }
    fs::write(tree.join("modules"), list)?;
    pack(&tree, &folder.join("initrd.cpio"))
}

/// The files of the modules, each after those that it needs.
fn modules(kernel: &Kernel) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for module in MODULES {
        let text = quiet(Command::new(tool("modprobe")?).arg("-d").arg(&kernel.root).args([
            "-S",
            &kernel.release,
            "--show-depends",
            module,
        ]))?;
        for file in needed(&text) {
            if !found.contains(&file) {
                found.push(file);
            }
        }
    }
    Ok(found)
}

/// The files in what `modprobe --show-depends` prints; what is built into the kernel has none.
fn needed(text: &str) -> impl Iterator<Item = PathBuf> + '_ {
    text.lines().filter_map(|line| line.strip_prefix("insmod ")).map(|file| PathBuf::from(file.trim()))
}

/// busybox loads modules that are not compressed only.
fn unpack(module: &Path, to: &Path) -> anyhow::Result<()> {
    let name = module.to_string_lossy();
    if name.ends_with(".ko") {
        fs::copy(module, to).with_context(|| format!("cannot copy {name}"))?;
        return Ok(());
    }
    if !name.ends_with(".ko.xz") {
        bail!("{name} is compressed in a way that is not known here");
    }
    let status = Command::new(tool("xz")?).arg("-dc").arg(module).stdout(File::create(to)?).status()?;
    if !status.success() {
        bail!("cannot unpack {name}");
    }
    Ok(())
}

fn pack(tree: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    let mut names = Vec::new();
    list(tree, Path::new("."), &mut names)?;
    let mut cpio = Command::new(tool("cpio")?)
        .args(["--quiet", "-o", "-H", "newc"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .stdout(File::create(to)?)
        .spawn()
        .context("cannot start cpio")?;
    if let Some(mut input) = cpio.stdin.take() {
        input.write_all(names.join("\n").as_bytes())?;
    }
    if !cpio.wait()?.success() {
        bail!("cpio could not write {}", to.display());
    }
    Ok(to.to_owned())
}

fn list(tree: &Path, below: &Path, names: &mut Vec<String>) -> anyhow::Result<()> {
    names.push(below.display().to_string());
    if tree.join(below).is_dir() {
        for entry in fs::read_dir(tree.join(below))? {
            list(tree, &below.join(entry?.file_name()), names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_the_kernel_itself_have_no_file() {
        let text = "insmod /k/lib/modules/6.1/fs/netfs.ko \nbuiltin virtio_pci\ninsmod /k/9p.ko.xz \n";
        let files: Vec<PathBuf> = needed(text).collect();
        assert_eq!(files, [PathBuf::from("/k/lib/modules/6.1/fs/netfs.ko"), "/k/9p.ko.xz".into()]);
    }
}
