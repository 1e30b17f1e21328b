// SPDX-License-Identifier: Apache-2.0
//! Kernels from Debian's archive, fetched by apt with lists of its own: the machine's are left alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context, bail};

use crate::exec;
use crate::exec::quiet;

/// The package that depends on the kernel of a release.
const META: &str = "linux-image-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel with its modules.
pub(super) struct Kernel {
    /// The image to boot.
    pub(super) image: PathBuf,
    /// The folder that has `lib/modules`.
    pub(super) root: PathBuf,
    /// The kernel's own release, for example `6.1.0-56-amd64`.
    pub(super) release: String,
}

/// The kernel of a suite; fetched where it is not there yet, or is to be updated.
pub(super) fn fetch(suite: &str, folder: &Path, update: bool) -> anyhow::Result<Kernel> {
    let root = folder.join("root");
    if update || unpacked(&root).is_err() {
        println!("fetching the kernel of Debian {suite}");
        download(suite, folder, &root).with_context(|| format!("no kernel of Debian {suite}"))?;
    }
    unpacked(&root)
}

fn unpacked(root: &Path) -> anyhow::Result<Kernel> {
    let modules = root.join("lib/modules");
    let entry = fs::read_dir(&modules)?.next().context("no modules")??;
    let release = entry.file_name().to_string_lossy().into_owned();
    // Made last: an unpacking that was cut short has none.
    if !entry.path().join("modules.dep").exists() {
        bail!("no list of modules in {}", entry.path().display());
    }
    Ok(Kernel { image: root.join(format!("boot/vmlinuz-{release}")), root: root.to_owned(), release })
}

fn download(suite: &str, folder: &Path, root: &Path) -> anyhow::Result<()> {
    let apt = folder.join("apt");
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(part))?;
    }
    fs::write(apt.join("status"), "")?;
    let line = |url: &str, suite: &str| format!("deb [arch=amd64 signed-by={KEYRING}] {url} {suite} main\n");
    let security = line("http://deb.debian.org/debian-security", &format!("{suite}-security"));
    fs::write(apt.join("sources.list"), line("http://deb.debian.org/debian", suite) + &security)?;
    exec::run(client("apt-get", &apt).args(["update", "-q"]))?;
    let depends = quiet(client("apt-cache", &apt).args(["depends", META]))?;
    let package = dependency(&depends).with_context(|| format!("{META} depends on no kernel"))?;
    exec::run(client("apt-get", &apt).args(["download", "-q", package]).current_dir(&apt))?;
    let archive = newest_archive(&apt, package)?;
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(root)?,
    }
    quiet(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(root))?;
    fs::remove_file(&archive)?;
    // Packages are moving their modules from /lib to /usr/lib.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    let release = package.trim_start_matches("linux-image-");
    quiet(Command::new(tool("depmod")?).arg("-b").arg(root).arg(release)).map(|_| ())
}

/// A tool of the system that the PATH of an ordinary user may lack.
pub(super) fn tool(name: &str) -> anyhow::Result<PathBuf> {
    exec::find(name).with_context(|| format!("{name} is not installed"))
}

fn client(name: &str, apt: &Path) -> Command {
    let mut command = Command::new(name);
    let at = |option: &str, path: &str| format!("{option}={}", apt.join(path).display());
    for setting in [
        at("Dir::Etc::sourcelist", "sources.list"),
        at("Dir::State::lists", "lists"),
        at("Dir::State::status", "status"),
        at("Dir::Cache", "cache"),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        "APT::Architecture=amd64".to_owned(),
        // The folder need not be readable by another user.
        "APT::Sandbox::User=root".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ] {
        command.arg("-o").arg(setting);
    }
    command
}

/// The kernel in what `apt-cache depends` prints.
fn dependency(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let package = line.trim().strip_prefix("Depends: ")?;
        package.starts_with("linux-image-").then_some(package)
    })
}

fn newest_archive(folder: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let prefix = format!("{package}_");
    let archives = fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let named = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "deb")
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    archives.filter(named).max().with_context(|| format!("apt left no archive of {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_of_a_release_is_what_its_package_depends_on() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Recommends: firmware\n";
        assert_eq!(dependency(text), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(dependency("linux-image-amd64\n"), None);
    }
}
