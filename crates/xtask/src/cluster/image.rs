// SPDX-License-Identifier: Apache-2.0
//! OCI archives from programs of this machine, without a registry and without Docker.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::exec;

/// The prefix of OCI's media types.
const OCI: &str = "application/vnd.oci.image";

/// What an image holds and is called.
#[derive(Clone, Debug)]
pub(super) struct Image<'a> {
    /// Its name with its tag.
    pub(super) name: &'a str,
    /// Programs, each with the place that it has in the image.
    pub(super) programs: Vec<(PathBuf, &'a str)>,
    /// What runs where a pod says nothing.
    pub(super) entrypoint: &'a [&'a str],
}

impl Image<'_> {
    /// Writes the archive, with the shared libraries that the programs name.
    pub(super) fn write(&self, to: &Path) -> anyhow::Result<()> {
        let work = to.with_extension("work");
        remove(&work)?;
        let (tree, archive) = (work.join("tree"), work.join("archive"));
        self.lay_out(&tree)?;
        let blobs = archive.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let layer = work.join("layer.tar");
        tar(&tree, &layer)?;
        let (layer_digest, layer_size) = take(&layer, &blobs)?;
        let write = |value: &Value| -> anyhow::Result<(String, u64)> {
            let file = work.join("blob.json");
            fs::write(&file, value.to_string())?;
            take(&file, &blobs)
        };
        let (config_digest, config_size) = write(&self.config(&layer_digest)?)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": {"mediaType": format!("{OCI}.config.v1+json"), "digest": config_digest, "size": config_size},
            "layers": [
                {"mediaType": format!("{OCI}.layer.v1.tar"), "digest": layer_digest, "size": layer_size},
            ],
        });
        let (digest, size) = write(&manifest)?;
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": format!("{OCI}.manifest.v1+json"), "digest": digest, "size": size,
            "annotations": {"io.containerd.image.name": self.name},
        }]});
        fs::write(archive.join("index.json"), index.to_string())?;
        fs::write(archive.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
        let finished = work.join("finished.tar");
        tar(&archive, &finished)?;
        fs::rename(&finished, to).with_context(|| format!("cannot write {}", to.display()))?;
        remove(&work)
    }

    fn config(&self, layer: &str) -> anyhow::Result<Value> {
        Ok(json!({
            "architecture": architecture()?, "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint, "WorkingDir": "/",
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        }))
    }

    /// The files of the image, in a folder.
    fn lay_out(&self, tree: &Path) -> anyhow::Result<()> {
        for folder in
            ["etc", "proc", "run", "sys", "tmp", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "var/lib"]
        {
            fs::create_dir_all(tree.join(folder))?;
        }
        fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        // As Debian has it: what is found below one is found below the other.
        for folder in ["bin", "lib", "lib64", "sbin"] {
            symlink(format!("usr/{folder}"), tree.join(folder))?;
        }
        for (program, target) in &self.programs {
            put(program, tree, Path::new(target), 0o755)?;
            for library in libraries(program)? {
                put(&library, tree, &library, 0o755)?;
            }
        }
        Ok(())
    }
}

fn put(file: &Path, tree: &Path, target: &Path, mode: u32) -> anyhow::Result<()> {
    let target = tree.join(target.strip_prefix("/").unwrap_or(target));
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
    fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// The shared libraries of a program; none where it is linked statically.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    Ok(files(&String::from_utf8_lossy(&output.stdout)))
}

/// The files in what ldd prints: `name => /path (address)`, or a path alone.
fn files(ldd: &str) -> Vec<PathBuf> {
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.into_iter().find(|word| word.starts_with('/')).map(PathBuf::from)
    };
    ldd.lines().filter(|line| line.contains("(0x")).filter_map(of_line).collect()
}

/// The same files give the same archive.
fn tar(folder: &Path, to: &Path) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--file",
    ]);
    exec::quiet(tar.arg(to).arg("--directory").arg(folder).arg(".")).map(drop)
}

/// Moves a file to the blobs, under its digest, and tells that and its size.
fn take(file: &Path, blobs: &Path) -> anyhow::Result<(String, u64)> {
    let sum = exec::output(Command::new("sha256sum").arg(file))?;
    let hash = sum.split_whitespace().next().context("sha256sum printed nothing")?;
    let size = fs::metadata(file)?.len();
    fs::rename(file, blobs.join(hash))?;
    Ok((format!("sha256:{hash}"), size))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn architecture() -> anyhow::Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no name for {other} in images"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_that_ldd_names() {
        let text = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let both = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(files(text), both);
        assert_eq!(files("\tnot a dynamic executable\n"), [] as [PathBuf; 0]);
    }

    #[test]
    fn an_archive_holds_the_program_and_is_the_same_each_time() {
        let folder = std::env::temp_dir().join(format!("weft-image-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = std::env::current_exe().unwrap();
        let image = Image {
            name: "localhost/test:1",
            programs: vec![(program.clone(), "/usr/bin/test")],
            entrypoint: &["test"],
        };
        let archives = ["a.tar", "b.tar"].map(|name| folder.join(name));
        archives.iter().for_each(|archive| image.write(archive).unwrap());
        let [first, second] = archives.map(|archive| fs::read(archive).unwrap());
        assert!(first == second, "the archives differ");
        let content = fs::read(program).unwrap();
        assert!(
            first.windows(4096).step_by(512).any(|part| content.starts_with(part)),
            "the program is not in it"
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
